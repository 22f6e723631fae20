"""Attacks on encryption that train no network. A new one is a record in :data:`CIPHER_ATTACKS`."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from roles.common.config.user import BlockConfig, PixelConfig, Protection, TanakaConfig
from roles.common.encryption import CHANNEL_ORDERS, block_bytes, block_halves, joined_bytes, joined_halves
from roles.common.protection import Protect
from roles.evaluator.attacker import Attacker

_KNOWN_PAIRS = 10


def fr_attack(protected: Tensor, *, shuffle: bool) -> Tensor:
    """Estimate plain images from images under pixel-based encryption [17], [18], and from nothing else (FR-Attack).

    An encrypted byte is p or 255 - p, so ``min(v, 255 - v)`` of it is min(p, 255 - p), whatever the key. With shuffled
    channels, each pixel then takes the order of its three values with the least sum of absolute differences to the
    pixel above it, in the first row to the one on the left; the first pixel stays as it is.

    The attack as published tries the eight ways to flip a pixel's channels with each of its six orders. This one need
    not: of v and 255 - v, the nearer to a value is always the one on the same side of 127.5, so every pixel would take
    the side of the first. The estimate knows nothing of that side, and is the darker of the two.

    Args:
        protected: uint8 ``(N, 3, H, W)``.
        shuffle: whether the encryption shuffles channels: known to an attacker, as all but the key is.

    Returns:
        uint8 ``(N, 3, H, W)``, 0 to 127.

    Source: Chang and Case, Attacks on Image Encryption Schemes for Privacy-Preserving Deep Neural Networks, 2020
    (arXiv:2004.13263); named FR-Attack by Sirichotedumrong and Kiya, 2020 (arXiv:2010.06198).

    >>> fr_attack(torch.tensor([10, 245, 127, 128], dtype=torch.uint8).expand(1, 3, 1, 4), shuffle=False)[0, 0].tolist()
    [[10, 10, 127, 127]]
    """
    folded = torch.minimum(protected, 255 - protected)
    if not shuffle:
        return folded
    # Signed, since differences of uint8 wrap around.
    estimate = folded.to(torch.int16)
    for column in range(1, estimate.shape[3]):
        estimate[..., 0, column] = _nearest_order(estimate[..., 0, column], estimate[..., 0, column - 1])
    for row in range(1, estimate.shape[2]):
        estimate[..., row, :] = _nearest_order(estimate[..., row, :], estimate[..., row - 1, :])
    return estimate.to(torch.uint8)


def _nearest_order(pixels: Tensor, before: Tensor) -> Tensor:
    """Order the channels of ``pixels`` as is nearest to ``before``; int16 ``(N, 3)`` or ``(N, 3, W)`` both."""
    candidates = pixels[:, CHANNEL_ORDERS]  # (N, 6, 3) or (N, 6, 3, W)
    best = (candidates - before.unsqueeze(1)).abs().sum(dim=2, keepdim=True).argmin(dim=1, keepdim=True)
    return candidates.take_along_dim(best, dim=1).squeeze(1)


def pixel_key_attack(protected: Tensor, known_protected: Tensor, known_plain: Tensor, *, shuffle: bool) -> Tensor:
    """Decrypt images under pixel-based encryption [17], [18] with one key, from pairs of images under the same key.

    Whether a byte was flipped is seen in one pair, since p is never 255 - p. With shuffled channels, each pixel takes
    the order in which the pairs agree best; a few pairs leave no other.

    Args:
        protected: uint8 ``(N, 3, H, W)``, as is what is returned.
        known_protected: uint8 ``(K, 3, H, W)``, K at least 1.
        known_plain: uint8 ``(K, 3, H, W)``, the plain image of each.
        shuffle: whether the encryption shuffles channels.

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
    """Decrypt images under Tanaka's learnable encryption [16], from pairs as of :func:`pixel_key_attack`.

    Of the 96 values of 4 bits of a block, each encrypted one is a plain one, as it is or as 15 less it, the same in all
    blocks: it is found by comparing all with all over the blocks of the pairs.

    Source: ours; what the scheme's definition implies.

    Raises:
        ValueError: H or W is not divisible by 4.
    """
    source, mask = _shuffled_and_flipped(block_halves(known_protected), block_halves(known_plain), 15)
    halves = block_halves(protected)
    restored = torch.empty_like(halves)
    restored[source] = halves ^ mask
    return joined_halves(restored, protected.shape)


