"""How near an estimate comes to the plain image: PSNR, SSIM and LPIPS, one value an image.

Images are ``(N, 3, H, W)``, uint8 or float32 in [0, 1]; an estimate and its plain image may differ in dtype, and a
``ValueError`` says so where they differ in shape.
"""

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from roles.common.images import to_unit

PSNR_CAP = 100.0
"""PSNR in dB of identical images, whose true value is infinite: so that means and tables stay finite."""

_BATCH = 500
_MOST_MOVED, _MOST_IMAGES, _LEAST_GAIN = 3, 32, 0.05
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
    Borders are reflected, where the source leaves them out: at 32x32 pixels they are half the image.

    Source: Wang et al., 2004.

    >>> black = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    >>> [round(ssim(black + value, black).item(), 4) for value in (0, 255)]
    [1.0, 0.0001]
    """
    # Imported here: it takes seconds, and a node's process that does not measure should not wait for it.
    from torchmetrics.functional.image import structural_similarity_index_measure

    def measure(a: Tensor, b: Tensor) -> Tensor:
        scores = structural_similarity_index_measure(a, b, reduction="none", data_range=1.0)
        assert isinstance(scores, Tensor)  # a tuple only where the full image is asked for as well
        return scores

    return _batched(measure, estimate, plain)


def moved_ssim(protected: Tensor, plain: Tensor) -> tuple[float, int, int]:
    """Return how alike protected images are to plain ones once all are moved back the same way.

    L_feat (Eq. 4), PSNR and SSIM compare pixel by pixel: by each of them an image that is moved by one pixel is far
    from itself, and a person sees all of it.

    Args:
        protected: uint8 ``(N, 3, H, W)`` of at least 8x8 pixels; the first 32 are looked at.
        plain: like ``protected``.

    Returns:
        the median over images of the SSIM without a margin as wide as an image may be moved: 3 pixels, or an eighth of
        smaller sides; and how far the protected images lie down and to the right of the plain ones, in pixels: as
        suits best, or 0 and 0 where that gains less than 0.05 on the images as they are.
    """
    protected, plain = protected[:_MOST_IMAGES], plain[:_MOST_IMAGES]
    reach = min(_MOST_MOVED, min(plain.shape[2:]) // 8)
    height, width = (side - 2 * reach for side in plain.shape[2:])

    def window(images: Tensor, down: int, right: int) -> Tensor:
        return images[:, :, reach + down :, reach + right :][:, :, :height, :width]

    ways = list(itertools.product(range(-reach, reach + 1), repeat=2))
    windows = torch.cat([window(protected, down, right) for down, right in ways])
    alike = ssim(windows, window(plain, 0, 0).repeat(len(ways), 1, 1, 1)).view(len(ways), -1).median(1).values
    best, still = int(alike.argmax()), ways.index((0, 0))
    if alike[best] - alike[still] < _LEAST_GAIN:
        best = still
    down, right = ways[best]
    return alike[best].item(), down, right


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


def _batched(measure: Callable[[Tensor, Tensor], Tensor], estimate: Tensor, plain: Tensor) -> Tensor:
    if estimate.shape != plain.shape:
        raise ValueError(f"estimates are {tuple(estimate.shape)}, but the plain images {tuple(plain.shape)}")
    pairs = zip(torch.split(estimate, _BATCH), torch.split(plain, _BATCH), strict=True)
    return torch.cat([measure(*(to_unit(x) if x.dtype == torch.uint8 else x for x in pair)) for pair in pairs])
