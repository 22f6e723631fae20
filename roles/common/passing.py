"""How much of a plain image is left in the protected one, wherever it has been moved to."""

import torch
from torch import Tensor

_LEAST_SHARE = 1e-6
"""Of an image's variance: a window that has less of it is flat but for rounding."""


def passes_through(protected: Tensor, plain: Tensor) -> Tensor:
    """Return how much of plain images is left in protected ones, as a correlation that forgives a small move.

    L_feat (Eq. 4), PSNR and SSIM compare pixel by pixel: by each of them an image that is moved by one pixel, or its
    negative, is far from itself, and a person sees all of it. Nothing here waits for a GPU.

    Args:
        protected: float32 in [0, 1] or uint8, ``(N, 3, H, W)`` of at least 8x8 pixels, on any device.
        plain: like ``protected``.

    Returns:
        a tensor without dimensions, in [0, 1]: the largest value, over moves by up to 3 pixels each way (an eighth of
        smaller sides), of the median over images of the absolute value of the Pearson correlation of grey values (means
        over channels). For all moves the same pixels of the plain images count, those without a margin as wide as
        images may be moved. An image of one colour correlates with nothing: 0.
    """
    reach = farthest_move(plain)
    height, width = (side - 2 * reach for side in plain.shape[2:])
    x = _centred(protected.mean(1, dtype=torch.float32))
    y = _centred(plain.mean(1, dtype=torch.float32)[:, reach : reach + height, reach : reach + width])

    def window_sums(values: Tensor) -> Tensor:
        return values.unfold(1, height, 1).sum(-1).unfold(2, width, 1).sum(-1)

    ways = 2 * reach + 1
    # A cross-correlation, at places where nothing wraps around: the sums of products of y and each window of x.
    spectrum = torch.fft.rfft2(x) * torch.fft.rfft2(y, s=x.shape[1:]).conj()
    products = torch.fft.irfft2(spectrum, s=x.shape[1:])[:, :ways, :ways]
    squares = window_sums(x.square()) - window_sums(x).square() / (height * width)
    least = _LEAST_SHARE * x.square().sum((1, 2), keepdim=True)
    scale = squares.maximum(least) * y.square().sum((1, 2), keepdim=True)
    correlations = products / scale.sqrt().clamp_min(torch.finfo(scale.dtype).tiny)
    alike: Tensor = correlations.abs().flatten(1).median(0).values.max().clamp(max=1)
    return alike


def farthest_move(images: Tensor) -> int:
    """Return by how many pixels ``(N, C, H, W)`` may have been moved to be looked for: 3, or an eighth of a side."""
    return min(3, min(images.shape[2:]) // 8)


def _centred(grey: Tensor) -> Tensor:
    # The mean of many equal values may be rounded, that of zeros is not: an image of one colour becomes zeros.
    above_first = grey - grey[:, :1, :1]
    return above_first - above_first.mean((1, 2), keepdim=True)
