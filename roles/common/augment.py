"""Augmentation of whole batches of bitmaps (Section IV-A: random crop and horizontal flip)."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Augmentation(NamedTuple):
    """What is drawn at random to augment ``N`` images, on the CPU."""

    shifts: Tensor
    """The first row and column of each crop's window, int64 ``(2, N)``, from 0 to twice the padding; else empty."""
    flipped: Tensor
    """Which images are mirrored left to right, bool ``(N,)``; empty where none may be."""

    @staticmethod
    def draw(count: int, padding: int, generator: torch.Generator, *, flip: bool) -> "Augmentation":
        """Draw for ``count`` images: ``2 N`` numbers, none without padding, then ``N``, none without ``flip``."""
        # What is not drawn is an empty tensor: a recorded step takes tensors (graphs.py).
        shifts = torch.randint(2 * padding + 1, (2, count if padding else 0), generator=generator)
        return Augmentation(shifts, draw_flips(count if flip else 0, generator))

    def of(self, images: Tensor, padding: int) -> Tensor:
        """Crop and mirror ``(N, C, H, W)``, on whichever device it is."""
        cropped = crop(images, padding, self.shifts) if padding else images
        return mirror(cropped, self.flipped) if len(self.flipped) else cropped


def draw_flips(count: int, generator: torch.Generator) -> Tensor:
    """Draw which of ``count`` images are mirrored, each with probability 1/2: bool ``(count,)``, on the CPU."""
    return torch.rand(count, generator=generator) < 0.5


def mirror(images: Tensor, flipped: Tensor) -> Tensor:
    """Mirror left to right those of ``(N, C, H, W)`` that are ``flipped``, bool ``(N,)``."""
    return where(flipped, images.flip(3), images)


def where(chosen: Tensor, images: Tensor, others: Tensor) -> Tensor:
    """Take ``images`` where they are ``chosen``, bool ``(N,)``, and ``others``, all ``(N, C, H, W)``, where not."""
    return torch.where(chosen.to(images.device).view(-1, 1, 1, 1), images, others)


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
    return Augmentation.draw(len(images), padding, generator, flip=flip).of(images, padding)
