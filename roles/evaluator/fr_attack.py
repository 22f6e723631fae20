"""The feature-reconstruction attack (FR-Attack) on pixel-based encryption, from encrypted images alone."""

from itertools import permutations

import torch
from torch import Tensor

CHANNEL_ORDERS = torch.tensor(list(permutations(range(3))))


def fr_attack(protected: Tensor, *, shuffle: bool) -> Tensor:
    """Estimate plain images from images under pixel-based encryption [17], [18].

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
