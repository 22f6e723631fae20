"""The pictures of studies, as each study describes its own."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from roles.evaluator.study import HeatMap, Lines
from sim.figure_style import COLOURS, COLUMN, STYLE, draw_legend, look_of, save_figure

_MOST_VALUES = 12
"""Users up to which a heat map has its values written in it."""
_MOST_NAMES = 30
"""Users up to which an axis names them."""


def draw_study(path: Path, form: HeatMap | Lines, table: pd.DataFrame) -> None:
    """Draw a study's table.

    Args:
        path: where to; its suffix, if any, is replaced by ``.png`` and ``.pdf``.
        form: how.
        table: at least one row, with the columns that ``form`` names.
    """
    with mpl.rc_context(STYLE):
        figure = _heat_map(form, table) if isinstance(form, HeatMap) else _lines(form, table)
        save_figure(figure, path)


def _heat_map(form: HeatMap, table: pd.DataFrame) -> Figure:
    grid = table.pivot_table(index=form.y, columns=form.x, values=form.value, sort=False)
    values = grid.to_numpy(dtype=float)
    figure = Figure(figsize=(COLUMN, COLUMN), layout="constrained")
    ax = figure.add_subplot()
    ax.grid(visible=False)
    # cividis is read alike with any colour vision. A gain below 0 is no gain: in all pictures, the darkest colour is 0.
    low, high = 0.0, max(0.0, float(np.nanmax(values)))
    image = ax.imshow(values, cmap="cividis", vmin=low, vmax=high, aspect="equal")
    figure.colorbar(image, ax=ax, label=form.title, shrink=0.8, extend="min" if np.nanmin(values) < 0 else "neither")
    ax.set_xlabel(form.x)
    ax.set_ylabel(form.y)
    for axis, names in ((ax.xaxis, grid.columns), (ax.yaxis, grid.index)):
        if len(names) <= _MOST_NAMES:
            axis.set_ticks(range(len(names)), [_short(str(name)) for name in names])
        else:
            axis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        axis.set_tick_params(length=0)
    if max(values.shape) <= _MOST_VALUES:
        for (row, column), value in np.ndenumerate(values):
            if np.isfinite(value):
                colour = "white" if value < (low + high) / 2 else "black"
                ax.text(column, row, f"{value:.2f}", ha="center", va="center", size=5, color=colour)
    return figure


def _lines(form: Lines, table: pd.DataFrame) -> Figure:
    figure = Figure(figsize=(COLUMN, 2.6), layout="constrained")
    ax = figure.add_subplot()
    ax.set_xlabel(form.x.replace("_", " "))
    ax.set_ylabel(form.title)
    # Gains and shares alike are read against nought.
    ax.axhline(0, color="0.6", linewidth=0.6)
    places = {value: place for place, value in enumerate(dict.fromkeys(table[form.x]))}
    groups = [("", table)] if not form.by else [(str(name), part) for name, part in table.groupby(form.by, sort=False)]
    # Users have no order that a line could follow.
    ordered = pd.api.types.is_numeric_dtype(table[form.x])
    if ordered and len(table) > len(table.drop_duplicates([form.x, *filter(None, [form.by])])):
        ax.set_xlabel(f"{form.x.replace('_', ' ')} (lines: means)")
    for place, (name, part) in enumerate(groups):
        look = look_of(place)
        label = f"{name} {form.by.replace('_', ' ')}" if name.isdecimal() else name
        means = part.groupby(form.x, sort=False)[form.value].mean()
        x = [places[value] for value in means.index]
        ax.plot(x, means.to_numpy(dtype=float), color=look.colour, linestyle=look.dashes, linewidth=1 if ordered else 0)
        dots = part.dropna(subset=[form.value])
        ax.scatter(
            [places[value] for value in dots[form.x]],
            dots[form.value].to_numpy(dtype=float),
            # Open, and each larger than the one before: where several fall together, all are seen.
            s=10 + 8 * (place % len(COLOURS)),
            facecolors="none",
            edgecolors=look.colour,
            marker=look.marker,
            linewidths=0.9,
            label=label,
        )
    if len(places) <= _MOST_NAMES:
        ax.set_xticks(list(places.values()), [_short(str(value)) for value in places])
    if form.by:
        draw_legend(figure, *ax.get_legend_handles_labels())
    return figure


def _short(name: str) -> str:
    """Return a user's number for its name, which an axis that says "user" need not repeat.

    >>> _short("user-0012"), _short("8")
    ('12', '8')
    """
    return str(int(name.removeprefix("user-"))) if name.startswith("user-") else name
