"""What a person makes out in protected images, whatever they were moved by and recoloured with."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from roles.common.images import to_unit
from roles.common.passing import farthest_move
from roles.evaluator.baselines import class_means
from roles.evaluator.measures import ssim
from roles.evaluator.results import Seen

_BATCH = 500
_LEAST_GAIN = 0.05
"""Of what sets plain images apart: what a move must explain of it beyond what images show where they are."""
_ROUNDING = 1e-5
"""Of the largest moment: channels that differ by less, a grey level of 256 or so, count as the same."""


def as_seen(protected: Tensor, plain: Tensor, labels: Tensor, unchanged: Tensor) -> Seen:
    """Return how much of plain images a person makes out in protected ones.

    L_feat (Eq. 4), PSNR and SSIM compare pixel by pixel and channel by channel: by each of them an image that is moved
    by a pixel, tinted or inverted is far from itself, and a person sees all of it. So all images are moved the same
    way, by up to 3 pixels (an eighth of smaller sides), and recoloured by one affine map of colours, 3 x 4 numbers. The
    way and the map are those by which, in the mean square, the details that set a protected image apart from the mean
    of its class come nearest to those that set the plain one apart from its own: the class is no leak, a classifier
    must be able to tell it, and whether an image is light at the top and dark below, or green, shows nobody what it is.
    So local means, over windows as wide as three eighths of a side, are no details. Images stay where they are unless a
    move explains 5% more.

    What differs from image to image, or bends colours as solarisation does, is not found.

    Args:
        protected: uint8 ``(N, 3, H, W)`` of at least 8x8 pixels, N at least 1.
        plain: like ``protected``.
        labels: int64 ``(N,)``; all 0 where classes are not known, and images are set apart from the mean of all.
            Nothing sets apart the only image of a class, and nothing of it is shown.
        unchanged: the SSIM of both as they are, float32 ``(N,)``.
    """
    reach = farthest_move(plain)
    classes = int(labels.max()) + 1
    means = [class_means(images, labels, classes) for images in (protected, plain)]

    def apart() -> Iterator[tuple[Tensor, Tensor]]:
        for own, x, y in zip(*(torch.split(each, _BATCH) for each in (labels, protected, plain)), strict=True):
            yield _details(to_unit(x) - means[0][own]), _middle(_details(to_unit(y) - means[1][own]), reach)

    errors, maps, total = _fitted(apart(), protected.shape[2:], reach)
    best, still = int(errors.argmin()), errors.numel() // 2
    if errors.flatten()[still] - errors.flatten()[best] <= _LEAST_GAIN * total:
        best = still
    down, right = divmod(best, 2 * reach + 1)
    colours = maps[down, right]
    height, width = (side - 2 * reach for side in protected.shape[2:])

    def moved(images: Tensor) -> Tensor:
        return images[:, :, down : down + height, right : right + width]

    shown, alike = list[Tensor](), list[Tensor]()
    for x, y in apart():
        left, all_of_it = (images.square().sum((1, 2, 3)) for images in (_recoloured(moved(x), colours) - y, y))
        shown.append(torch.where(all_of_it > 0, 1 - left / all_of_it, 0))
    # As bright as plain images: what is fitted is how they differ.
    counts = labels.bincount(minlength=classes).to(torch.float32) / len(labels)
    offset = [torch.einsum("k,kihw->ihw", counts, images).mean((1, 2)).view(3, 1, 1) for images in means]
    for x, y in zip(torch.split(protected, _BATCH), torch.split(plain, _BATCH), strict=True):
        x, y = (to_unit(x), to_unit(y)) if best == still else (moved(to_unit(x)), _middle(to_unit(y), reach))
        alike.append(ssim((_recoloured(x - offset[0], colours) + offset[1]).clamp_(0, 1), y))
    recoloured = torch.cat(alike)
    if best == still and unchanged.median() > recoloured.median():
        recoloured = unchanged
    return Seen(recoloured, torch.cat(shown).clamp(0, 1), down - reach, right - reach)


def _details(images: Tensor) -> Tensor:
    """Return images less their local means."""
    reach = max(1, 3 * min(images.shape[2:]) // 16)
    return images - F.avg_pool2d(images, 2 * reach + 1, stride=1, padding=reach, count_include_pad=False)


def _middle(images: Tensor, reach: int) -> Tensor:
    height, width = images.shape[2:]
    return images[:, :, reach : height - reach, reach : width - reach]


def _recoloured(images: Tensor, colours: Tensor) -> Tensor:
    return torch.einsum("nihw,ij->njhw", images, colours)


def _fitted(batches: Iterator[tuple[Tensor, Tensor]], sides: torch.Size, reach: int) -> tuple[Tensor, Tensor, float]:
    """Fit images by each window of others, in the least squares over all.

    Args:
        batches: of x, float32 ``(N, 3, *sides)``, and y, without a margin of ``reach`` pixels.

    Returns:
        by moves down and right, from ``-reach`` on: squared errors, float64 ``(ways, ways)``, and linear maps of
        colours, float32 ``(ways, ways, 3, 3)``; and the sum of squares of y.
    """
    ways, (height, width) = 2 * reach + 1, (side - 2 * reach for side in sides)
    squares, total = torch.zeros(3, 3, *sides, dtype=torch.float64), 0.0
    products = torch.zeros(3, 3, ways, ways, dtype=torch.float64)
    for x, y in batches:
        squares += torch.einsum("nihw,njhw->ijhw", x, x)
        # A cross-correlation, at places where nothing wraps around: sums of products of y and each window of x.
        spectrum = torch.einsum("nihw,njhw->ijhw", torch.fft.rfft2(x), torch.fft.rfft2(y, s=sides).conj())
        products += torch.fft.irfft2(spectrum, s=sides)[..., :ways, :ways]
        total += y.square().sum().item()
    moments = squares.unfold(2, height, 1).sum(-1).unfold(3, width, 1).sum(-1).permute(2, 3, 0, 1)
    shared = products.permute(2, 3, 0, 1)
    maps = torch.linalg.pinv(moments, rtol=_ROUNDING, hermitian=True) @ shared
    return total - (maps * shared).sum((2, 3)), maps.float(), total
