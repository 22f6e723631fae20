"""What protections cost against what they hide, and against alpha, drawn from plain data."""

import math
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import NullFormatter
from matplotlib.transforms import Bbox

from sim.figure_style import COLUMN, STYLE, Target, draw_legend, look_of, save_figure

_MOST_LABELS = 32
_LABEL_SIZE = 5
"""In points."""
_TOUCHING = 4
"""Marks no farther apart share a label, in points: theirs would cover each other."""
_SHIFTS = (0.1, -1.1, 1.2, -2.2, 2.3, -3.3, 3.4, -4.4, 4.5, -5.5, 5.6, -6.6)
"""Where names may stand above or below their marks, in their heights, the nearest first."""
_MOST_TICKS = 8


@dataclass(frozen=True)
class TradeOff:
    """What one protection costs and keeps.

    ``accuracy`` is over that on plain images, in points; ``gain`` the SSIM of the best that is to be had, the protected
    image itself or an attack's estimate, over that of a trivial guess.
    """

    label: str
    accuracy: float
    gain: float
    group: str


def draw_trade_off(to: Target, points: list[TradeOff], hidden: tuple[float, float]) -> None:
    """Draw what protections cost against what can be seen, one mark a user: both are best at the upper left.

    Up to 32 marks are labelled; marks of a group that touch its first one share that one's label.

    Args:
        to: see :data:`Target`.
        points: in any order; groups are drawn in the order of their first point.
        hidden: the largest loss of accuracy, in points, and the largest gain in SSIM at which a protection may be
            said to hold; the corner within both is marked.
    """
    groups = list(dict.fromkeys(point.group for point in points))
    loss, gain = hidden
    with mpl.rc_context(STYLE | {"axes.grid.axis": "both"}):
        figure = Figure(figsize=(COLUMN, 3.0), layout="constrained")
        ax = figure.add_subplot()
        ax.set_xlabel("SSIM that can be had, over a trivial guess")
        ax.set_ylabel("accuracy, protected - plain (points)")
        for index, group in enumerate(groups):
            own = [point for point in points if point.group == group]
            x, y, look = [point.gain for point in own], [point.accuracy for point in own], look_of(index)
            ax.scatter(x, y, s=14, color=look.colour, marker=look.marker, label=group, linewidths=0)
        low, high = min([-loss, *(p.accuracy for p in points)]), max([0.0, *(p.accuracy for p in points)])
        left, right = min([0.0, *(p.gain for p in points)]), max([gain, *(p.gain for p in points)])
        ax.set_xlim(left - 0.05 * (right - left), right + 0.25 * (right - left))
        ax.set_ylim(low - 0.08 * (high - low), high + 0.12 * (high - low))
        (x_low, _), (_, y_high) = ax.get_xlim(), ax.get_ylim()
        corner = f"within {loss:g} points and {gain:g} SSIM"
        ax.add_patch(Rectangle((x_low, -loss), gain - x_low, y_high + loss, color="0.9", zorder=0, label=corner))
        draw_legend(figure, *ax.get_legend_handles_labels())
        if len(points) <= _MOST_LABELS:
            _label(figure, ax, points)
        save_figure(figure, to)


