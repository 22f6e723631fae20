"""What all figures have in common: sizes, colours, type, and how a figure is written.

Widths are those of a two-column A4 or letter page.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TextIO

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.figure import Figure

PNG_DPI = 200
# Only what is not vectors, images and crowds of lines, has this resolution in a PDF: a whole multiple of the PNG's, so
# that bitmaps enlarged to whole pixels in the one are so in the other.
_PDF_DPI = 400
COLUMN = 3.5
"""Width of a column, in inches."""
PAGE = 7.16
"""Width of the text, in inches."""
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
    # TrueType, since publishers refuse matplotlib's default Type 3 fonts.
    "pdf.fonttype": 42,
}
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
# Okabe and Ito's colours, told apart with any colour vision; a grey in place of their yellow, too pale for a line.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#888888")
_DASHES = ("-", "--", ":", "-.")
_HATCHES = ("", "//////", "......", "xxxxxx")
_LEGEND_COLUMNS = 8
"""At most."""
_LEGEND_HEIGHT = 0.5
"""Of a legend that a figure's height has room for, in inches."""

Target = Path | TextIO
"""Where a figure goes: a path, whose suffix, if any, is replaced by ``.png`` and ``.pdf``, or a stream for SVG."""


@dataclass(frozen=True)
class Look:
    """What tells one of several series from the others, as marks, as a line or as boxes."""

    colour: str
    marker: str
    dashes: str
    hatch: str


def look_of(index: int) -> Look:
    """Return how the ``index``-th series of a figure looks; 32 in a row differ as lines and as boxes, 64 as marks.

    Up to 8 differ in colour. Further ones have the same colours again, with other markers, dashes and hatches.

    >>> look_of(0)
    Look(colour='#0072B2', marker='o', dashes='-', hatch='')
    >>> look_of(8)
    Look(colour='#0072B2', marker='s', dashes='--', hatch='//////')
    """
    turn, place = divmod(index, len(COLOURS))
    return Look(
        colour=COLOURS[place],
        marker=MARKERS[(place + turn) % len(MARKERS)],
        dashes=_DASHES[turn % len(_DASHES)],
        hatch=_HATCHES[turn % len(_HATCHES)],
    )


def draw_legend(figure: Figure, handles: Sequence[Artist], labels: Sequence[str]) -> None:
    """Write a legend above all diagrams, in as many columns as there is room for.

    Where it is high, the figure grows, so that its diagrams do not shrink.
    """
    for columns in range(min(len(labels), _LEGEND_COLUMNS), 0, -1):
        legend = figure.legend(handles, labels, loc="outside upper center", ncols=columns)
        box = legend.get_window_extent()
        if box.width <= figure.bbox.width or columns == 1:
            figure.set_figheight(figure.get_figheight() + max(0, box.height / figure.dpi - _LEGEND_HEIGHT))
            return
        legend.remove()


def save_figure(figure: Figure, to: Target) -> None:
    """Write a figure as ``.png`` and ``.pdf`` side by side, both or neither, or as SVG into a stream."""
    if not isinstance(to, Path):
        # Without a date and with ids that chance has no part in, the same data give the same text.
        with mpl.rc_context({"svg.hashsalt": "veilsim"}):
            figure.savefig(to, format="svg", dpi=PNG_DPI, metadata={"Date": None})
        return
    to.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".partial-", dir=to.parent) as folder:
        finished = [to.with_suffix(".png"), to.with_suffix(".pdf")]
        partial = [Path(folder) / file.name for file in finished]
        figure.savefig(partial[0], dpi=PNG_DPI)
        # Without a date the same data give the same file.
        figure.savefig(partial[1], dpi=_PDF_DPI, metadata={"CreationDate": None})
        for source, target in zip(partial, finished, strict=True):
            Path.replace(source, target)
