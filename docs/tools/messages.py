"""Writes the table of MESSAGES.md from the docstring of sim/exchange/messages.py: ``python docs/tools/messages.py``."""

import re

from pages import DOCS, fill

from sim.exchange import messages

PAGE = DOCS / "MESSAGES.md"


def rows() -> list[list[str]]:
    """Return the table of messages, cell by cell, its header first.

    Raises:
        ValueError: the docstring holds no table, or more than one.
    """
    lines = (messages.__doc__ or "").splitlines()
    rules = [number for number, line in enumerate(lines) if line.startswith("===")]
    if len(rules) != 3:
        raise ValueError("sim/exchange/messages.py: its docstring must hold one table, which three lines of = frame")
    first, head, last = rules
    starts = [column.start() for column in re.finditer("=+", lines[first])]
    found: list[list[str]] = []
    for line in (*lines[first + 1 : head], *lines[head + 1 : last]):
        ends = [*starts[1:], None]
        cells = [line[start:end].strip().replace("``", "`") for start, end in zip(starts, ends, strict=True)]
        if cells[0]:
            found.append(cells)
        else:  # the row before goes on
            found[-1] = [f"{before} {more}".strip() for before, more in zip(found[-1], cells, strict=True)]
    return found


def table() -> str:
    """Return the table in Markdown."""
    header, *others = rows()
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *others))


def main() -> None:
    """Write the block ``messages`` of the page."""
    fill(PAGE, {"messages": table})


if __name__ == "__main__":
    main()
