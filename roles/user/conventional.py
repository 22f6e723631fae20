"""The conventional protections: a key encrypts images, and the provider trains a classifier on encrypted ones."""

import math
from collections.abc import Iterator
from itertools import permutations
from typing import Literal

import torch
from torch import Tensor

from roles.common.recipes import Frozen
from roles.common.seeds import generator

_BLOCK = 4
_BYTES = 3 * _BLOCK * _BLOCK
_NIBBLES = 2 * _BYTES
_ORDERS = torch.tensor(list(permutations(range(3))))
_CHUNK = 500

_Key = tuple[Tensor, Tensor | None]
"""The bits of a pixel key, uint8 0 or 255, and the orders of channels, int64; both ``(1 or N, 3, H, W)``."""


class TanakaConfig(Frozen):
    """Tanaka's learnable image encryption [16]: one key for every block of every image."""

    kind: Literal["tanaka"]


class PixelConfig(Frozen):
    """Pixel-based encryption [17], [18]."""

    kind: Literal["pixel"]
    key: Literal["one", "per_image"] = "one"
    """Whether all images share a key or each has one of its own. The paper does not say which it used."""
    shuffle: bool = False
    """Whether the key also orders the three channels of every pixel."""


class LearnableEncryption:
    """Tanaka's learnable image encryption [16].

    Every block of 4x4 pixels is read as 48 bytes (row, column, channel) and split into 96 values of 4 bits, the low
    halves of all bytes before the high ones. With a mask m and a permutation s as the key, value i becomes
    ``w_i = v_i`` or, where m_i is set, ``15 - v_i``; then ``u_i = w_s(i)``; then ``15 - u_i`` where m_i is set. Read
    back as bytes, they are the encrypted block.

    Args:
        config: the kind of encryption.
        seed: the key follows from it.
    """

    def __init__(self, config: TanakaConfig, seed: int) -> None:
        stream = generator(seed, config.kind, "key")
        self._order = torch.randperm(_NIBBLES, generator=stream)
        flipped = torch.randperm(_NIBBLES, generator=stream)[: _NIBBLES // 2]
        # 15 - v is v XOR 15 for 4 bits.
        self._mask = torch.zeros(_NIBBLES, dtype=torch.uint8).index_fill_(0, flipped, 15)

    def protect(self, images: Tensor, numbers: Tensor) -> Tensor:
        """Encrypt ``images``.

        Args:
            images: uint8 ``(N, 3, H, W)``.
            numbers: int64 ``(N,)``, which images they are: of no effect here, where all images share a key.

        Returns:
            uint8 ``(N, 3, H, W)``.

        Raises:
            ValueError: H or W is not divisible by 4.
        """
        return self._apply(images, self._order)

    def restore(self, images: Tensor, numbers: Tensor) -> Tensor:
        """Decrypt ``images``, the inverse of :meth:`protect`, with the same shapes and errors."""
        return self._apply(images, self._order.argsort())

    @staticmethod
    def key_bits(height: int, width: int) -> float:
        """Return the size of the key space in bits: log2(96!) for s, log2(C(96, 48)) for m; whatever the image."""
        return math.log2(math.factorial(_NIBBLES)) + math.log2(math.comb(_NIBBLES, _NIBBLES // 2))

    def _apply(self, images: Tensor, order: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        if height % _BLOCK or width % _BLOCK:
            raise ValueError(f"images are {height}x{width}: Tanaka's encryption needs sides divisible by {_BLOCK}")
        return torch.cat([self._apply_chunk(chunk, order) for chunk in torch.split(images, _CHUNK)])

    def _apply_chunk(self, images: Tensor, order: Tensor) -> Tensor:
        count, _, height, width = images.shape
        blocks = images.reshape(count, 3, height // _BLOCK, _BLOCK, width // _BLOCK, _BLOCK)
        # With the bytes of a block in front, a permutation moves whole rows instead of single values.
        values = blocks.permute(3, 5, 1, 0, 2, 4).reshape(_BYTES, -1)
        halves, mask = torch.cat([values & 15, values >> 4]), self._mask.unsqueeze(1)
        halves = (halves ^ mask)[order] ^ mask
        values = halves[:_BYTES] | halves[_BYTES:] << 4
        blocks = values.reshape(_BLOCK, _BLOCK, 3, count, height // _BLOCK, width // _BLOCK)
        return blocks.permute(3, 2, 4, 0, 5, 1).reshape(count, 3, height, width)


class PixelEncryption:
    """Pixel-based encryption [17], [18].

    The key has a bit for each channel of each pixel: where it is set, p becomes ``p XOR 255 = 255 - p`` (the
    negative-positive transform). With ``shuffle`` it also has one of the six orders of the channels for each pixel,
    which follows the transform.

    Args:
        config: how keys are handled, and whether channels are shuffled.
        seed: all keys follow from it.
    """

    def __init__(self, config: PixelConfig, seed: int) -> None:
        self._config = config
        self._seed = seed

    def protect(self, images: Tensor, numbers: Tensor) -> Tensor:
        """Encrypt ``images``.

        Args:
            images: uint8 ``(N, 3, H, W)``.
            numbers: int64 ``(N,)``, which images they are. With a key for each image, the same number always gets the
                same key, whatever it is encrypted with; with one key they are of no effect.

        Returns:
            uint8 ``(N, 3, H, W)``.

        Raises:
            ValueError: there is a key for each image, but not a number for each.
        """
        encrypted = []
        for chunk, (mask, orders) in self._chunks(images, numbers):
            flipped = chunk ^ mask
            encrypted.append(flipped if orders is None else _reorder(flipped, orders))
        return torch.cat(encrypted)

    def restore(self, images: Tensor, numbers: Tensor) -> Tensor:
        """Decrypt ``images``, the inverse of :meth:`protect`, with the same shapes and errors."""
        decrypted = []
        for chunk, (mask, orders) in self._chunks(images, numbers):
            flipped = chunk if orders is None else _reorder(chunk, orders.argsort(dim=1))
            decrypted.append(flipped ^ mask)
        return torch.cat(decrypted)

    def key_bits(self, height: int, width: int) -> float:
        """Return the size of the key space of one image in bits: 3 H W, and log2(6) H W more with ``shuffle``."""
        return height * width * (3 + (math.log2(len(_ORDERS)) if self._config.shuffle else 0))

    def _chunks(self, images: Tensor, numbers: Tensor) -> Iterator[tuple[Tensor, _Key]]:
        """Yield images and the key of each of them, or a single key that serves them all."""
        if self._config.key == "one":
            key = self._key(images.shape[-2:], "key")
            yield from ((chunk, key) for chunk in torch.split(images, _CHUNK))
            return
        if numbers.shape != images.shape[:1]:
            raise ValueError(
                f"numbers are {tuple(numbers.shape)}, but there are {len(images)} images to give a key each"
            )
        for chunk, which in zip(torch.split(images, _CHUNK), torch.split(numbers, _CHUNK), strict=True):
            masks, orders = zip(
                *(self._key(images.shape[-2:], "key", number) for number in which.tolist()), strict=True
            )
            yield chunk, (torch.cat(masks), torch.cat(orders) if self._config.shuffle else None)

    def _key(self, size: torch.Size, *scope: str | int) -> _Key:
        stream = generator(self._seed, self._config.kind, *scope)
        mask = torch.randint(2, (1, 3, *size), generator=stream, dtype=torch.uint8) * 255
        if not self._config.shuffle:
            return mask, None
        return mask, _ORDERS[torch.randint(len(_ORDERS), (1, *size), generator=stream)].permute(0, 3, 1, 2)


def _reorder(images: Tensor, orders: Tensor) -> Tensor:
    return images.gather(1, orders.expand_as(images))
