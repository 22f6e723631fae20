"""Bitmaps and the unit interval: the two forms an image takes here."""

from functools import cache

import torch
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def to_unit(images: Tensor) -> Tensor:
    """Turn uint8 bitmaps into float32 in [0, 1]; shape unchanged."""
    return images.to(torch.float32).div_(255)


def to_bitmap(images: Tensor) -> Tensor:
    """Round floats in [0, 1] to uint8 bitmaps, as an image file would store them; shape unchanged.

    >>> to_bitmap(torch.tensor([0.0, 0.5, 1.0])).tolist()
    [0, 128, 255]
    """
    return images.clamp(0, 1).mul(255).round().to(torch.uint8)


def normalise(images: Tensor) -> Tensor:
    """Subtract ImageNet's mean from ``(N, 3, H, W)`` in [0, 1] and divide by its deviation, for psi and for phi."""
    mean, deviation = _moments(images.device, images.dtype)
    return (images - mean) / deviation


@cache
def _moments(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    # Made once: what is copied from the host cannot be recorded (graphs.py).
    moments = torch.tensor([IMAGENET_MEAN, IMAGENET_STD], device=device, dtype=dtype)
    return moments[0].view(1, 3, 1, 1), moments[1].view(1, 3, 1, 1)


def all_finite(values: Tensor) -> bool:
    """Return whether no value is NaN or infinite, in one pass and without a mask as large as ``values``.

    >>> all_finite(torch.tensor([0.0, 1.0])), all_finite(torch.tensor([0.0, float("nan"), 1.0]))
    (True, False)
    """
    return bool(torch.isfinite(torch.stack(values.detach().aminmax())).all())