def _label(figure: Figure, ax: Axes, points: list[TradeOff]) -> None:
    """Write the names of marks beside them, each where it covers no other, if there is such a place.

    Names come in the order of the marks' heights, and are joined to a mark that they stand far from by a line.
    """
    figure.draw_without_rendering()  # places are known once the layout is
    unit = figure.dpi / 72
    places = ax.transData.transform([(point.gain, point.accuracy) for point in points]).tolist()
    taken = [Bbox.from_extents(x - 2 * unit, y - 2 * unit, x + 2 * unit, y + 2 * unit) for x, y in places]
    marks: list[tuple[list[float], list[TradeOff]]] = []
    for place, point in zip(places, points, strict=True):
        same = (own for first, own in marks if math.dist(first, place) <= _TOUCHING * unit)
        touched = next((own for own in same if own[0].group == point.group), None)
        if touched is None:
            marks.append((place, [point]))
        else:
            touched.append(point)
    for (x, y), own in sorted(marks, key=lambda mark: -mark[0][1]):
        label = own[0].label if len(own) == 1 else f"{own[0].label} and {len(own) - 1} more"
        width, height = (0.55 * len(label) + 0.3) * _LABEL_SIZE * unit, _LABEL_SIZE * unit
        boxes = [
            Bbox.from_bounds(x + (3 * unit if right else -3 * unit - width), y + shift * height, width, height)
            for shift in _SHIFTS
            for right in (True, False)
        ]
        inside = [box for box in boxes if ax.bbox.contains(box.x0, box.y0) and ax.bbox.contains(box.x1, box.y1)]
        box = min(inside or boxes, key=lambda box: sum(_common_area(box, other) for other in taken))
        taken.append(box)
        far = not y - 1.5 * height <= box.y0 <= y + 0.5 * height
        end = {"relpos": (0 if box.x0 > x else 1, 0.5), "shrinkA": 0, "shrinkB": 2}
        ax.annotate(
            label,
            (own[0].gain, own[0].accuracy),
            ((box.x0 - x) / unit, (box.y0 - y) / unit),
            textcoords="offset points",
            size=_LABEL_SIZE,
            color="0.3",
            arrowprops={"arrowstyle": "-", "color": "0.6", "linewidth": 0.4, **end} if far else None,
        )


def _common_area(one: Bbox, other: Bbox) -> float:
    common = Bbox.intersection(one, other)
    return 0.0 if common is None else float(common.width * common.height)


def draw_accuracy(to: Target, lines: dict[str, list[tuple[float, float]]], plain: float) -> None:
    """Draw accuracy in percent against alpha, a line a kind of network, with that on plain images.

    Args:
        to: see :data:`Target`.
        lines: by label, pairs of alpha and accuracy in any order; of several users at one alpha, each has a mark and
            the line goes through their mean. alpha 0 is left out: the axis is logarithmic.
        plain: accuracy on plain images, in percent.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(COLUMN, 2.6), layout="constrained")
        ax = figure.add_subplot()
        ax.set_xlabel("alpha")
        ax.set_ylabel("accuracy (%)")
        ax.set_xscale("log")
        ax.axhline(plain, color="0.4", linewidth=0.8, linestyle="--", label="plain")
        for index, (label, pairs) in enumerate(lines.items()):
            look = look_of(index)
            shown = sorted((alpha, accuracy) for alpha, accuracy in pairs if alpha > 0)
            by_alpha: dict[float, list[float]] = {}
            for alpha, accuracy in shown:
                by_alpha.setdefault(alpha, []).append(accuracy)
            means = [float(np.mean(values)) for values in by_alpha.values()]
            ax.plot(
                list(by_alpha),
                means,
                color=look.colour,
                linestyle=look.dashes,
                linewidth=1,
                label=label,
                # In the legend alone the line has a mark: in the diagram, marks stand where users are, not their means.
                marker=look.marker,
                markevery=[],
                markersize=14**0.5,
                markeredgewidth=0,
            )
            x, y = [alpha for alpha, _ in shown], [accuracy for _, accuracy in shown]
            ax.scatter(x, y, s=14, color=look.colour, marker=look.marker, linewidths=0)
        alphas = sorted({alpha for pairs in lines.values() for alpha, _ in pairs if alpha > 0})
        if len(alphas) <= _MOST_TICKS:
            ax.set_xticks(alphas, [f"{alpha:g}" for alpha in alphas])
            ax.xaxis.set_minor_formatter(NullFormatter())
            ax.tick_params(axis="x", which="minor", length=0)
        draw_legend(figure, *ax.get_legend_handles_labels())
        save_figure(figure, to)
