"""Estimates that need no protected image: what a reconstruction must beat to count."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

SEEN_SSIM = 0.5
"""From which on an image is like the plain one."""
_CHUNK = 1000


def mean_image(images: Tensor) -> Tensor:
    """Return the mean of uint8 ``(N, 3, H, W)``, N > 0, float32 in [0, 1]: the constant estimate with the lowest MSE.

    >>> mean_image(torch.tensor([0, 51], dtype=torch.uint8).view(2, 1, 1, 1)).item()
    0.10000000149011612
    """
    return class_means(images, torch.zeros(len(images), dtype=torch.int64), classes=1)[0]


def class_means(images: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Return the mean image of each class: what the class alone, which x_hat legitimately reveals, says of the image.

    Args:
        images: uint8 ``(N, 3, H, W)``.
        labels: int64 ``(N,)``, 0 to ``classes - 1``.
        classes: how many there are; one without an image gets the mean of all images.

    Returns:
        float32 ``(classes, 3, H, W)`` in [0, 1].

    Raises:
        ValueError: there is no image.

    >>> greys = torch.tensor([0, 102, 255], dtype=torch.uint8).view(3, 1, 1, 1)
    >>> [round(mean, 4) for mean in class_means(greys, torch.tensor([0, 0, 2]), classes=3).flatten().tolist()]
    [0.2, 0.4667, 1.0]
    """
    if len(images) == 0:
        raise ValueError("no image to take a mean of")
    # Integers in chunks: exact sums, without a second copy of the whole set.
    sums = torch.zeros(classes, *images.shape[1:], dtype=torch.int64)
    for chunk, chunk_labels in zip(torch.split(images, _CHUNK), torch.split(labels, _CHUNK), strict=True):
        sums.index_add_(0, chunk_labels, chunk.to(torch.int64))
    counts = torch.bincount(labels, minlength=classes).view(-1, 1, 1, 1)
    overall = sums.sum(dim=0) / len(images)
    return (torch.where(counts > 0, sums / counts.clamp(min=1), overall) / 255).to(torch.float32)


def enough(guess: Any) -> Any:
    """Return the SSIM from which on an image is given away, where a trivial guess has ``guess``; arrays as well.

    At least 0.5, and half of what the guess lacks: digits are so alike that the mean image of a class has 0.6.

    >>> float(enough(0.0)), float(enough(0.6))
    (0.5, 0.8)
    """
    return np.maximum(SEEN_SSIM, (1 + guess) / 2)


def given_away(similarity: Tensor, guesses: Iterable[Tensor]) -> Tensor:
    """Return which images are given away by what has this SSIM with them, bool ``(N,)``, image by image.

    Args:
        similarity: float32 ``(N,)``.
        guesses: the SSIM that each trivial guess has, like ``similarity``; one or more.
    """
    needed: Tensor = enough(torch.stack(list(guesses)).amax(0))
    return similarity >= needed
