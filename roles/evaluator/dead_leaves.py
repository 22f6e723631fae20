"""Dead leaves: images that were never photographed, with the edges and the scales of photographs."""

import math

import torch
from torch import Tensor

from roles.common.images import to_bitmap

_MOST_SHAPES = 40
_SMALLEST = 1.0
"""Radius in pixels of the smallest shape."""
_CHUNK = 500


def dead_leaves(count: int, side: int, stream: torch.Generator) -> Tensor:
    """Draw synthetic images of random shapes that lie over each other, uint8 ``(count, 3, side, side)``.

    1 to 40 shapes an image, discs and polygons of 3 to 6 sides, anywhere and turned at random. Radii r follow r^-3 from
    a pixel to half a side, by which statistics do not depend on scale, as those of photographs; colours are uniform,
    a third of their values black or full, and then drawn to their greys by as much for the whole image. Edges are a
    pixel soft.

    Source: Baradad et al., 2021, arXiv:2106.05963 (Section 3.1, "dead leaves"; Lee, Mumford and Huang, 2001).
    """
    drawn = [_drawn(min(_CHUNK, count - done), side, stream) for done in range(0, count, _CHUNK)]
    return torch.cat(drawn) if drawn else torch.empty(0, 3, side, side, dtype=torch.uint8)


def _drawn(count: int, side: int, stream: torch.Generator) -> Tensor:
    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=stream)

    saturation, shapes = uniform(count, 1), torch.randint(1, _MOST_SHAPES + 1, (count, 1, 1), generator=stream)
    places = torch.arange(side) + 0.5
    down, across = torch.meshgrid(places, places, indexing="ij")

    def colours() -> Tensor:
        colour = (1.5 * uniform(count, 3) - 0.25).clamp(0, 1)
        grey = colour.mean(dim=1, keepdim=True)
        return (grey + saturation * (colour - grey)).view(count, 3, 1, 1)

    images = colours().expand(-1, -1, side, side)
    for number in range(_MOST_SHAPES):
        y, x, turn = (uniform(count, 1, 1) * scale for scale in (side, side, 2 * math.pi))
        # The inverse of the distribution function of r^-3 between the smallest and the largest radius.
        ratio = (_SMALLEST / max(_SMALLEST, side / 2)) ** 2
        radius = _SMALLEST / (1 - uniform(count, 1, 1) * (1 - ratio)).sqrt()
        sides = torch.randint(2, 7, (count, 1, 1), generator=stream)
        away = torch.hypot(down - y, across - x)
        # The angle to the middle of the nearest side; with 2 for a disc, which has none.
        angle = torch.atan2(down - y, across - x) + turn
        wedge = 2 * math.pi / sides
        to_side = (angle.remainder(wedge) - wedge / 2).cos()
        reach = torch.where(sides == 2, away, away * to_side)
        cover = ((radius - reach + 0.5).clamp(0, 1) * (number < shapes)).unsqueeze(1)
        images = images + cover * (colours() - images)
    return to_bitmap(images)
