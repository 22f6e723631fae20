"""What protections cost against what they hide, and against alpha, drawn from plain data."""

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import textalloc
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import NullFormatter
from numpy.typing import NDArray

from sim.report.figures.style import COLUMN, PNG_DPI, Target, draw_legend, look_of, new_figure, wrap

_MOST_LABELS, _MOST_TICKS = 32, 8
_MARK = 14
"""Area of a mark, in square points."""
_TOUCHING = 4 / 72 * PNG_DPI
"""Marks of a group no farther apart share a label, in pixels: theirs would cover each other."""


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
        points: groups are drawn in the order of their first point.
        hidden: the largest loss of accuracy, in points, and the largest gain in SSIM at which a protection may be
            said to hold; the corner within both is marked.
    """
    loss, gain = hidden
    places = np.array([(point.gain, point.accuracy) for point in points]).reshape(-1, 2)
    low, high = (end([(0, 0), (gain, -loss), *places], axis=0) for end in (np.min, np.max))
    (left, bottom), (right, top) = low - (high - low) * (0.05, 0.08), high + (high - low) * (0.25, 0.12)
    with new_figure(to, COLUMN, 3.0) as figure:
        ax = figure.add_subplot(xlim=(left, right), ylim=(bottom, top))
        ax.set(xlabel="SSIM that can be had, over a trivial guess", ylabel="accuracy, protected - plain (points)")
        ax.grid(visible=True)
        for index, group in enumerate(dict.fromkeys(point.group for point in points)):
            look, own = look_of(index), places[[point.group == group for point in points]]
            ax.scatter(own[:, 0], own[:, 1], s=_MARK, color=look.colour, marker=look.marker, label=group, linewidths=0)
        corner = f"within {loss:g} points and {gain:g} SSIM"
        ax.add_patch(Rectangle((left, -loss), gain - left, top + loss, color="0.9", zorder=0, label=corner))
        draw_legend(figure)
        if 0 < len(points) <= _MOST_LABELS:
            figure.draw_without_rendering()  # pixels are known once the layout is
            _label(ax, points, places)


def _label(ax: Axes, points: list[TradeOff], places: NDArray[np.float64]) -> None:
    """Write the names of marks beside them, where they cover neither a mark nor each other."""
    pixels = ax.transData.transform(places)
    marks: Counter[int] = Counter()  # how many share the label of one
    for number, point in enumerate(points):
        alike = (first for first in marks if points[first].group == point.group)
        marks[next((first for first in alike if math.dist(pixels[first], pixels[number]) <= _TOUCHING), number)] += 1
    textalloc.allocate(
        ax,
        places[list(marks), 0],
        places[list(marks), 1],
        [wrap(points[n].label + (f" and {count - 1} more" if count > 1 else ""), 40) for n, count in marks.items()],
        x_scatter=places[:, 0],
        y_scatter=places[:, 1],
        nbr_candidates=2000,
        max_distance=0.4,
        textsize=5,
        textcolor="0.3",
        linecolor="0.6",
        linewidth=0.4,
    )


def draw_accuracy(to: Target, lines: dict[str, list[tuple[float, float]]], plain: float) -> None:
    """Draw accuracy in percent against alpha, a line a kind of network, with that on plain images.

    Args:
        to: see :data:`Target`.
        lines: by label, pairs of alpha and accuracy; of several users at one alpha, each has a mark and the line goes
            through their mean. alpha 0 is left out: the axis is logarithmic.
        plain: accuracy on plain images, in percent.
    """
    with new_figure(to, COLUMN, 2.6) as figure:
        ax = figure.add_subplot(xlabel="alpha", ylabel="accuracy (%)", xscale="log")
        ax.axhline(plain, color="0.4", linewidth=0.8, linestyle="--", label="plain")
        for index, (label, pairs) in enumerate(lines.items()):
            users = pd.DataFrame(pairs, columns=["alpha", "accuracy"]).query("alpha > 0")
            look: dict[str, Any] = {"color": look_of(index).colour, "marker": look_of(index).marker}
            line = ax.plot(users.groupby("alpha")["accuracy"].mean(), linestyle=look_of(index).dashes, linewidth=1)
            # In the legend alone the line has a mark: in the diagram, marks stand where users are, not their means.
            line[0].set(markevery=[], markersize=_MARK**0.5, markeredgewidth=0, label=label, **look)
            ax.scatter(users["alpha"], users["accuracy"], s=_MARK, linewidths=0, **look)
        alphas = sorted({alpha for pairs in lines.values() for alpha, _ in pairs if alpha > 0})
        if len(alphas) <= _MOST_TICKS:
            ax.set_xticks(alphas, [f"{alpha:g}" for alpha in alphas])
            ax.xaxis.set_minor_formatter(NullFormatter())
            ax.tick_params(axis="x", which="minor", length=0)
        draw_legend(figure)
