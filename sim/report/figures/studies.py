"""The pictures of studies, as each study describes its own."""

import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter

from roles.evaluator.study import HeatMap, Lines, Reference
from sim.report.figures.style import COLUMN, End, draw_legend, label_ends, look_of, new_figure, wrap

_MOST_VALUES, _MOST_NAMES = 12, 30
"""Users up to which a heat map has its values written in it, and up to which an axis names them."""
_GREYS = ((0, (3, 1)), (0, (1, 1)), (0, (6, 1, 1, 1)))
"""How references are dashed; more closely than any series."""


def draw_study(path: Path, form: HeatMap | Lines, table: pd.DataFrame) -> None:
    """Draw a study's table, which has at least one row and the columns that ``form`` names, as PNG and PDF.

    Columns of references are drawn where the table has them.
    """
    if isinstance(form, HeatMap):
        with new_figure(path, COLUMN, 3.0) as figure:
            _draw_heat_map(figure, form, table)
    else:
        with new_figure(path, COLUMN, 2.6) as figure:
            ends = _draw_lines(figure, form, table)
            draw_legend(figure)
            label_ends(figure, ends)


def _draw_heat_map(figure: Figure, form: HeatMap, table: pd.DataFrame) -> None:
    grid = table.pivot_table(index=form.y, columns=form.x, values=form.value, sort=False)
    values = grid.to_numpy(dtype=float)
    ax = figure.add_subplot(xlabel=form.x, ylabel=form.y)
    ax.grid(visible=False)
    # cividis is read alike with any colour vision. A gain below 0 is no gain: in all pictures, the darkest colour is 0.
    low, high = np.nanmin(values), max(0.0, np.nanmax(values))
    image = ax.imshow(values, cmap="cividis", vmin=0, vmax=high)
    figure.colorbar(image, ax=ax, label=form.title, shrink=0.8, extend="min" if low < 0 else "neither")
    for axis, names in ((ax.xaxis, grid.columns), (ax.yaxis, grid.index)):
        if len(names) <= _MOST_NAMES:
            axis.set_ticks(range(len(names)), [_short(str(name)) for name in names])
        else:
            axis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        axis.set_tick_params(length=0)
    if max(values.shape) <= _MOST_VALUES:
        for (row, column), value in np.ndenumerate(values):
            if np.isfinite(value):
                colour = "white" if value < high / 2 else "black"
                ax.text(column, row, f"{value:.2f}", ha="center", va="center", size=5, color=colour)
    same = [(column, row) for row, name in enumerate(grid.index) for column in np.flatnonzero(grid.columns == name)]
    if same and max(values.shape) <= _MOST_NAMES:
        ax.set_xlabel(f"{form.x} (framed: the same user)")
        for column, row in same:
            # On the darkest cells white shows, on the brightest black.
            for width, colour in ((1.8, "white"), (0.8, "black")):
                corner = (column - 0.5, row - 0.5)
                ax.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=colour, linewidth=width))


def _draw_lines(figure: Figure, form: Lines, table: pd.DataFrame) -> list[End]:
    """Draw series, and the references that are to be labelled."""
    names = list(dict.fromkeys(table[form.x]))
    # Users have no order that a line could follow.
    ordered = pd.api.types.is_numeric_dtype(table[form.x])
    means = ordered and table.duplicated([form.x, form.by] if form.by else form.x).any()
    ax = figure.add_subplot(xlabel=form.x.replace("_", " ") + (" (lines: means)" if means else ""), ylabel=form.title)
    # SSIM and shares alike are read against nought.
    ax.axhline(0, color="0.6", linewidth=0.6)
    if form.share:
        ax.set_ylim(-0.04, 1.04)
        ax.yaxis.set_major_formatter(PercentFormatter(1))
    rows = table.assign(place=table[form.x].map(names.index), by=table[form.by].astype(str) if form.by else "_")
    ends: list[End] = []
    for number, reference in enumerate(form.references):
        ends += _draw_reference(ax, reference, rows, _GREYS[number % 3])
    for number, (name, part) in enumerate(rows.groupby("by", sort=False)):
        look = look_of(number)
        line = part.groupby("place")[form.value].mean()
        ax.plot(line, color=look.colour, linestyle=look.dashes, linewidth=1 if ordered else 0)
        ax.scatter(
            part["place"],
            part[form.value],
            # Open, and each larger than the one before: where several fall together, all are seen.
            s=10 + 8 * (number % 8),
            facecolors="none",
            edgecolors=look.colour,
            marker=look.marker,
            linewidths=0.9,
            label=f"{name} {form.by.replace('_', ' ')}" if str(name).isdecimal() else name,
        )
    ax.set_xlim(-0.5, len(names) - 0.5)
    if len(names) <= _MOST_NAMES:
        ax.set_xticks(range(len(names)), [_short(str(name)) for name in names])
    return ends


def _draw_reference(ax: Axes, reference: Reference, rows: pd.DataFrame, dashes: object) -> list[End]:
    """Draw a reference as a level at each place, in grey or, where each series has its own, in its colour."""
    values = rows.reindex(columns=list(reference.columns)).astype(float).max(axis=1)
    known = rows.assign(value=values).dropna(subset=["value"])
    looks = {name: look_of(number).colour for number, name in enumerate(dict.fromkeys(rows["by"]))}
    ends: list[End] = []
    for name, part in known.groupby("by" if reference.each else lambda _: "", sort=False):
        levels = part.groupby("place")["value"].median()
        places = np.stack([levels.index - 0.5, levels.index + 0.5], axis=1).ravel()
        colour = looks[str(name)] if reference.each else "0.35"
        ax.plot(places, levels.repeat(2), color=colour, linewidth=0.8, linestyle=dashes, zorder=1.5)
        text = f"{reference.label}, {name!s}" if reference.each else reference.label
        ends.append(End(ax, math.nan, float(levels.iloc[-1]), wrap(text, 14), colour))
    return ends


def _short(name: str) -> str:
    """Return a user's number for its name, which an axis that says "user" need not repeat.

    >>> _short("user-0012"), _short("8")
    ('12', '8')
    """
    return re.sub(r"^user-0*(?=\d)", "", name)
