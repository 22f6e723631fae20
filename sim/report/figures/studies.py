"""The pictures of studies, as each study describes its own."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from roles.evaluator.study import HeatMap, Lines
from sim.report.figures.style import COLUMN, draw_legend, look_of, new_figure

_MOST_VALUES, _MOST_NAMES = 12, 30
"""Users up to which a heat map has its values written in it, and up to which an axis names them."""


def draw_study(path: Path, form: HeatMap | Lines, table: pd.DataFrame) -> None:
    """Draw a study's table, which has at least one row and the columns that ``form`` names, as PNG and PDF."""
    if isinstance(form, HeatMap):
        with new_figure(path, COLUMN, COLUMN) as figure:
            _draw_heat_map(figure, form, table)
    else:
        with new_figure(path, COLUMN, 2.6) as figure:
            _draw_lines(figure, form, table)
            draw_legend(figure)


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


def _draw_lines(figure: Figure, form: Lines, table: pd.DataFrame) -> None:
    names = list(dict.fromkeys(table[form.x]))
    # Users have no order that a line could follow.
    ordered = pd.api.types.is_numeric_dtype(table[form.x])
    means = ordered and table.duplicated([form.x, form.by] if form.by else form.x).any()
    ax = figure.add_subplot(xlabel=form.x.replace("_", " ") + (" (lines: means)" if means else ""), ylabel=form.title)
    # Gains and shares alike are read against nought.
    ax.axhline(0, color="0.6", linewidth=0.6)
    rows = table.assign(place=table[form.x].map(names.index), by=table[form.by].astype(str) if form.by else "_")
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
    if len(names) <= _MOST_NAMES:
        ax.set_xticks(range(len(names)), [_short(str(name)) for name in names])


def _short(name: str) -> str:
    """Return a user's number for its name, which an axis that says "user" need not repeat.

    >>> _short("user-0012"), _short("8")
    ('12', '8')
    """
    return re.sub(r"^user-0*(?=\d)", "", name)
