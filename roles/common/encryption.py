"""The conventional protections: a key encrypts images, and the provider trains a classifier on encrypted ones."""

from collections.abc import Iterator
from itertools import permutations
from typing import NamedTuple

import torch
from torch import Tensor

from roles.common.config.user import BlockConfig, PixelConfig, TanakaConfig
from roles.common.seeds import generator

CHANNEL_ORDERS = torch.tensor(list(permutations(range(3))))
"""The six orders of three channels, int64 ``(6, 3)``."""
BLOCK = 4
"""The side of the blocks that are encrypted, and of a ViT's patches, in pixels."""
_BYTES = 3 * BLOCK * BLOCK
_HALVES = 2 * _BYTES
_CHUNK = 500


def block_bytes(images: Tensor) -> Tensor:
    """Return the blocks of 4x4 pixels of uint8 ``(N, 3, H, W)`` as bytes (row, column, channel), ``(48, N, blocks)``.

    Raises:
        ValueError: H or W is not divisible by 4.
    """
    count, _, height, width = images.shape
    if height % BLOCK or width % BLOCK:
        raise ValueError(f"images are {height}x{width}: encryption by blocks needs sides divisible by {BLOCK}")
    blocks = images.reshape(count, 3, height // BLOCK, BLOCK, width // BLOCK, BLOCK)
    return blocks.permute(3, 5, 1, 0, 2, 4).reshape(_BYTES, count, -1)


def joined_bytes(values: Tensor, shape: torch.Size) -> Tensor:
    """Return the images of ``shape`` that :func:`block_bytes` has taken apart."""
    count, _, height, width = shape
    blocks = values.reshape(BLOCK, BLOCK, 3, count, height // BLOCK, width // BLOCK)
    return blocks.permute(3, 2, 4, 0, 5, 1).reshape(shape)


def block_halves(images: Tensor) -> Tensor:
    """Return :func:`block_bytes` as values of 4 bits, ``(96, N * blocks)``: the low halves of all bytes come first.

    Raises:
        ValueError: H or W is not divisible by 4.
    """
    values = block_bytes(images).flatten(1)
    return torch.cat([values & 15, values >> 4])


def joined_halves(halves: Tensor, shape: torch.Size) -> Tensor:
    """Return the images of ``shape`` that :func:`block_halves` has taken apart."""
    low, high = halves.chunk(2)
    return joined_bytes(low | high << 4, shape)


class LearnableEncryption:
    """Tanaka's learnable image encryption [16].

    With a mask m and a permutation s as the key, value i of :func:`block_halves` becomes ``w_i = v_i`` or, where m_i is
    set, ``15 - v_i``; then ``u_i = w_s(i)``; then ``15 - u_i`` where m_i is set. The key follows from ``seed``.
    """

    def __init__(self, config: TanakaConfig, seed: int) -> None:
        stream = generator(seed, config.kind, "key")
        self._order = torch.randperm(_HALVES, generator=stream)
        flipped = torch.randperm(_HALVES, generator=stream)[: _HALVES // 2]
        # 15 - v is v XOR 15 for 4 bits.
        self._mask = torch.zeros(_HALVES, dtype=torch.uint8).index_fill_(0, flipped, 15)

    def protect(self, images: Tensor, numbers: Tensor) -> Tensor:
        """Encrypt uint8 ``(N, 3, H, W)``; ``numbers`` are of no effect here, where all images share a key.

        Raises:
            ValueError: H or W is not divisible by 4.
        """
        return self._apply(images, self._order)

    def restore(self, images: Tensor, numbers: Tensor) -> Tensor:
        """Decrypt ``images``, the inverse of :meth:`protect`, with the same shapes and errors."""
        return self._apply(images, self._order.argsort())

    def _apply(self, images: Tensor, order: Tensor) -> Tensor:
        mask = self._mask.unsqueeze(1)
        chunks = torch.split(images, _CHUNK)
        return torch.cat([joined_halves((block_halves(c) ^ mask)[order] ^ mask, c.shape) for c in chunks])


class BlockEncryption:
    """Block-wise encryption for vision transformers (Kiya, Iijima and Nagamori, arXiv:2308.07612), in blocks of 4x4.

    In this order: the blocks of an image change places (block scrambling), the 48 bytes of each change theirs (pixel
    shuffling), and half of these, drawn one by one, become ``p XOR 255 = 255 - p`` (bit flipping). All blocks are
    shuffled and flipped alike, and all images share the key, which follows from ``seed``.
    """

    def __init__(self, config: BlockConfig, seed: int) -> None:
        self._config, self._seed = config, seed
        stream = generator(seed, config.kind, "key")
        self._order = torch.randperm(_BYTES, generator=stream)
        self._mask = torch.randint(2, (_BYTES, 1, 1), generator=stream, dtype=torch.uint8) * 255

    def protect(self, images: Tensor, numbers: Tensor) -> Tensor:
        """Encrypt uint8 ``(N, 3, H, W)``; ``numbers`` are of no effect here, where all images share a key.

        Raises:
            ValueError: H or W is not divisible by 4.
        """
        values = block_bytes(images)
        return joined_bytes(values[:, :, self._places(values)][self._order] ^ self._mask, images.shape)

    def restore(self, images: Tensor, numbers: Tensor) -> Tensor:
        """Decrypt ``images``, the inverse of :meth:`protect`, with the same shapes and errors."""
        values = (block_bytes(images) ^ self._mask)[self._order.argsort()]
        return joined_bytes(values[:, :, self._places(values).argsort()], images.shape)

    def _places(self, values: Tensor) -> Tensor:
        """Return which block comes to each place, int64 ``(blocks,)``."""
        blocks = values.shape[2]
        return torch.randperm(blocks, generator=generator(self._seed, self._config.kind, "places", blocks))


class _PixelKey(NamedTuple):
    """The keys of N images, or one of all: what is flipped, uint8 0 or 255, and orders of channels, int64, if any."""

    mask: Tensor
    orders: Tensor | None

    def encrypt(self, images: Tensor) -> Tensor:
        flipped = images ^ self.mask
        return flipped if self.orders is None else flipped.gather(1, self.orders.expand_as(flipped))

    def decrypt(self, images: Tensor) -> Tensor:
        if self.orders is not None:
            images = images.gather(1, self.orders.argsort(dim=1).expand_as(images))
        return images ^ self.mask


class PixelEncryption:
    """Pixel-based encryption [17], [18]; all keys follow from ``seed``.

    A key has a bit for each channel of each pixel: where it is set, p becomes ``p XOR 255 = 255 - p``. With ``shuffle``
    it also has one of the six orders of the channels for each pixel, which follows.
    """

    def __init__(self, config: PixelConfig, seed: int) -> None:
        self._config, self._seed = config, seed

    def protect(self, images: Tensor, numbers: Tensor) -> Tensor:
        """Encrypt uint8 ``(N, 3, H, W)``.

        Args:
            numbers: which images they are, int64 ``(N,)``: where each has a key, a number always gets the same one.

        Raises:
            ValueError: there is a key for each image, but not a number for each.
        """
        return torch.cat([key.encrypt(chunk) for chunk, key in self._chunks(images, numbers)])

    def restore(self, images: Tensor, numbers: Tensor) -> Tensor:
        """Decrypt ``images``, the inverse of :meth:`protect`, with the same shapes and errors."""
        return torch.cat([key.decrypt(chunk) for chunk, key in self._chunks(images, numbers)])

    def _chunks(self, images: Tensor, numbers: Tensor) -> Iterator[tuple[Tensor, _PixelKey]]:
        size = images.shape[-2:]
        if self._config.key == "one":
            key = self._key(size, "key")
            yield from ((chunk, key) for chunk in torch.split(images, _CHUNK))
            return
        if numbers.shape != images.shape[:1]:
            shape = tuple(numbers.shape)
            raise ValueError(f"numbers are {shape}, but there are {len(images)} images to give a key each")
        for chunk, which in zip(torch.split(images, _CHUNK), torch.split(numbers, _CHUNK), strict=True):
            keys = [self._key(size, "key", number) for number in which.tolist()]
            orders = [key.orders for key in keys if key.orders is not None]
            yield chunk, _PixelKey(torch.cat([key.mask for key in keys]), torch.cat(orders) if orders else None)

    def _key(self, size: torch.Size, *scope: str | int) -> _PixelKey:
        stream = generator(self._seed, self._config.kind, *scope)
        mask = torch.randint(2, (1, 3, *size), generator=stream, dtype=torch.uint8) * 255
        if not self._config.shuffle:
            return _PixelKey(mask, None)
        orders = CHANNEL_ORDERS[torch.randint(len(CHANNEL_ORDERS), (1, *size), generator=stream)]
        return _PixelKey(mask, orders.permute(0, 3, 1, 2))


Encryption = LearnableEncryption | BlockEncryption | PixelEncryption
