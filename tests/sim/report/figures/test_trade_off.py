import itertools
import math
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from sim.report.figures.style import PNG_DPI
from sim.report.figures.trade_off import TradeOff, draw_trade_off
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
    texts = [text for text in ax.texts if not text.get_text().startswith("goal")]
    labels = [text.get_text() for text in texts]
    assert sorted(labels) == ["plain", *(f"user {user}" for user in range(6)), "user 6 and 1 more"]
    boxes = [text.get_window_extent() for text in texts]
    marks = [ax.transData.transform((point.gain, point.accuracy)) for point in (*close, *touching)]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    assert not any(box.contains(*mark) for box in boxes for mark in marks)


def test_the_corner_that_is_the_goal_is_named_inside_the_picture_above_all_marks(
    tmp_path: Path, drawn: dict[str, Figure]
) -> None:
    points = [TradeOff(f"user {n}", 10.0 - n, n / 9, "relu1_2", 1.0) for n in range(9)]
    draw_trade_off(tmp_path / "t", points, (2, 0.05))
    figure = drawn["t"]
    figure.draw_without_rendering()
    ax = figure.axes[0]
    (goal,) = [text for text in ax.texts if text.get_text() == "goal: within 2 points and 0.05 SSIM"]
    name, room = Text.get_window_extent(goal), ax.get_window_extent()
    assert room.x0 < name.x0 and name.x1 < room.x1 and name.y1 < room.y1
    assert all(ax.transData.transform((point.gain, point.accuracy))[1] + radius(1.0) < name.y0 for point in points)
    others = [Text.get_window_extent(text) for text in ax.texts if text is not goal]
    assert len(others) == 9 and not any(name.overlaps(label) for label in others)


def test_a_line_goes_along_the_protections_that_none_is_better_than(tmp_path: Path, drawn: dict[str, Figure]) -> None:
    best, worse = [(0.0, -5.0), (0.1, -1.0), (0.3, 0.0)], [(0.2, -2.0), (0.1, -4.0)]
    draw_trade_off(
        tmp_path / "t", [TradeOff("user", accuracy, gain, "a") for gain, accuracy in worse + best], (2, 0.05)
    )
    (line,) = [line for line in drawn["t"].axes[0].lines if line.get_drawstyle() == "steps-post"]
    assert [tuple(corner) for corner in line.get_xydata()][1:-1] == best


def radius(exposed: float) -> float:
    """In pixels."""
    return math.sqrt(12 + 98 * exposed) / 2 / 72 * PNG_DPI


def areas_in(figure: Figure) -> list[float]:
    """The areas of the marks of one group, from left to right."""
    marks = figure.axes[0].collections[0]
    places = [float(x) for x, _ in marks.get_offsets().tolist()]
    return [area for _, area in sorted(zip(places, marks.get_sizes().tolist(), strict=True))]


def test_the_area_of_a_mark_grows_with_the_share_of_images_that_are_exposed(
    tmp_path: Path, drawn: dict[str, Figure]
) -> None:
    points = [TradeOff("", 0, place, "relu1_2", share) for place, share in enumerate((0.0, 0.25, 0.5, 1.0, math.nan))]
    draw_trade_off(tmp_path / "t", points, (2, 0.05))
    none, quarter, half, whole, unknown = areas_in(drawn["t"])
    assert (quarter - none) * 4 == (half - none) * 2 == whole - none > 5 * none
    assert unknown == none
    (sizes,) = drawn["t"].legends[1:]
    assert [text.get_text() for text in sizes.get_texts()] == ["1%", "50%", "100% of the images given away"]


def test_where_no_share_is_known_no_legend_speaks_of_sizes(tmp_path: Path, drawn: dict[str, Figure]) -> None:
    draw_trade_off(tmp_path / "t", [TradeOff("user 0", -1, 0.1, "relu1_2")], (2, 0.05))
    assert [[text.get_text() for text in legend.get_texts()] for legend in drawn["t"].legends] == [["relu1_2"]]
