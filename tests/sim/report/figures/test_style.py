"""What all figures have in common."""

import io
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure

from sim.report.figures.boxes import Box, draw_psnr_boxes
from sim.report.figures.curves import Panel, draw_learning_curves
from sim.report.figures.style import look_of
from sim.report.figures.trade_off import TradeOff, draw_accuracy, draw_trade_off
from tests.sim.report.figures.drawings import assert_drawn, rows_of


def test_series_look_different_beyond_the_number_of_colours() -> None:
    looks = [look_of(index) for index in range(64)]
    assert len({look.colour for look in looks}) == 8
    assert len({(look.colour, look.marker) for look in looks}) == 64
    for aspect in ("dashes", "hatch"):
        assert len({(look.colour, getattr(look, aspect)) for look in looks[:32]}) == 32


@pytest.mark.parametrize("count", [9, 40])
def test_more_groups_and_lines_than_colours_are_drawn_below_a_legend_of_all_of_them(
    tmp_path: Path, drawn: dict[str, Figure], count: int
) -> None:
    names = [f"relu2_2, width {number}" for number in range(count)]
    draw_psnr_boxes(tmp_path / "psnr", [Box("user 0", torch.arange(9.0), name) for name in names])
    draw_trade_off(tmp_path / "trade-off", [TradeOff("", -n, n / 99, name) for n, name in enumerate(names)], (2, 0.05))
    draw_accuracy(tmp_path / "accuracy", {name: [(0.1, 40.0 + n), (0.2, 30.0)] for n, name in enumerate(names)}, 86.0)
    for name, beside in (("psnr", []), ("trade-off", ["within 2 points and 0.05 SSIM"]), ("accuracy", ["plain"])):
        figure = drawn[name]
        figure.draw_without_rendering()
        (legend,), (ax,) = figure.legends, figure.axes
        assert sorted(text.get_text() for text in legend.get_texts()) == sorted([*names, *beside])
        box = legend.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= figure.bbox.width and box.y1 <= figure.bbox.height
        assert not box.overlaps(ax.get_window_extent())
        assert ax.get_window_extent().height > figure.dpi  # an inch


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
