"""The pictures in a page: one small image file a user, as exact and as many as a budget of bytes allows."""

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sim.report.results import Pictures

_MOST, _FEWEST = 100, 4
"""Pictures of a user in a page, and those that are kept before exactness is given up."""
_WEBP_QUALITY = 80


@dataclass(frozen=True)
class Sprites:
    """Pictures as data URIs: each is a grid of ``count`` columns with a row for each name, in the names' order.

    ``plain`` is the one row of plain images, which all subjects have in common.
    """

    plain: str
    by_subject: dict[str, str]
    count: int
    lossless: bool


def fit(pictures: Mapping[str, Pictures], budget: int) -> Sprites:
    """Encode pictures within a budget.

    Up to 100 of each subject as PNG if they fit; else fewer of each, down to 4; else as lossy WebP, down to one
    picture; else those of every second, fourth, ... subject.

    Args:
        pictures: by subject; all subjects have the same plain images, of one size.
        budget: characters of all data URIs together, but for those of the plain images.

    >>> images = np.zeros((6, 4, 4, 3), np.uint8)
    >>> sprites = fit({"user-0000": {"plain": images, "protected": images}}, budget=10_000)
    >>> sprites.count, sprites.lossless, sprites.by_subject["user-0000"][:22]
    (6, True, 'data:image/png;base64,')
    """
    if not pictures:
        return Sprites("", {}, 0, lossless=True)
    plain = next(iter(pictures.values()))["plain"]
    for count, lossless, every in _choices(min(len(plain), _MOST), len(pictures)):
        encoded, left = dict[str, str](), budget
        for subject in list(pictures)[::every]:
            rows = [images[:count] for name, images in pictures[subject].items() if name != "plain"]
            encoded[subject] = _encoded(rows, lossless)
            left -= len(encoded[subject])
            if left < 0:
                break
        else:
            return Sprites(_encoded([plain[:count]], lossless), encoded, count, lossless)
    return Sprites(_encoded([plain[:1]], lossless=True), {}, 1, lossless=True)


def _choices(most: int, subjects: int) -> Iterator[tuple[int, bool, int]]:
    """Yield pictures a subject, whether lossless, and every how manieth subject: best first."""
    yield from ((count, True, 1) for count in range(most, min(most, _FEWEST) - 1, -1))
    yield from ((count, False, 1) for count in range(most, 0, -1))
    yield from ((1, False, 2**step) for step in range(1, (subjects - 1).bit_length() + 1))


def _encoded(rows: Sequence[NDArray[np.uint8]], lossless: bool) -> str:
    image, file = Image.fromarray(np.concatenate([np.concatenate(list(row), axis=1) for row in rows])), io.BytesIO()
    if lossless:
        image.save(file, "PNG", optimize=True)
    else:
        image.save(file, "WEBP", quality=_WEBP_QUALITY)
    return data_uri("image/png" if lossless else "image/webp", file.getvalue())


def data_uri(kind: str, content: bytes) -> str:
    """Return a file's content as a URI; ``kind`` is its MIME type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
