"""Receiver operating characteristics, drawn from plain data."""

from collections.abc import Mapping

from matplotlib.ticker import PercentFormatter
from numpy.typing import ArrayLike

from sim.report.figures.style import COLUMN, Target, draw_legend, look_of, new_figure


def draw_roc(to: Target, lines: Mapping[str, tuple[ArrayLike, ArrayLike]]) -> None:
    """Draw the share of alarms against that of false alarms, a line each, with chance as the diagonal.

    Args:
        to: see :data:`Target`.
        lines: at least one; by label, the shares of false and of true alarms, in [0, 1], both rising from 0 to 1.
    """
    with new_figure(to, COLUMN, 3.0) as figure:
        ax = figure.add_subplot(xlabel="false alarms, of checks", ylabel="alarms, of checks of the hijacked")
        ax.grid(visible=True)
        ax.plot([0, 1], [0, 1], color="0.6", linewidth=0.6)
        for number, (label, (false_alarms, alarms)) in enumerate(lines.items()):
            look = look_of(number)
            # Not clipped: a perfect score lies on the axes.
            ax.plot(
                false_alarms,
                alarms,
                label=label,
                color=look.colour,
                linestyle=look.dashes,
                linewidth=1.2,
                clip_on=False,
            )
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(PercentFormatter(1))
        ax.set(xlim=(0, 1), ylim=(0, 1))
        draw_legend(figure)
