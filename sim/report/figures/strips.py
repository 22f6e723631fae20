"""Strips of small images, as in Fig. 5 and 6."""

import math
from dataclasses import dataclass

import torch
from matplotlib.text import Text
from torch import Tensor

from sim.report.figures.style import PAGE, PNG_DPI, Target, new_figure, wrap

_GAP, _MARGIN, _CAPTION, _TITLE = 6, 8, 24, 36
"""Between images, around all, and the heights of captions and title, in pixels of the PNG."""


@dataclass(frozen=True, eq=False)
class StripRow:
    """One row of a strip: ``images`` is uint8 ``(K, 3, H, W)``, ``captions`` are K texts to go below them."""

    label: str
    images: Tensor
    captions: list[str] | None


def draw_strips(to: Target, rows: list[StripRow], title: str = "") -> None:
    """Draw rows of images below each other, labels at the left; all images are equally large, whatever their size.

    Raises:
        ValueError: there is no image, images are not uint8 ``(K, 3, H, W)``, or a row has not one caption an image.
    """
    _check(rows)
    columns, pixels = max(len(row.images) for row in rows), max(row.images.shape[-1] for row in rows)
    with new_figure(to, 1, 1) as figure:
        figure.set_layout_engine("none")
        # What data are placed in is pixels of the PNG: only then does every image pixel cover equally many of them.
        ax = figure.add_axes((0, 0, 1, 1))
        labels = [ax.text(0, 0, wrap(row.label, 16), ha="right", va="center") for row in rows]
        captions = [[ax.text(0, 0, c, ha="center", va="top", size=6) for c in row.captions or []] for row in rows]
        heading = ax.text(0, _MARGIN, title, ha="center", va="top")
        left = _MARGIN + _widest(labels) + 2 * _GAP
        room = min(160, (PAGE * PNG_DPI - left - _MARGIN) // columns - _GAP)
        side = pixels * max(1, int(room // pixels))
        pitch = max(side, _widest([text for texts in captions for text in texts])) + _GAP
        right = left + max(columns * pitch - _GAP, _widest([heading]))
        heading.set_x((left + right) / 2)
        top = _MARGIN + (_TITLE if title else 0)
        for row, label, texts in zip(rows, labels, captions, strict=True):
            label.set_position((left - 2 * _GAP, top + side / 2))
            for index, image in enumerate(row.images.cpu().permute(0, 2, 3, 1).numpy()):
                x = left + index * pitch + (pitch - _GAP - side) // 2
                ax.imshow(image, extent=(x, x + side, top + side, top), interpolation="nearest", aspect="auto")
                if texts:
                    texts[index].set_position((x + side / 2, top + side + 4))
            top += side + _GAP + (_CAPTION if texts else 0)
        width, height = right + _MARGIN, top - _GAP + _MARGIN
        figure.set_size_inches(width / PNG_DPI, height / PNG_DPI)
        ax.set(xlim=(0, width), ylim=(height, 0))
        ax.set_axis_off()


def _widest(texts: list[Text]) -> int:
    return max((math.ceil(text.get_window_extent().width) for text in texts), default=0)


def _check(rows: list[StripRow]) -> None:
    if not any(len(row.images) for row in rows):
        raise ValueError("a strip needs at least one row with an image")
    for row in rows:
        if row.images.dtype != torch.uint8 or row.images.ndim != 4 or row.images.shape[1] != 3:
            found = f"{row.images.dtype} {tuple(row.images.shape)}"
            raise ValueError(f"strip row {row.label!r}: images must be uint8 (K, 3, H, W), not {found}")
        if row.captions is not None and len(row.captions) != len(row.images):
            raise ValueError(f"strip row {row.label!r}: {len(row.captions)} captions for {len(row.images)} images")
