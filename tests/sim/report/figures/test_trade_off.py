import itertools
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from sim.report.figures.trade_off import TradeOff, draw_accuracy, draw_trade_off
from tests.sim.report.figures.drawings import assert_drawn


@pytest.mark.parametrize("users", [0, 1, 20, 40])
def test_a_trade_off_is_written_as_png_and_pdf(tmp_path: Path, users: int) -> None:
    points = [TradeOff(f"user {user}", -user, 0.01 * user, ("relu1_2", "pixel")[user % 2]) for user in range(users)]
    draw_trade_off(tmp_path / "trade-off", points, (2.0, 0.05))
    assert_drawn(tmp_path / "trade-off")


def test_labels_of_a_trade_off_cover_no_mark_and_no_other_label_and_marks_that_touch_share_one(
    tmp_path: Path, drawn: dict[str, Figure]
) -> None:
    close = [TradeOff(f"user {user}", -5 - user / 9, 0.2 + user / 100, "relu1_2") for user in range(6)]
    touching = [TradeOff(f"user {user}", 0, 0.1 + user / 1000, "relu1_2") for user in (6, 7)]
    of_another_group = TradeOff("plain", 0, 0.107, "plain")
    draw_trade_off(tmp_path / "t", [*close, *touching, of_another_group], (2, 0.05))
    figure = drawn["t"]
    figure.draw_without_rendering()
    ax = figure.axes[0]
    labels = [text.get_text() for text in ax.texts]
    assert sorted(labels) == ["plain", *(f"user {user}" for user in range(6)), "user 6 and 1 more"]
    boxes = [text.get_window_extent() for text in ax.texts]
    marks = [ax.transData.transform((point.gain, point.accuracy)) for point in (*close, *touching)]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    assert not any(box.contains(*mark) for box in boxes for mark in marks)


def test_accuracy_is_drawn_against_alpha_without_alpha_0(tmp_path: Path) -> None:
    lines = {"relu1_2": [(0.1, 40.0), (0.005, 85.0), (0.005, 84.0), (0.0, 86.0)], "relu2_2": []}
    draw_accuracy(tmp_path / "accuracy", lines, 86.0)
    assert_drawn(tmp_path / "accuracy")
