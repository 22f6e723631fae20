import itertools
import math
import time
from pathlib import Path

import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from roles.evaluator.measures import PSNR_CAP
from sim.report.figures.boxes import Box, draw_psnr_boxes
from tests.sim.report.figures.drawings import assert_drawn


@pytest.fixture
def boxed(monkeypatch: pytest.MonkeyPatch) -> list[list[float]]:
    """The values of each box, in the order of drawing."""
    values: list[list[float]] = []
    monkeypatch.setattr(Axes, "boxplot", lambda ax, of_box, **style: values.append(of_box.tolist()))
    return values


def whiskers(values: torch.Tensor, folder: Path) -> tuple[float, float]:
    """Where the whiskers of the one box that is drawn of these values end."""
    found: list[dict[str, float]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Axes, "bxp", lambda ax, stats, **style: found.extend(stats))
        draw_psnr_boxes(folder / "psnr", [Box("user 0", values, "protected")])
    (box,) = found
    return box["whislo"], box["whishi"]


def test_whiskers_end_at_the_extreme_values_within_one_and_a_half_interquartile_ranges(tmp_path: Path) -> None:
    # Q1 = 3, Q3 = 7: the range is [-3, 13], so -4 and 30 are outliers.
    values = torch.tensor([30.0, 8.0, 3.0, -4.0, 5.0, 4.0, 7.0, 6.0, 3.0])
    assert whiskers(values, tmp_path) == (3.0, 8.0)


def test_a_value_on_the_edge_of_the_range_is_no_outlier(tmp_path: Path) -> None:
    # Q1 = 2, Q3 = 4: the range is [-1, 7].
    assert whiskers(torch.tensor([-1.0, 2.0, 3.0, 4.0, 7.0]), tmp_path) == (-1.0, 7.0)


def test_a_whisker_never_ends_inside_the_box(tmp_path: Path) -> None:
    # Q3 = 0 + 0.25 * 40 lies between two values, the larger of which is out of range; Q1 = 0.
    assert whiskers(torch.tensor([0.0, 0.0, 0.0, 40.0]), tmp_path) == (0.0, 10.0)


def test_whiskers_of_one_value_are_that_value(tmp_path: Path) -> None:
    assert whiskers(torch.tensor([6.5]), tmp_path) == (6.5, 6.5)


@pytest.mark.parametrize("users", [1, 3])
def test_boxes_are_written_as_png_and_pdf(tmp_path: Path, users: int) -> None:
    groups = ("protected", "ITN paper")
    boxes = [Box(f"user {user}", torch.arange(9.0), group) for user in range(users) for group in groups]
    draw_psnr_boxes(tmp_path / "psnr", boxes)
    assert_drawn(tmp_path / "psnr")


def test_the_boxes_of_a_thousand_users_are_drawn_in_seconds(tmp_path: Path) -> None:
    boxes = [Box(f"user {user}", torch.arange(50.0) + user / 100, "protected") for user in range(1000)]
    start = time.perf_counter()
    draw_psnr_boxes(tmp_path / "psnr", boxes)
    assert time.perf_counter() - start < 10
    assert_drawn(tmp_path / "psnr")


def test_of_many_users_the_box_is_that_of_their_medians(tmp_path: Path, boxed: list[list[float]]) -> None:
    draw_psnr_boxes(tmp_path / "psnr", [Box(str(u), torch.tensor([0.0, u, 100.0]), "protected") for u in range(25)])
    assert boxed == [[float(user) for user in range(25)]]


@pytest.mark.parametrize("exact", [PSNR_CAP, math.inf])
def test_boxes_leave_out_nan_and_count_exactly_recovered_images_as_the_best(
    tmp_path: Path, boxed: list[list[float]], drawn: dict[str, Figure], exact: float
) -> None:
    values = torch.tensor([5.0, math.nan, exact, 9.0])
    draw_psnr_boxes(tmp_path / "psnr", [Box("a", values, "ITN"), Box("b", torch.tensor([math.nan]), "ITN")])
    assert boxed == [[5.0, 9.0, 9.0]]
    assert words_in(drawn["psnr"]) == ["partly exact"]


