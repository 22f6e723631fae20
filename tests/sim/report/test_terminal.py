"""A summary where it is read first."""

import io

import pytest
from rich.console import Console

from sim.report.terminal import print_summary

SUMMARY = """# Nobody is protected: an attack recovers the images of all 4 users.

4 users, psi resnet20.

|  | images | acc. | protected PSNR | protected SSIM | ITN strong PSNR | ITN strong SSIM | verdict |
|--------|----------|--------|-------------|--------------|----------------|-----------|---|
| user 0 | 324 | 76.1 | 6.2 | 0.07 | 29.9 | 0.83 | recovered |
| control-blur | - | 79.7 | 20.2 | 0.68 | 33.4 | 0.85 | visible |

- a finding
"""


def printed(summary: str, width: int, *, terminal: bool) -> list[str]:
    file = io.StringIO()
    print_summary(Console(file=file, width=width, force_terminal=terminal, color_system=None), summary)
    return file.getvalue().splitlines()


def test_elsewhere_than_in_a_terminal_it_is_printed_as_it_was_written() -> None:
    assert printed(SUMMARY, 40, terminal=False) == SUMMARY.strip().splitlines()


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_in_a_terminal_every_cell_is_whole_and_no_line_too_long(width: int) -> None:
    lines = printed(SUMMARY, width, terminal=True)
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    rows = [row for row in SUMMARY.splitlines() if row.startswith("|") and "---" not in row]
    for cell in (cell.strip() for row in rows for cell in row.strip("|").split("|")):
        assert cell in text
    assert not set("┏━┃│─┐") & set(text)


def test_columns_for_which_there_is_no_room_follow_below_with_the_names_of_the_rows() -> None:
    lines = [line.rstrip() for line in printed(SUMMARY, 80, terminal=True)]
    first = lines.index("              images  acc.  protected PSNR  protected SSIM  ITN strong PSNR")
    assert lines[first : first + 7] == [
        "              images  acc.  protected PSNR  protected SSIM  ITN strong PSNR",
        "user 0        324     76.1  6.2             0.07            29.9",
        "control-blur  -       79.7  20.2            0.68            33.4",
        "",
        "              ITN strong SSIM  verdict",
        "user 0        0.83             recovered",
        "control-blur  0.85             visible",
    ]


@pytest.mark.parametrize(("width", "gap"), [(120, "  "), (103, "  "), (102, " "), (96, " ")])
def test_where_there_is_room_a_table_is_one_with_columns_nearer_to_each_other_if_need_be(width: int, gap: str) -> None:
    lines = printed(SUMMARY, width, terminal=True)
    (row,) = [line.rstrip() for line in lines if line.startswith("control-blur")]
    assert row.startswith(gap.join(["control-blur", "-     ", "79.7", "20.2          "]))
    assert row.endswith(gap.join(["0.85           ", "visible"]))


def test_the_headline_is_first_and_nothing_is_drawn_around_it() -> None:
    lines = [line.rstrip() for line in printed(SUMMARY, 80, terminal=True) if line.strip()]
    assert lines[0] == "Nobody is protected: an attack recovers the images of all 4 users."
