"""Accuracy against alpha, as in Table I, drawn from plain data."""

import math
from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator, PercentFormatter

from sim.report.figures.style import COLUMN, End, Look, Target, label_ends, look_of, new_figure, wrap

Line = Sequence[tuple[float, float]]
"""Pairs of alpha and accuracy in percent."""
_MARK = 14
"""Area of a mark, in square points."""
_LABEL = 14
"""Letters in a line of a label."""
_TICK = 0.36
"""Width that the label of an alpha takes, in inches."""


def draw_accuracy(to: Target, panels: Mapping[str, Mapping[str, Line]], plain: float) -> None:
    """Draw accuracy in percent against alpha, a small diagram a layer of phi, with that on plain images.

    Lines are labelled where they end; those of one label look alike in all diagrams, which have their axes in common.

    Args:
        to: see :data:`Target`.
        panels: at least one; by layer and label, pairs of alpha and accuracy. Of several users at one alpha, each has a
            mark and the line goes through their mean. alpha 0 is left out: the axis is logarithmic.
        plain: accuracy on plain images, in percent.
    """
    columns = min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    labels = list(dict.fromkeys(label for lines in panels.values() for label in lines))
    written = max((sum(1 + wrap(label, _LABEL).count("\n") for label in lines) for lines in panels.values()), default=0)
    with new_figure(to, COLUMN, 0.2 + rows * max(1.8 if columns > 1 else 2.3, 0.5 + 0.11 * written)) as figure:
        ends: list[End] = []
        first: Axes | None = None
        for number, (layer, lines) in enumerate(panels.items()):
            ax = figure.add_subplot(rows, columns, number + 1, sharex=first, sharey=first)
            ax.set_title(layer, loc="left")
            ax.set(xlabel="alpha", xscale="log", ylabel="" if number % columns else "accuracy")
            ax.tick_params(labelleft=number % columns == 0)
            ax.yaxis.set_major_formatter(PercentFormatter(decimals=0))
            ax.axhline(plain, color="0.4", linewidth=0.8, linestyle=(0, (1, 1)))
            ends.append(End(ax, math.nan, plain, f"plain {plain:.1f}%", "0.3"))
            ends += [_draw_line(ax, label, line, look_of(labels.index(label))) for label, line in lines.items() if line]
            first = first or ax
        alphas = sorted({a for lines in panels.values() for line in lines.values() for a, _ in line if a > 0})
        for ax in figure.axes:
            _label_alphas(ax, alphas, COLUMN / columns - 1)
        label_ends(figure, [end for end in ends if end.text])


def _draw_line(ax: Axes, label: str, line: Line, look: Look) -> End:
    """Draw a line and return where it ends; the label stays empty where nothing is drawn."""
    users = pd.DataFrame(line, columns=["alpha", "accuracy"]).query("alpha > 0")
    means = users.groupby("alpha")["accuracy"].mean()
    ax.plot(means, color=look.colour, linestyle=look.dashes, linewidth=1)
    ax.scatter(users["alpha"], users["accuracy"], s=_MARK, linewidths=0, color=look.colour, marker=look.marker)
    if means.empty:
        return End(ax, math.nan, math.nan, "", look.colour)
    return End(ax, float(means.index[-1]), float(means.iloc[-1]), wrap(label, _LABEL), look.colour)


def _label_alphas(ax: Axes, alphas: Sequence[float], width: float) -> None:
    """Mark every alpha, and name as many as there is room for on an axis of ``width`` inches."""
    apart = math.log10(alphas[-1] / alphas[0]) * _TICK / width if alphas else 0
    named: list[str] = []
    last = -math.inf
    for alpha in alphas:
        fits = math.log10(alpha) - last >= apart
        named.append(f"{alpha:g}" if fits else "")
        last = math.log10(alpha) if fits else last
    ax.set_xticks(alphas, named)
    ax.xaxis.set_minor_locator(NullLocator())
