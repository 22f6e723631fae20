"""Known-pair attacks on encryption under one key: algebra, where an inverse network would have to learn the key."""

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from roles.evaluator.fr_attack import CHANNEL_ORDERS

_BLOCK = 4


def pixel_key_attack(protected: Tensor, known_protected: Tensor, known_plain: Tensor, *, shuffle: bool) -> Tensor:
    """Decrypt images under pixel-based encryption [17], [18] with one key, from pairs of images under the same key.

    Whether a byte was flipped is seen in one pair, since p is never 255 - p. With shuffled channels, each pixel takes
    the order in which the pairs agree best; a few pairs leave no other.

    Args:
        protected: uint8 ``(N, 3, H, W)``.
        known_protected: uint8 ``(K, 3, H, W)``, K at least 1.
        known_plain: uint8 ``(K, 3, H, W)``, the plain image of each.
        shuffle: whether the encryption shuffles channels: known to an attacker, as all but the key is.

    Returns:
        uint8 ``(N, 3, H, W)``.

    Source: ours; what the schemes' definitions imply (Section IV-B compares with them).
    """
    encrypted, plain = known_protected.to(torch.int16), known_plain.to(torch.int16)
    # How far the pairs are from saying that channel j holds plain channel c, as it is or flipped: (2, 3 j, 3 c, H, W).
    apart = torch.stack(
        [(encrypted.unsqueeze(2) - value.unsqueeze(1)).abs().sum(dim=0) for value in (plain, 255 - plain)]
    )
    least, flipped = apart.min(dim=0)
    orders = CHANNEL_ORDERS if shuffle else CHANNEL_ORDERS[:1]
    totals = torch.stack([least[torch.arange(3), order].sum(dim=0) for order in orders])
    source = orders[totals.argmin(dim=0)].permute(2, 0, 1)  # the plain channel that each encrypted one holds, (3, H, W)
    mask = flipped.gather(1, source.unsqueeze(1)).squeeze(1).to(torch.uint8) * 255
    return torch.empty_like(protected).scatter_(1, source.expand(protected.shape), protected ^ mask)


def tanaka_key_attack(protected: Tensor, known_protected: Tensor, known_plain: Tensor) -> Tensor:
    """Decrypt images under Tanaka's learnable encryption [16], from pairs of images under the same key.

    Of the 96 values of 4 bits of a block, each encrypted one is a plain one, as it is or as 15 less it, the same in all
    blocks: it is found by comparing all with all over the blocks of the pairs.

    Args:
        protected: uint8 ``(N, 3, H, W)``.
        known_protected: uint8 ``(K, 3, H, W)``, K at least 1.
        known_plain: uint8 ``(K, 3, H, W)``, the plain image of each.

    Returns:
        uint8 ``(N, 3, H, W)``.

    Raises:
        ValueError: H or W is not divisible by 4.

    Source: ours; what the scheme's definition implies.
    """
    encrypted, plain = _halves(known_protected), _halves(known_plain)
    difference = encrypted.unsqueeze(1) ^ plain.unsqueeze(0)
    agree = torch.stack([(difference == value).sum(dim=2) for value in (0, 15)])
    most, flipped = agree.max(dim=0)
    _, columns = linear_sum_assignment(most.numpy(), maximize=True)
    source = torch.from_numpy(columns)
    mask = 15 * flipped.gather(1, source.unsqueeze(1)).to(torch.uint8)
    halves = _halves(protected)
    restored = torch.empty_like(halves)
    restored[source] = halves ^ mask
    return _joined(restored, protected.shape)


def _halves(images: Tensor) -> Tensor:
    """Return the low halves of the bytes of 4x4 blocks, then the high ones, as the scheme does: ``(96, blocks)``."""
    count, _, height, width = images.shape
    if height % _BLOCK or width % _BLOCK:
        raise ValueError(f"images are {height}x{width}: Tanaka's encryption needs sides divisible by {_BLOCK}")
    blocks = images.reshape(count, 3, height // _BLOCK, _BLOCK, width // _BLOCK, _BLOCK)
    values = blocks.permute(3, 5, 1, 0, 2, 4).flatten(3).flatten(0, 2)
    return torch.cat([values & 15, values >> 4])


def _joined(halves: Tensor, shape: torch.Size) -> Tensor:
    count, _, height, width = shape
    low, high = halves.chunk(2)
    blocks = (low | high << 4).reshape(_BLOCK, _BLOCK, 3, count, height // _BLOCK, width // _BLOCK)
    return blocks.permute(3, 2, 4, 0, 5, 1).reshape(shape)
