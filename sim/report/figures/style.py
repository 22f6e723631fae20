"""What all figures have in common: sizes, colours, type, the legend, and how a figure is written.

Figures are made with matplotlib's objects, without pyplot: they need no display and leave no state behind.
"""

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from scipy.optimize import isotonic_regression

from roles.common.files import replacing

PNG_DPI = 200
# Only what is not vectors, images and crowds of lines, has this resolution in a PDF: a whole multiple of the PNG's, so
# that bitmaps enlarged to whole pixels in the one are so in the other.
_PDF_DPI = 400
COLUMN, PAGE = 3.5, 7.16
"""Widths of a column and of the text of a two-column A4 or letter page, in inches."""
# Any: matplotlib types the keys as literals, which a dictionary's own type cannot follow.
STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "hatch.linewidth": 0.5,
    "image.composite_image": False,  # joined, images would not stand at their exact places
    "pdf.fonttype": 42,  # TrueType, since publishers refuse matplotlib's default Type 3 fonts
    "svg.hashsalt": "veilsim",  # with ids that chance has no part in, the same data give the same text
}
# Okabe and Ito's colours, told apart with any colour vision; a grey in place of their yellow, too pale for a line.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#888888")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
# Five, which has no factor in common with eight: neighbours differ without colour as well, and pairs last for forty.
_DASHES = ("-", "--", ":", "-.", (0, (6, 1.5, 1, 1.5, 1, 1.5)))
_HATCHES = ("", "//////", "......", "xxxxxx", "------")
_BESIDE = 1.06  # where labels beside a diagram begin, of its width
_LEGEND_COLUMNS = 8  # at most
_LEGEND_HEIGHT = 0.5  # of a legend that a figure's height has room for, in inches

Target = Path | TextIO
"""Where a figure goes: a path, whose suffix, if any, is replaced by ``.png`` and ``.pdf``, or a stream for SVG."""


class Look(NamedTuple):
    """What tells one of several series from the others, as marks, as a line or as boxes."""

    colour: str
    marker: str
    dashes: Any
    """A line style of matplotlib: a name, or an offset and the lengths of strokes and gaps."""
    hatch: str


def look_of(index: int) -> Look:
    """Return how the ``index``-th series of a figure looks; 40 in a row differ as lines and as boxes, 64 as marks.

    In grey as well, five in a row differ as lines and as boxes, and eight as marks.

    >>> look_of(0)
    Look(colour='#0072B2', marker='o', dashes='-', hatch='')
    >>> look_of(8)
    Look(colour='#0072B2', marker='s', dashes='-.', hatch='xxxxxx')
    """
    turn, place = divmod(index, 8)
    return Look(_COLOURS[place], _MARKERS[(place + turn) % 8], _DASHES[index % 5], _HATCHES[index % 5])


def pale(colour: str) -> tuple[float, ...]:
    """Return what surfaces are filled with that have ``colour`` for an edge."""
    return tuple(0.45 * part + 0.55 for part in to_rgb(colour))


@contextmanager
def new_figure(to: Target, width: float, height: float) -> Iterator[Figure]:
    """Give a figure of ``width`` x ``height`` inches to draw on, and write it once it is drawn."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), dpi=PNG_DPI, layout="constrained")
        yield figure
        save_figure(figure, to)


def draw_legend(figure: Figure) -> None:
    """Write what the first diagram labels above all diagrams, in as many columns as there is room for.

    Where it is high, the figure grows, so that its diagrams do not shrink.
    """
    handles, labels = figure.axes[0].get_legend_handles_labels()
    for columns in range(min(len(labels), _LEGEND_COLUMNS), 0, -1):
        legend = figure.legend(handles, labels, loc="outside upper center", ncols=columns)
        box = legend.get_window_extent()
        if box.width <= figure.bbox.width or columns == 1:
            figure.set_figheight(figure.get_figheight() + max(0, box.height / figure.dpi - _LEGEND_HEIGHT))
            return
        legend.remove()


class End(NamedTuple):
    """A label that belongs to a point of a diagram, mostly where a line ends."""

    ax: Axes
    x: float
    """In the diagram's data, as ``y``; NaN for its right edge."""
    y: float
    text: str
    colour: str
    """Of the fine line that joins them: a text in the colour of its line might be too pale to be read in print."""


def label_ends(figure: Figure, ends: Sequence[End]) -> None:
    """Write labels to the right of their diagrams, moved up or down so that none covers another.

    A fine line joins each with its point.
    """
    notes = [_note(end) for end in ends]
    figure.draw_without_rendering()  # pixels are known once the layout is
    for ax in dict.fromkeys(end.ax for end in ends):
        own = sorted((note for note in notes if note.axes is ax), key=lambda note: note.xy[1])
        heights = np.array([Text.get_window_extent(note).height + 1 for note in own])
        to_pixels, room = ax.get_yaxis_transform(), ax.get_window_extent()
        # Middles, less what those below need: these may fall together, but may not change their order.
        below = np.cumsum(heights) - heights / 2
        wanted = np.array([to_pixels.transform((1, note.xy[1]))[1] for note in own]) - below
        fitted = isotonic_regression(wanted).x.clip(room.y0, max(room.y0, room.y1 - heights.sum())) + below
        for note, pixel in zip(own, fitted, strict=True):
            note.set_position((_BESIDE, to_pixels.inverted().transform((0, pixel))[1]))


def _note(end: End) -> Annotation:
    edge = end.ax.get_yaxis_transform()
    line = {"arrowstyle": "-", "linewidth": 0.4, "color": end.colour, "shrinkA": 1, "shrinkB": 2}
    return end.ax.annotate(
        end.text,
        (1, end.y) if np.isnan(end.x) else (end.x, end.y),
        (_BESIDE, end.y),
        xycoords=edge if np.isnan(end.x) else "data",
        textcoords=edge,
        va="center",
        size=6,
        color="0.2",
        arrowprops=line,
        annotation_clip=False,
    )


def save_figure(figure: Figure, to: Target) -> None:
    """Write a figure as ``.png`` and ``.pdf``, both or neither, or as SVG; without a date, so that files compare."""
    if not isinstance(to, Path):
        figure.savefig(to, format="svg", metadata={"Date": None})
        return
    with replacing(to.with_suffix(".png")) as png, replacing(to.with_suffix(".pdf")) as pdf:
        figure.savefig(png, format="png")
        figure.savefig(pdf, format="pdf", dpi=_PDF_DPI, metadata={"CreationDate": None})


def say_no_data(ax: Axes) -> None:
    """Say in place of a diagram that there is nothing to show."""
    ax.set(xticks=[], yticks=[])
    ax.text(0.5, 0.5, "no data", transform=ax.transAxes, ha="center", va="center", color="0.5")


def wrap(label: str, width: int) -> str:
    """Break a label into lines of at most ``width`` letters, but not at an equals sign."""
    return textwrap.fill(label.replace(" = ", "\u00a0=\u00a0"), width)
