"""What protections cost against what they hide, drawn from plain data."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import textalloc
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from sim.report.figures.style import COLUMN, PNG_DPI, Target, draw_legend, look_of, new_figure, pale, wrap

_MOST_LABELS = 32
_NAME = 0.09
"""Height that the name of the corner takes, of the diagram's."""
_SMALLEST, _LARGEST = 12.0, 110.0
"""Areas of marks, in square points, of no image exposed and of all."""
_SIZES = {0.01: "1%", 0.5: "50%", 1.0: "100% of the images given away"}
"""Shares whose marks the legend shows."""
_TOUCHING = 4 / 72 * PNG_DPI
"""Marks of a group no farther apart share a label, in pixels: theirs would cover each other."""


@dataclass(frozen=True)
class TradeOff:
    """What one protection costs and keeps.

    ``accuracy`` is over that on plain images, in points; ``gain`` the SSIM of the best that is to be had, the protected
    image itself or an attack's estimate, over that of a trivial guess; ``exposed`` the share of images that are visible
    or recovered, in [0, 1], NaN where it is not known.
    """

    label: str
    accuracy: float
    gain: float
    group: str
    exposed: float = math.nan


def draw_trade_off(to: Target, points: list[TradeOff], hidden: tuple[float, float]) -> None:
    """Draw what protections cost against what can be seen, one mark a user: both are best at the upper left.

    The more of its images are exposed, the larger is a mark's area; what is not known is drawn like none. Marks of a
    group that touch its first one share that one's label; up to 32 labels are written. A dashed line goes along those
    that none is better than in both.

    Args:
        to: see :data:`Target`.
        points: groups are drawn in the order of their first point.
        hidden: the largest loss of accuracy, in points, and the largest gain in SSIM at which a protection may be
            said to hold; the corner within both is marked as the goal.
    """
    loss, gain = hidden
    places = np.array([(point.gain, point.accuracy) for point in points]).reshape(-1, 2)
    low, high = (end([(0, 0), (gain, -loss), *places], axis=0) for end in (np.min, np.max))
    # Above all marks there is a line's height for the name of the corner.
    (left, bottom), (right, top) = low - (high - low) * (0.08, 0.1), high + (high - low) * (0.25, 0.24)
    areas = np.array([_area(0 if math.isnan(point.exposed) else point.exposed) for point in points])
    with new_figure(to, COLUMN, 3.0) as figure:
        ax = figure.add_subplot(xlim=(left, right), ylim=(bottom, top))
        ax.set(xlabel="SSIM that can be had, over the trivial guess", ylabel="accuracy, protected - plain (points)")
        ax.grid(visible=True)
        for index, group in enumerate(dict.fromkeys(point.group for point in points)):
            look = look_of(index)
            own = [number for number in np.argsort(-areas, kind="stable") if points[number].group == group]
            shown: dict[str, Any] = {"marker": look.marker, "facecolors": pale(look.colour), "edgecolors": look.colour}
            shown["linewidths"] = 0.6
            ax.scatter(places[own, 0], places[own, 1], s=areas[own], **shown)
            ax.scatter([], [], s=_area(0), label=group, **shown)
        if len(best := frontier(places)):
            corners = np.array([(best[0, 0], bottom), *best, (right, best[-1, 1])])
            ax.step(*corners.T, where="post", color="0.6", linewidth=0.6, linestyle="--", zorder=1)
        ax.add_patch(Rectangle((left, -loss), gain - left, top + loss, color="0.9", zorder=0))
        goal = f"goal: within {loss:g} points and {gain:g} SSIM"
        ax.annotate(goal, (left, top), (3, -3), textcoords="offset points", va="top", size=6.5, color="0.3")
        draw_legend(figure)
        if any(not math.isnan(point.exposed) for point in points):
            _explain_sizes(figure)
        figure.draw_without_rendering()  # pixels are known once the layout is
        _label(ax, points, places, np.sqrt(areas) / 2 / 72 * figure.dpi)


def frontier(places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return those of ``(N, 2)`` gains and accuracies that no other is better than in both, by rising gain.

    >>> frontier(np.array([[0.1, -1.0], [0.2, -2.0], [0.0, -5.0], [0.3, 0.0]])).tolist()
    [[0.0, -5.0], [0.1, -1.0], [0.3, 0.0]]
    """
    by_gain = places[np.lexsort((-places[:, 1], places[:, 0]))]
    before = np.maximum.accumulate(np.concatenate([[-np.inf], by_gain[:, 1]]))[:-1]
    best: NDArray[np.float64] = by_gain[by_gain[:, 1] > before]
    return best


def _area(exposed: float) -> float:
    return _SMALLEST + (_LARGEST - _SMALLEST) * exposed


def _explain_sizes(figure: Figure) -> None:
    grey: dict[str, Any] = {"facecolors": "0.8", "edgecolors": "0.4", "linewidths": 0.5}
    marks = [figure.axes[0].scatter([], [], s=_area(share), **grey) for share in _SIZES]
    room: dict[str, Any] = {"handletextpad": 0.3, "columnspacing": 1.0}
    figure.legend(marks, list(_SIZES.values()), loc="outside lower center", ncols=len(_SIZES), **room)


def _label(ax: Axes, points: Sequence[TradeOff], places: NDArray[np.float64], radii: NDArray[np.float64]) -> None:
    """Write the names of marks of given radii (pixels) beside them, where they cover neither a mark nor each other."""
    pixels = ax.transData.transform(places)
    marks: Counter[int] = Counter()  # how many share the label of one
    for number, point in enumerate(points):
        alike = (first for first in marks if points[first].group == point.group)
        marks[next((first for first in alike if math.dist(pixels[first], pixels[number]) <= _TOUCHING), number)] += 1
    if not 0 < len(marks) <= _MOST_LABELS:
        return
    bottom, top = ax.get_ylim()
    sizes: dict[str, Any] = {"scatter_sizes": radii, "text_scatter_sizes": radii[list(marks)]}
    textalloc.allocate(
        ax,
        places[list(marks), 0],
        places[list(marks), 1],
        [wrap(points[n].label + (f" and {count - 1} more" if count > 1 else ""), 40) for n, count in marks.items()],
        x_scatter=places[:, 0],
        y_scatter=places[:, 1],
        **sizes,
        ylims=(bottom, top - _NAME * (top - bottom)),
        nbr_candidates=2000,
        max_distance=0.4,
        textsize=6 if len(marks) <= _MOST_LABELS // 2 else 5,
        textcolor="0.2",
        linecolor="0.6",
        linewidth=0.4,
    )
