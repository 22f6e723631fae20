import math
import time
from pathlib import Path

import pytest
import torch
from matplotlib.axes import Axes

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
    # Q3 = 0 + 0.75 * 100 lies between two values, the larger of which is in range; Q1 = 0.
    assert whiskers(torch.tensor([0.0, 0.0, 0.0, 100.0]), tmp_path) == (0.0, 25.0)


def test_whiskers_of_one_value_are_that_value(tmp_path: Path) -> None:
    assert whiskers(torch.tensor([6.5]), tmp_path) == (6.5, 6.5)


@pytest.mark.parametrize("users", [1, 3])
def test_boxes_are_written_as_png_and_pdf(tmp_path: Path, users: int) -> None:
    groups = ("protected", "ITN (paper)")
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


def test_boxes_leave_out_nan_and_count_exactly_recovered_images_as_the_best(
    tmp_path: Path, boxed: list[list[float]]
) -> None:
    values = torch.tensor([5.0, math.nan, math.inf, 9.0])
    draw_psnr_boxes(tmp_path / "psnr", [Box("a", values, "ITN"), Box("b", torch.tensor([math.nan]), "ITN")])
    assert boxed == [[5.0, 9.0, 9.0]]


@pytest.mark.parametrize("boxes", [[], [Box("user 0", torch.empty(0), "protected")]])
def test_boxes_without_values_give_an_empty_figure(tmp_path: Path, boxes: list[Box]) -> None:
    draw_psnr_boxes(tmp_path / "psnr", boxes)
    assert_drawn(tmp_path / "psnr")
