"""Learning curves."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, PercentFormatter

from sim.report.figures.style import COLUMN, PAGE, Target, draw_legend, look_of, new_figure, say_no_data

_MOST_USERS = 8
"""Users up to which each has a look and a name of its own."""
_MARKS = 5
"""Marks on a line, about: by them it is known in grey as well."""
_MEDIAN: dict[str, Any] = {"color": look_of(0).colour, "linewidth": 1.5}


@dataclass(frozen=True)
class Panel:
    """One diagram of curves: the ``key`` of the rows it shows, against their ``x``."""

    key: str
    title: str
    log: bool = False
    """Whether the axis is logarithmic."""
    share: bool = False
    """Whether values are shares in [0, 1], which the axis shows in percent."""
    x: str = "epoch"


def draw_learning_curves(to: Target, curves: dict[str, list[dict[str, float]]], panels: list[Panel]) -> None:
    """Draw each user's measurements against the epoch (or another ``x``), one panel a measurement.

    Up to 8 users are named in a legend. More are drawn thin and grey, and over them the median, at each epoch, of the
    users who have a value there.

    Args:
        to: see :data:`Target`.
        curves: by user, the rows in the order of training. A row without a panel's ``x`` or ``key``, or with a value
            that is not finite (in a logarithmic panel: not positive), is left out of it.
        panels: from left to right and top to bottom.

    Raises:
        ValueError: there are no panels.
    """
    if not panels:
        raise ValueError("learning curves need at least one panel")
    columns = {1: 1, 2: 2, 4: 2}.get(len(panels), 3)
    lines = math.ceil(len(panels) / columns)
    styles, named = _styles(list(curves))
    table = pd.DataFrame([{"user": user} | row for user, rows in curves.items() for row in rows])
    table = table.replace([np.inf, -np.inf], np.nan)
    with new_figure(to, COLUMN if columns == 1 else PAGE, 0.35 + (2.3 if columns < 3 else 1.9) * lines) as figure:
        for position, panel in enumerate(panels, 1):
            _draw_panel(figure.add_subplot(lines, columns, position), panel, table, styles)
        for name, style in named.items():
            figure.axes[0].plot([], [], label=name, **style)
        draw_legend(figure)


def _styles(users: list[str]) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Return how lines are drawn, by user, and which styles the legend names."""
    if len(users) > _MOST_USERS:
        # Fainter, the more there are, so that their density shows. As vectors, a thousand would be a PDF of megabytes.
        thin = {"color": "0.5", "linewidth": 0.4, "alpha": min(0.8, 30 / len(users)), "rasterized": True}
        named = {"one user": {"color": "0.6", "linewidth": 0.6}, f"median of {len(users):,} users": _MEDIAN}
        return dict.fromkeys(users, thin), named
    styles = {}
    for index, user in enumerate(users):
        look = look_of(index)
        marks = {"marker": look.marker, "markersize": 3} if len(users) > 1 else {}
        styles[user] = {"color": look.colour, "linestyle": look.dashes, "linewidth": 1} | marks
    return styles, styles


def _draw_panel(ax: Axes, panel: Panel, table: pd.DataFrame, styles: dict[str, dict[str, Any]]) -> None:
    ax.set_title(panel.title, loc="left")
    ax.set_xlabel(panel.x)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    points = table.reindex(columns=["user", panel.x, panel.key]).dropna()
    if panel.log:
        points = points[points[panel.key] > 0]
    if points.empty:
        say_no_data(ax)
    elif panel.log:
        ax.set_yscale("log")
        # Within a decade, powers of ten and their 2 and 5 would label the axis once, or not at all.
        narrow = points[panel.key].max() < 10 * points[panel.key].min()
        ax.yaxis.set_major_locator(MaxNLocator(nbins=5) if narrow else LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter(NullFormatter())
    if panel.share:
        ax.yaxis.set_major_formatter(PercentFormatter(1))
    for number, (user, line) in enumerate(points.groupby("user", sort=False)):
        style = styles[str(user)]
        if len(line) == 1:
            style = {"marker": "o", "markersize": 3} | style  # a line through a single point would be invisible
        elif "marker" in style:
            # Where lines run together, marks of each are at epochs of its own.
            every = max(1, len(line) // _MARKS)
            style = style | {"markevery": (number % every, every)}
        ax.plot(line[panel.x], line[panel.key], **style)
    if len(styles) > _MOST_USERS:
        ax.plot(points.groupby(panel.x)[panel.key].median(), **_MEDIAN)
