"""docs/tools/pages.py: scripts write into their own blocks of a page and nowhere else."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

TEXT = "by hand\n<!-- begin a -->\nold\n<!-- end a -->\nby hand as well\n<!-- begin b -->\nkept\n<!-- end b -->\n"


def test_a_block_is_replaced_and_all_around_it_stays(tool: Callable[[str], ModuleType], tmp_path: Path) -> None:
    page = tmp_path / "PAGE.md"
    page.write_text(TEXT)
    assert tool("pages").fill(page, {"a": lambda: "new"}) == []
    assert page.read_text() == TEXT.replace("old", "new")


def test_a_block_that_the_page_has_no_place_for_is_named_and_not_written(
    tool: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    def never() -> str:
        raise AssertionError("a block that is not on the page is not worth its time")

    page = tmp_path / "PAGE.md"
    page.write_text(TEXT)
    assert tool("pages").fill(page, {"c": never}) == ["c"]
    assert page.read_text() == TEXT
