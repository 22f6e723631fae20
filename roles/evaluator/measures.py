"""How near an estimate comes to the plain image: PSNR, SSIM and LPIPS, one value an image.

Images are ``(N, 3, H, W)``, uint8 or float32 in [0, 1]; an estimate and its plain image may differ in dtype, and a
``ValueError`` says so where they differ in shape.
"""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from roles.common.images import to_unit

PSNR_CAP = 100.0
"""PSNR in dB of identical images, whose true value is infinite: so that means and tables stay finite."""

_BATCH = 500
_RADIUS, _SIGMA = 5, 1.5
_C1, _C2 = 0.01**2, 0.03**2
_ALEXNET_SIDE = 31
"""Smallest side in pixels that AlexNet's second pooling leaves anything of."""


def psnr(estimate: Tensor, plain: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio of each image in dB, float32 ``(N,)`` (Section IV-B, Fig. 6 and 7).

    10 log10(1 / MSE) for values in [0, 1], with the mean over channels and pixels of one image: from 0, black against
    white, to ``PSNR_CAP``, which no two different 8-bit images smaller than 226x226 reach.

    >>> black = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    >>> [round(psnr(black + value, black).item(), 2) for value in (0, 51, 255)]
    [100.0, 13.98, 0.0]
    """

    def measure(a: Tensor, b: Tensor) -> Tensor:
        return (a - b).square().mean(dim=(1, 2, 3)).reciprocal().log10().mul(10).clamp(max=PSNR_CAP)

    return _batched(measure, estimate, plain)


def ssim(estimate: Tensor, plain: Tensor) -> Tensor:
    """Return the structural similarity of each image, float32 ``(N,)`` in [-1, 1]; 1 for identical images.

    The mean over channels and pixels of
    ``(2 m_x m_y + c1) (2 s_xy + c2) / ((m_x^2 + m_y^2 + c1) (s_x^2 + s_y^2 + c2))``, with local means m and
    (co)variances s under a Gaussian window (11 pixels, sigma 1.5), c1 = 0.01^2 and c2 = 0.03^2 for values in [0, 1].
    Borders are reflected, where the source leaves them out: at 32x32 pixels they are half the image. Gradients pass
    through it.

    Source: Wang et al., 2004.

    >>> black = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    >>> [round(ssim(black + value, black).item(), 4) for value in (0, 255)]
    [1.0, 0.0001]
    """
    return _batched(_similarity, estimate, plain)


class Lpips:
    """Learned perceptual image patch similarity of each image, with AlexNet, of images with sides of ``side`` pixels.

    The distance of unit-length features of five layers, weighted by channel, averaged over positions and summed over
    layers; 0 for identical images, and larger means less alike to the eye. The channel weights come with torchmetrics,
    AlexNet's with torchvision, which downloads them once.

    Source: Zhang et al., 2018.

    Raises:
        ValueError: the images are too small for AlexNet, or its weights cannot be had.
    """

    def __init__(self, side: int) -> None:
        if side < _ALEXNET_SIDE:
            raise ValueError(f"LPIPS needs images of at least {_ALEXNET_SIDE}x{_ALEXNET_SIDE}, these are {side}x{side}")
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        try:
            self._net = LearnedPerceptualImagePatchSimilarity(net_type="alex").net
        except (OSError, RuntimeError) as error:
            where = f"not in {torch.hub.get_dir()}, no download ({str(error).splitlines()[0]})"
            raise ValueError(f"LPIPS needs torchvision's AlexNet weights: {where}") from error

    def __call__(self, estimate: Tensor, plain: Tensor) -> Tensor:
        """Return the distances, float32 ``(N,)``, at least 0."""
        with torch.no_grad():
            return _batched(lambda a, b: self._net(a, b, normalize=True).flatten(), estimate, plain)


def _similarity(x: Tensor, y: Tensor) -> Tensor:
    down, across = (_local_mean_matrix(side, x.device, x.dtype) for side in x.shape[2:])
    x, y = x - 0.5, y - 0.5
    return _similarity_map(*(_product(down, images, across) for images in (x, y, x * x, y * y, x * y))).mean((1, 2, 3))


def _similarity_map(m_x: Tensor, m_y: Tensor, m_xx: Tensor, m_yy: Tensor, m_xy: Tensor) -> Tensor:
    """Return the SSIM at each pixel, from the local means of x, y, x^2, y^2 and x y, where 0 is mid-grey.

    Variances are small differences of these: about mid-grey, less is lost to rounding than about black.
    """
    variance_x = torch.addcmul(m_xx, m_x, m_x, value=-1).clamp_(min=0)
    variance_y = torch.addcmul(m_yy, m_y, m_y, value=-1).clamp_(min=0)
    covariance = torch.addcmul(m_xy, m_x, m_y, value=-1)
    m_x, m_y = m_x + 0.5, m_y + 0.5
    above = (m_x * (2 * m_y)).add_(_C1).mul_(covariance.mul_(2).add_(_C2))
    below = torch.addcmul(m_y.square() + _C1, m_x, m_x).mul_(variance_x + (variance_y + _C2))
    return above.div_(below)


def _product(left: Tensor, images: Tensor, right: Tensor) -> Tensor:
    """Return ``left @ image @ right.T`` of each image ``(..., H, W)``."""
    return torch.einsum("ai,...ij,bj->...ab", left, images, right)


@cache
def _local_mean_matrix(side: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return what a column of ``side`` pixels is multiplied by for its means under a Gaussian, borders reflected."""
    # Made once: what is copied from the host cannot be recorded (graphs.py).
    distances = torch.arange(-_RADIUS, _RADIUS + 1, dtype=torch.float64)
    weights = torch.exp(-(distances / _SIGMA).square() / 2)
    reflected = F.pad(torch.eye(side, dtype=torch.float64)[None], (_RADIUS, _RADIUS), mode="reflect")[0]
    return (reflected.unfold(1, len(weights), 1) @ (weights / weights.sum())).T.to(device, dtype)


def _batched(measure: Callable[[Tensor, Tensor], Tensor], estimate: Tensor, plain: Tensor) -> Tensor:
    if estimate.shape != plain.shape:
        raise ValueError(f"estimates are {tuple(estimate.shape)}, but the plain images {tuple(plain.shape)}")
    pairs = zip(torch.split(estimate, _BATCH), torch.split(plain, _BATCH), strict=True)
    return torch.cat([measure(*map(_as_unit, pair)) for pair in pairs])


def _as_unit(images: Tensor) -> Tensor:
    return to_unit(images) if images.dtype == torch.uint8 else images
