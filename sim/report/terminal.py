"""A summary on a terminal: nothing of it is cut, and a table that is too wide is told in several."""

from collections.abc import Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import Heading, Markdown, TableElement
from rich.text import Text

_GAPS = (2, 1)
"""Blanks between columns: fewer where all of them then stand beside each other."""


def print_summary(console: Console, summary: str) -> None:
    """Print a summary in Markdown: to a terminal as wide as it is, elsewhere as it was written."""
    if console.is_terminal:
        console.print(_Summary(summary))
    else:
        console.print(summary.strip(), soft_wrap=True, markup=False)


class _Heading(Heading):
    """A heading that begins where the text does."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self.text


class _Table(TableElement):
    """A table without rules; columns that there is no room for follow below, behind the first one once more."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self.header is None or self.header.row is None or self.body is None:
            return
        rows = [[cell.content for cell in row.cells] for row in (self.header.row, *self.body.rows)]
        widths = [max(cell.cell_len for cell in column) for column in zip(*rows, strict=True)]
        gap = next((gap for gap in _GAPS if sum(widths) + gap * (len(widths) - 1) <= options.max_width), _GAPS[0])
        for number, columns in enumerate(groups_of_columns(widths, options.max_width, gap)):
            if number:
                yield Text()
            for row in rows:
                line = Text(" " * gap).join(_padded(row[column], widths[column]) for column in columns)
                line.rstrip()
                line.stylize("bold" if row is rows[0] else "")
                yield line


class _Summary(Markdown):
    elements = Markdown.elements | {"heading_open": _Heading, "table_open": _Table}


def groups_of_columns(widths: Sequence[int], room: int, gap: int) -> list[list[int]]:
    """Return which columns stand beside each other, the first in every group; one that is too wide has its own.

    >>> groups_of_columns([6, 3, 3, 9], room=20, gap=2)
    [[0, 1, 2], [0, 3]]
    """
    groups: list[list[int]] = []
    left = 0
    for column, width in enumerate(widths[1:], 1):
        left -= gap + width
        if left < 0 or not groups:
            groups.append([0])
            left = room - widths[0] - gap - width
        groups[-1].append(column)
    return groups or [[0]]


def _padded(cell: Text, width: int) -> Text:
    padded = cell.copy()
    padded.pad_right(width - cell.cell_len)
    return padded
