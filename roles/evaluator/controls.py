"""Weak protections: an attack that fails on them says nothing about a strong one (positive controls)."""

import math

import torch
from torch import Tensor

from roles.common.config.data import Split
from roles.common.protection import Protect

BLUR = "control-blur"
"""What files, tables and messages call plain images blurred, where others have a user's name."""
_CHUNK = 1000


def blur(images: Tensor, sigma: float) -> Tensor:
    """Blur uint8 ``(N, 3, H, W)`` by a Gaussian window of ``sigma`` > 0 pixels, which reaches three sigma to each side.

    Borders are reflected.

    Raises:
        ValueError: the window reaches further than the image is wide.
    """
    # Imported here: it takes seconds, and only a process that runs the control needs it.
    from torchvision.transforms.v2.functional import gaussian_blur

    reach = math.ceil(3 * sigma)
    height, width = images.shape[-2:]
    if reach >= min(height, width):
        raise ValueError(f"a blur of sigma {sigma} reaches {reach} pixels, too far for images of {height}x{width}")
    size = 2 * reach + 1
    return torch.cat([gaussian_blur(chunk, [size, size], [sigma, sigma]) for chunk in torch.split(images, _CHUNK)])


def blurred(sigma: float) -> Protect:
    """Return :func:`blur` by ``sigma`` in the form of a protection."""

    def protect(images: Tensor, split: Split, positions: Tensor) -> Tensor:
        return blur(images, sigma)

    return protect
