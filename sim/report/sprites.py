"""The pictures in a page or a notebook: one small image file a user, as exact and as many as a budget allows."""

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pictures = dict[str, NDArray[np.uint8]]
"""By ``plain``, ``protected``, the name of each attack and, where there are labels, ``class_mean``: uint8
``(N, H, W, 3)``, RGB."""

_MOST, _FEWEST = 100, 4
"""Pictures of a user in a page, and those that are kept before exactness is given up."""
_WEBP_QUALITY = 80
_IN_COMMON = ("plain", "class_mean")


@dataclass(frozen=True)
class Sprites:
    """Pictures as data URIs: each is a grid of ``count`` columns with a row for each name, in the names' order.

    ``common`` has the rows, called ``names``, that all subjects have in common: plain images and, where the run has
    them, the means of their classes.
    """

    common: str
    names: list[str]
    by_subject: dict[str, str]
    count: int
    lossless: bool


def fit(pictures: Mapping[str, Pictures], budget: int) -> Sprites:
    """Encode pictures within a budget.

    Up to 100 of each subject as PNG if they fit; else fewer of each, down to 4; else as lossy WebP, down to one
    picture; else those of every second, fourth, ... subject.

    Args:
        pictures: by subject; all subjects have the same plain images, of one size.
        budget: characters of all data URIs together, but for what is common.

    >>> images = np.zeros((6, 4, 4, 3), np.uint8)
    >>> sprites = fit({"user-0000": {"plain": images, "protected": images}}, budget=10_000)
    >>> sprites.count, sprites.lossless, sprites.by_subject["user-0000"][:22]
    (6, True, 'data:image/png;base64,')
    """
    if not pictures:
        return Sprites("", [], {}, 0, lossless=True)
    first = next(iter(pictures.values()))
    names = [name for name in _IN_COMMON if name in first]
    common = [first[name] for name in names]
    for count, lossless, every in _choices(min(len(common[0]), _MOST), len(pictures)):
        encoded, left = dict[str, str](), budget
        for subject in list(pictures)[::every]:
            rows = [images[:count] for name, images in pictures[subject].items() if name not in _IN_COMMON]
            encoded[subject] = grid(rows, lossless)
            left -= len(encoded[subject])
            if left < 0:
                break
        else:
            return Sprites(grid([row[:count] for row in common], lossless), names, encoded, count, lossless)
    return Sprites(grid([row[:1] for row in common], lossless=True), names, {}, 1, lossless=True)


def _choices(most: int, subjects: int) -> Iterator[tuple[int, bool, int]]:
    """Yield pictures a subject, whether lossless, and every how manieth subject: best first."""
    yield from ((count, True, 1) for count in range(most, min(most, _FEWEST) - 1, -1))
    yield from ((count, False, 1) for count in range(most, 0, -1))
    yield from ((1, False, 2**step) for step in range(1, (subjects - 1).bit_length() + 1))


def grid(rows: Sequence[NDArray[np.uint8]], lossless: bool) -> str:
    """Return rows of images, each uint8 ``(N, H, W, 3)``, as one image file: a data URI."""
    image, file = Image.fromarray(np.concatenate([np.concatenate(list(row), axis=1) for row in rows])), io.BytesIO()
    if lossless:
        image.save(file, "PNG", optimize=True)
    else:
        image.save(file, "WEBP", quality=_WEBP_QUALITY)
    return data_uri("image/png" if lossless else "image/webp", file.getvalue())


def data_uri(kind: str, content: bytes) -> str:
    """Return a file's content as a URI; ``kind`` is its MIME type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
