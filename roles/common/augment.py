"""Augmentation of whole batches of bitmaps (Section IV-A: random crop and horizontal flip)."""

import torch
from torch import Tensor
from torch.nn import functional as F


def random_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each of ``(N, C, H, W)`` left to right with probability 1/2; ``N`` numbers are drawn, on the CPU."""
    flipped = torch.rand(images.shape[0], generator=generator) < 0.5
    return torch.where(flipped.to(images.device).view(-1, 1, 1, 1), images.flip(3), images)


def random_crop(images: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    """Do as :func:`crop` with random shifts; ``2 N`` numbers are drawn, on the CPU, and none without padding."""
    if padding == 0:
        return images
    return crop(images, padding, torch.randint(2 * padding + 1, (2, len(images)), generator=generator))


def crop(images: Tensor, padding: int, shifts: Tensor) -> Tensor:
    """Cut a window of the original size out of each of ``(N, C, H, W)``, padded with black.

    Args:
        padding: black pixels added on every side.
        shifts: the first row and column of each window, int64 ``(2, N)``, from 0 to ``2 padding``.
    """
    count, _, height, width = images.shape
    padded = F.pad(images, (padding, padding, padding, padding))
    shifts = shifts.to(images.device)
    rows = shifts[0].view(-1, 1) + torch.arange(height, device=images.device)
    columns = shifts[1].view(-1, 1) + torch.arange(width, device=images.device)
    which = torch.arange(count, device=images.device).view(-1, 1, 1)
    # Indexing with the channel axis in the middle puts it last: back to (N, C, H, W).
    return padded[which, :, rows.unsqueeze(2), columns.unsqueeze(1)].permute(0, 3, 1, 2).contiguous()


def augment(images: Tensor, padding: int, generator: torch.Generator, *, flip: bool) -> Tensor:
    """Crop at random, then mirror at random where ``flip``: what the paper trains classifiers and h_theta with."""
    cropped = random_crop(images, padding, generator)
    return random_flip(cropped, generator) if flip else cropped