def block_key_attack(protected: Tensor, known_protected: Tensor, known_plain: Tensor) -> Tensor:
    """Decrypt images under block-wise encryption (arXiv:2308.07612), from pairs as of :func:`pixel_key_attack`.

    What a block holds is the same before and after, up to order and to p or 255 - p: the sorted ``min(p, 255 - p)`` of
    its values tell over the pairs which encrypted block was which plain one. Then all values are compared with all, as
    in :func:`tanaka_key_attack`. Blocks that no pair tells apart by what they hold, such as dark corners, are told
    apart by the order of values, once that is known: both are found once more.

    Source: ours; what the scheme's definition implies.

    Raises:
        ValueError: H or W is not divisible by 4.
    """
    encrypted, plain, values = block_bytes(known_protected), block_bytes(known_plain), block_bytes(protected)
    places = _nearest_places(_folded_and_sorted(encrypted), _folded_and_sorted(plain))
    for _ in range(2):
        source, mask = _shuffled_and_flipped(encrypted.flatten(1), plain[:, :, places].flatten(1), 255)
        ordered = torch.empty_like(encrypted)
        ordered[source] = encrypted ^ mask.unsqueeze(1)
        places = _nearest_places(ordered, plain)
    restored = torch.empty_like(values)
    restored[source.unsqueeze(1), :, places] = (values ^ mask.unsqueeze(1)).transpose(1, 2)
    return joined_bytes(restored, protected.shape)


def _folded_and_sorted(values: Tensor) -> Tensor:
    return torch.minimum(values, 255 - values).sort(dim=0).values


def _nearest_places(encrypted: Tensor, plain: Tensor) -> Tensor:
    """Return which plain block is nearest to each encrypted one, every one once, int64 ``(blocks,)``.

    Args:
        encrypted: as of :func:`block_bytes`, as is ``plain``.
    """
    one, other = (values.flatten(0, 1).T.to(torch.float32) for values in (encrypted, plain))
    _, columns = linear_sum_assignment(torch.cdist(one, other, p=1).numpy())
    return torch.from_numpy(columns)


def _shuffled_and_flipped(encrypted: Tensor, plain: Tensor, negative: int) -> tuple[Tensor, Tensor]:
    """Return which plain value each encrypted one is, int64 ``(V,)``, and what it is XORed with, uint8 ``(V, 1)``.

    Args:
        encrypted: V values of each of B blocks, uint8 ``(V, B)``, as is ``plain``.
        negative: what a value is XORed with if it is flipped.
    """
    agree = torch.stack([(encrypted.unsqueeze(1) ^ value == plain).sum(dim=2) for value in (0, negative)])
    most, flipped = agree.max(dim=0)
    _, columns = linear_sum_assignment(most.numpy(), maximize=True)
    source = torch.from_numpy(columns)
    return source, negative * flipped.gather(1, source.unsqueeze(1)).to(torch.uint8)


@dataclass(frozen=True)
class Attack:
    """An attack that trains no network."""

    name: str
    """What results call it; also the prefix of its columns in tables."""
    title: str
    """What figures and headings call it."""
    knows: str
    """What it has been given."""
    applies_to: Callable[[Protection | None], bool]
    """Whether it says anything about a protection; None is none of a user's."""
    estimate: Callable[[Tensor, Protection | None, Protect, Attacker], Tensor]
    """From protected images, uint8 ``(N, 3, H, W)``, their protection, the same at work, and who attacks, to estimates
    of the same shape and type."""


def _folded(protected: Tensor, protection: Protection | None, protect: Protect, attacker: Attacker) -> Tensor:
    assert isinstance(protection, PixelConfig)
    return fr_attack(protected, shuffle=protection.shuffle)


def _shares_key(protection: Protection | None) -> bool:
    one_key = isinstance(protection, PixelConfig) and protection.key == "one"
    return one_key or isinstance(protection, TanakaConfig | BlockConfig)


def _decrypted(protected: Tensor, protection: Protection | None, protect: Protect, attacker: Attacker) -> Tensor:
    plain, ids = (known[:_KNOWN_PAIRS] for known in attacker.known)
    pairs = protect(plain, "train", ids), plain
    if isinstance(protection, PixelConfig):
        return pixel_key_attack(protected, *pairs, shuffle=protection.shuffle)
    attack = block_key_attack if isinstance(protection, BlockConfig) else tanaka_key_attack
    return attack(protected, *pairs)


CIPHER_ATTACKS = (
    Attack(
        "fr_attack",
        "FR-Attack",
        "protected images alone",
        lambda protection: isinstance(protection, PixelConfig),
        _folded,
    ),
    Attack("key_attack", "known pairs", "ten pairs under the key that all images share", _shares_key, _decrypted),
)
