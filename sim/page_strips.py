"""The pictures in a page: one small image file a user, as exact and as many as a budget of bytes allows."""

import base64
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_MOST, _FEWEST = 100, 4
"""Pictures of a user in a page, and those that are kept before exactness is given up."""
_WEBP_QUALITY = 80

Pictures = Mapping[str, NDArray[np.uint8]]
"""By name, uint8 ``(N, H, W, 3)``: ``plain``, ``protected``, and each attack's estimates."""


@dataclass(frozen=True)
class Sprites:
    """Pictures as data URIs: each is a grid of ``count`` columns, with a row for each name."""

    plain: str
    """The plain images, one row, which all subjects have in common."""
    by_subject: dict[str, str]
    """Protected images and estimates, in the order of their names."""
    count: int
    """Pictures a subject."""
    lossless: bool


def fit(pictures: Mapping[str, Pictures], budget: int) -> Sprites:
    """Encode pictures within a budget.

    Up to 100 of each subject as PNG if they fit; else fewer of each, down to 4; else as lossy WebP, down to one
    picture; else those of every second, fourth, ... subject.

    Args:
        pictures: by subject, at least one; all subjects have the same plain images, of one size.
        budget: characters of all data URIs together, but for those of the plain images.

    >>> images = np.zeros((6, 4, 4, 3), np.uint8)
    >>> sprites = fit({"user-0000": {"plain": images, "protected": images}}, budget=10_000)
    >>> sprites.count, sprites.lossless, sprites.by_subject["user-0000"][:22]
    (6, True, 'data:image/png;base64,')
    """
    plain = next(iter(pictures.values()))["plain"]
    for count, lossless, every in _choices(min(len(plain), _MOST), len(pictures)):
        chosen = {subject: pictures[subject] for subject in list(pictures)[::every]}
        if encoded := _within(budget, chosen, count, lossless):
            return Sprites(_encoded([plain[:count]], lossless), encoded, count, lossless)
    return Sprites(_encoded([plain[:1]], lossless=True), {}, 1, lossless=True)


def _within(budget: int, pictures: Mapping[str, Pictures], count: int, lossless: bool) -> dict[str, str]:
    """Return the data URI of each subject, or nothing if they are longer than ``budget`` together."""
    encoded: dict[str, str] = {}
    for subject, named in pictures.items():
        rows = [images[:count] for name, images in named.items() if name != "plain"]
        encoded[subject] = _encoded(rows, lossless)
        budget -= len(encoded[subject])
        if budget < 0:
            return {}
    return encoded


def _choices(most: int, subjects: int) -> Iterator[tuple[int, bool, int]]:
    """Yield pictures a subject, whether lossless, and every how manieth subject: best first."""
    for count in range(most, min(most, _FEWEST) - 1, -1):
        yield count, True, 1
    for count in range(most, 0, -1):
        yield count, False, 1
    every = 2
    while every < 2 * subjects:
        yield 1, False, every
        every *= 2


def _encoded(rows: list[NDArray[np.uint8]], lossless: bool) -> str:
    grid = np.concatenate([np.concatenate(list(images), axis=1) for images in rows])
    file = io.BytesIO()
    if lossless:
        Image.fromarray(grid).save(file, "PNG", optimize=True)
    else:
        Image.fromarray(grid).save(file, "WEBP", quality=_WEBP_QUALITY)
    return f"data:image/{'png' if lossless else 'webp'};base64,{base64.b64encode(file.getvalue()).decode()}"
