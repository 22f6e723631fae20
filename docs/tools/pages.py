"""What the scripts that write into pages share."""

from collections.abc import Callable, Mapping
from pathlib import Path

DOCS = Path(__file__).parents[1]


def fill(page: Path, blocks: Mapping[str, Callable[[], str]]) -> list[str]:
    """Replace what stands between ``<!-- begin NAME -->`` and ``<!-- end NAME -->`` of a page, for every name in it.

    Args:
        page: a Markdown file.
        blocks: by name, what writes a block.

    Returns:
        the names of blocks that the page has no place for: they are left out.
    """
    text, left_out = page.read_text(), list[str]()
    for name, write in blocks.items():
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        if begin in text:
            text = f"{text.partition(begin)[0]}{begin}\n{write()}\n{end}{text.partition(end)[2]}"
        else:
            left_out.append(name)
    page.write_text(text)
    return left_out
