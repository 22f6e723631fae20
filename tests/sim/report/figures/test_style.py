"""What all figures have in common."""

import io
import itertools
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text

from sim.report.figures.boxes import Box, draw_psnr_boxes
from sim.report.figures.curves import Panel, draw_learning_curves
from sim.report.figures.style import COLUMN, End, label_ends, look_of, new_figure
from sim.report.figures.trade_off import TradeOff, draw_trade_off
from tests.sim.report.figures.drawings import assert_drawn, rows_of


def test_series_look_different_beyond_the_number_of_colours() -> None:
    looks = [look_of(index) for index in range(64)]
    assert len({look.colour for look in looks}) == 8
    assert len({(look.colour, look.marker) for look in looks}) == 64
    for aspect in ("dashes", "hatch"):
        assert len({(look.colour, getattr(look, aspect)) for look in looks[:40]}) == 40


def test_neighbouring_series_differ_without_colour() -> None:
    for first in range(60):
        looks = [look_of(index) for index in range(first, first + 5)]
        for aspect in ("marker", "dashes", "hatch"):
            assert len({getattr(look, aspect) for look in looks}) == 5


@pytest.mark.parametrize("count", [9, 40])
def test_more_groups_than_colours_are_drawn_below_a_legend_of_all_of_them(
    tmp_path: Path, drawn: dict[str, Figure], count: int
) -> None:
    names = [f"relu2_2, width {number}" for number in range(count)]
    draw_psnr_boxes(tmp_path / "psnr", [Box("user 0", torch.arange(9.0), name) for name in names])
    draw_trade_off(tmp_path / "trade-off", [TradeOff("", -n, n / 99, name) for n, name in enumerate(names)], (2, 0.05))
    for name, inches in (("psnr", 0.09 * count), ("trade-off", 1)):
        figure = drawn[name]
        figure.draw_without_rendering()
        (legend,), (ax,) = figure.legends, figure.axes
        assert sorted(text.get_text() for text in legend.get_texts()) == sorted(names)
        box = legend.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= figure.bbox.width and box.y1 <= figure.bbox.height
        assert not box.overlaps(ax.get_window_extent())
        assert ax.get_window_extent().height > inches * figure.dpi


def test_labels_at_the_ends_of_lines_cover_neither_each_other_nor_the_diagram(
    tmp_path: Path, drawn: dict[str, Figure]
) -> None:
    heights = [0.5, 0.5, 0.51, 0.9, 0.0]
    with new_figure(tmp_path / "ends", COLUMN, 2) as figure:
        ax = figure.add_subplot(ylim=(0, 1))
        label_ends(figure, [End(ax, 1.0, height, f"line {n}", "black") for n, height in enumerate(heights)])
    figure.draw_without_rendering()
    boxes = [Text.get_window_extent(note) for note in ax.texts]
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    room = ax.get_window_extent()
    assert all(box.x0 > room.x1 and box.x1 <= figure.bbox.width for box in boxes)
    assert all(box.y0 >= room.y0 - 1 and box.y1 <= room.y1 + 1 for box in boxes)
    middles = [box.y0 + box.y1 for box in boxes]
    assert sorted(range(5), key=lambda line: middles[line]) == sorted(range(5), key=lambda line: heights[line])


def test_a_failed_drawing_leaves_the_older_figure_and_no_partial_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_psnr_boxes(tmp_path / "psnr", [])
    before = (tmp_path / "psnr.png").read_bytes()

    def full_disk(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("matplotlib.backends.backend_pdf.FigureCanvasPdf.print_pdf", full_disk)
    with pytest.raises(OSError, match="disk full"):
        draw_psnr_boxes(tmp_path / "psnr", [Box("user 0", torch.arange(3.0), "protected")])
    assert (tmp_path / "psnr.png").read_bytes() == before
    assert_drawn(tmp_path / "psnr")


def test_the_same_data_give_the_same_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        draw_learning_curves(tmp_path / name, {"user 0": rows_of(0, 3)}, [Panel("loss", "loss")])
    for suffix in (".png", ".pdf"):
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_the_same_data_give_the_same_svg_without_a_date() -> None:
    texts = []
    for _ in range(2):
        stream = io.StringIO()
        draw_trade_off(stream, [TradeOff(f"user {n}", -n, n / 9, "relu1_2") for n in range(3)], (2.0, 0.05))
        texts.append(stream.getvalue())
    assert texts[0] == texts[1]
    assert "<svg" in texts[0] and "dc:date" not in texts[0]
