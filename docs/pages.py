"""What the scripts that write pages from run folders share."""

from collections.abc import Callable, Mapping
from pathlib import Path


def fill(page: Path, blocks: Mapping[str, Callable[[], str]]) -> None:
    """Replace what stands between ``<!-- begin NAME -->`` and ``<!-- end NAME -->`` of a page, for every name in it.

    Args:
        page: a Markdown file.
        blocks: by name, what writes a block; those that the page has no place for are left out.
    """
    text = page.read_text()
    for name, write in blocks.items():
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        if begin in text:
            text = f"{text.partition(begin)[0]}{begin}\n{write()}\n{end}{text.partition(end)[2]}"
    page.write_text(text)