def test_where_every_image_is_recovered_exactly_it_says_so_in_place_of_a_box(
    tmp_path: Path, boxed: list[list[float]], drawn: dict[str, Figure]
) -> None:
    boxes = [Box("a", torch.full((3,), PSNR_CAP), "known pairs"), Box("a", torch.arange(3.0), "ITN")]
    draw_psnr_boxes(tmp_path / "psnr", boxes)
    assert boxed == [[0.0, 1.0, 2.0]]
    assert words_in(drawn["psnr"]) == ["known pairs: exact"]


def words_in(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def test_the_trivial_guess_of_all_users_is_one_band_from_quartile_to_quartile_named_where_it_stands(
    tmp_path: Path, boxed: list[list[float]], drawn: dict[str, Figure]
) -> None:
    guess = torch.tensor([10.0, 11.0, 12.0, 13.0, 14.0])
    groups = {"protected": guess - 5, "class-mean baseline": guess}
    draw_psnr_boxes(tmp_path / "psnr", [Box(f"user {u}", v, g) for u in range(3) for g, v in groups.items()])
    (ax,) = drawn["psnr"].axes
    assert boxed == [[5.0, 6.0, 7.0, 8.0, 9.0]] * 3
    (band,) = [patch for patch in ax.patches if isinstance(patch, Rectangle)]
    assert (band.get_x(), band.get_x() + band.get_width()) == (11.0, 13.0)
    assert [12.0, 12.0] in [list(line.get_xdata()) for line in ax.lines]
    assert words_in(drawn["psnr"]) == ["trivial guess: class mean"]
    assert [text.get_text() for text in drawn["psnr"].legends[0].get_texts()] == ["protected"]


def test_of_many_users_the_guess_is_a_line_at_its_median(tmp_path: Path, drawn: dict[str, Figure]) -> None:
    boxes = [Box(str(user), torch.arange(5.0), group) for user in range(25) for group in ("p", "mean-image baseline")]
    draw_psnr_boxes(tmp_path / "psnr", boxes)
    (ax,) = drawn["psnr"].axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["p"]
    assert not [patch for patch in ax.patches if isinstance(patch, Rectangle)]
    assert [2.0, 2.0] in [list(line.get_xdata()) for line in ax.lines]
    assert words_in(drawn["psnr"]) == ["trivial guess: mean image"]


def test_users_are_down_the_side_of_a_picture_of_one_column_that_is_as_high_as_they_need(
    tmp_path: Path, drawn: dict[str, Figure]
) -> None:
    for users in (2, 24):
        labels = [f"user {user}: pixel, key per_image, shuffle" for user in range(users)]
        draw_psnr_boxes(tmp_path / str(users), [Box(label, torch.arange(9.0), g) for label in labels for g in "ab"])
    few, many = drawn["2"], drawn["24"]
    assert few.get_figwidth() == many.get_figwidth() == 3.5
    assert many.get_figheight() > few.get_figheight() + 4
    for figure in (few, many):
        figure.draw_without_rendering()
        boxes = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
        assert not any(below.overlaps(above) for above, below in itertools.pairwise(boxes))
        assert all(below.y1 < above.y0 for above, below in itertools.pairwise(boxes))  # the first user is on top
        assert figure.axes[0].get_window_extent().width > 1.5 * figure.dpi


@pytest.mark.parametrize("boxes", [[], [Box("user 0", torch.empty(0), "protected")]])
def test_boxes_without_values_give_an_empty_figure(tmp_path: Path, boxes: list[Box]) -> None:
    draw_psnr_boxes(tmp_path / "psnr", boxes)
    assert_drawn(tmp_path / "psnr")
