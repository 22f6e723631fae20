import itertools
import math
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.image import imread

from sim import figures, trade_off_figures
from sim.figures import (
    Box,
    Panel,
    StripRow,
    draw_learning_curves,
    draw_psnr_boxes,
    draw_strips,
    whiskers,
)
from sim.trade_off_figures import TradeOff, draw_accuracy, draw_trade_off


def assert_drawn(path: Path) -> None:
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    pdf = path.with_suffix(".pdf").read_bytes()
    assert pdf.startswith(b"%PDF") and pdf.rstrip().endswith(b"%%EOF")
    # Neither partial files nor folders of them.
    assert {file.name for file in path.parent.iterdir()} == {f"{path.stem}.png", f"{path.stem}.pdf"}


def noise(count: int, side: int = 8) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randint(256, (count, 3, side, side), generator=generator, dtype=torch.uint8)


def rows_of(user: int, epochs: int) -> list[dict[str, float]]:
    return [{"epoch": epoch, "loss": (1 + user) / (1 + epoch)} for epoch in range(epochs)]


def test_strips_are_written_as_png_and_pdf(tmp_path: Path) -> None:
    rows = [
        StripRow("Plain", noise(3), None),
        StripRow("Protected (alpha = 0.005)", noise(2, 16), ["5.86 dB", "5.42 dB"]),
    ]
    draw_strips(tmp_path / "strips", rows, "user 3")
    assert_drawn(tmp_path / "strips")


def test_every_pixel_of_a_strip_image_covers_equally_many_pixels_of_the_png(tmp_path: Path) -> None:
    image = noise(1)
    draw_strips(tmp_path / "strips.png", [StripRow("Plain", image, ["13.25 dB"])])
    picture = (imread(tmp_path / "strips.png")[..., :3] * 255).round().astype(np.uint8)
    expected = image[0].permute(1, 2, 0).numpy().repeat(20, axis=0).repeat(20, axis=1)
    windows = np.lib.stride_tricks.sliding_window_view(picture, expected.shape)[:, :, 0]
    # Compared at a few places first: all windows in full are hundreds of megabytes.
    corners = [(0, 0), (0, 159), (159, 0), (159, 159), (80, 19), (80, 20)]
    places = np.logical_and.reduce([(windows[:, :, y, x] == expected[y, x]).all(-1) for y, x in corners])
    assert [bool((windows[y, x] == expected).all()) for y, x in np.argwhere(places)] == [True]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "at least one row"),
        ([StripRow("Plain", noise(2), ["one"])], "'Plain': 1 captions for 2 images"),
        ([StripRow("Plain", noise(2).float(), None)], r"must be uint8 \(K, 3, H, W\), not torch.float32"),
    ],
)
def test_rows_that_make_no_strip_are_refused(tmp_path: Path, rows: list[StripRow], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw_strips(tmp_path / "strips", rows)
    assert list(tmp_path.iterdir()) == []


def test_whiskers_end_at_the_extreme_values_within_one_and_a_half_interquartile_ranges() -> None:
    # Q1 = 3, Q3 = 7: the range is [-3, 13], so -4 and 30 are outliers.
    assert whiskers(torch.tensor([30.0, 8.0, 3.0, -4.0, 5.0, 4.0, 7.0, 6.0, 3.0])) == (3.0, 8.0)


def test_a_value_on_the_edge_of_the_range_is_no_outlier() -> None:
    # Q1 = 2, Q3 = 4: the range is [-1, 7].
    assert whiskers(torch.tensor([-1.0, 2.0, 3.0, 4.0, 7.0])) == (-1.0, 7.0)


def test_a_whisker_never_ends_inside_the_box() -> None:
    # Q3 = 0 + 0.75 * 100 lies between two values, the larger of which is in range; Q1 = 0.
    assert whiskers(torch.tensor([0.0, 0.0, 0.0, 100.0])) == (0.0, 25.0)


def test_whiskers_of_one_value_are_that_value() -> None:
    assert whiskers(torch.tensor([6.5])) == (6.5, 6.5)


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


def test_of_many_users_the_box_is_that_of_their_medians(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[list[float]] = []
    monkeypatch.setattr(figures, "_draw_boxes", lambda ax, boxes: drawn.extend(b[2].tolist() for b in boxes))
    draw_psnr_boxes(tmp_path / "psnr", [Box(str(u), torch.tensor([0.0, u, 100.0]), "protected") for u in range(25)])
    assert drawn == [[float(user) for user in range(25)]]


def test_boxes_leave_out_nan_and_count_exactly_recovered_images_as_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[list[float]] = []
    monkeypatch.setattr(figures, "_draw_boxes", lambda ax, boxes: drawn.extend(b[2].tolist() for b in boxes))
    values = torch.tensor([5.0, math.nan, math.inf, 9.0])
    draw_psnr_boxes(tmp_path / "psnr", [Box("a", values, "ITN"), Box("b", torch.tensor([math.nan]), "ITN")])
    assert drawn == [[5.0, 9.0, 9.0]]


@pytest.mark.parametrize("boxes", [[], [Box("user 0", torch.empty(0), "protected")]])
def test_boxes_without_values_give_an_empty_figure(tmp_path: Path, boxes: list[Box]) -> None:
    draw_psnr_boxes(tmp_path / "psnr", boxes)
    assert_drawn(tmp_path / "psnr")


def test_more_groups_than_colours_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="9 groups of boxes: at most 8"):
        draw_psnr_boxes(tmp_path / "psnr", [Box("user 0", torch.ones(1), str(group)) for group in range(9)])


@pytest.mark.parametrize("users", [0, 1, 9, 17])
def test_learning_curves_are_written_as_png_and_pdf(tmp_path: Path, users: int) -> None:
    curves = {f"user {user}": rows_of(user, 3) for user in range(users)}
    draw_learning_curves(tmp_path / "curves", curves, [Panel("loss", "training loss", log=True)])
    assert_drawn(tmp_path / "curves")


def test_rows_without_a_usable_value_are_left_out_of_the_curves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[list[tuple[float, float]]] = []
    monkeypatch.setattr(figures, "_plot", lambda ax, points, **style: drawn.append(points))
    rows = [
        {"epoch": 1.0, "loss": 0.5},
        {"epoch": 2.0},
        {"loss": 0.4},
        {"epoch": 3.0, "loss": math.nan},
        {"epoch": 4.0, "loss": -0.25},
    ]
    panels = [Panel("loss", "loss"), Panel("loss", "log loss", log=True), Panel("accuracy", "never measured")]
    draw_learning_curves(tmp_path / "curves", {"user 0": rows}, panels)
    assert drawn == [[(1.0, 0.5), (4.0, -0.25)], [(1.0, 0.5)]]
    assert_drawn(tmp_path / "curves")


def test_the_median_of_many_curves_is_over_the_users_with_a_value_at_the_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[list[tuple[float, float]]] = []
    monkeypatch.setattr(figures, "_plot", lambda ax, points, **style: drawn.append(points))
    # Losses of epoch 0 are 1 to 17; users 0 to 2 go on to epoch 1, where theirs are 0.5, 1, 1.5.
    curves = {str(user): rows_of(user, 2 if user < 3 else 1) for user in range(17)}
    draw_learning_curves(tmp_path / "curves", curves, [Panel("loss", "loss")])
    assert len(drawn) == 18
    assert drawn[-1] == [(0, 9.0), (1, 1.0)]


def test_learning_curves_without_panels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one panel"):
        draw_learning_curves(tmp_path / "curves", {}, [])


@pytest.mark.parametrize("users", [1, 20, 40])
def test_a_trade_off_is_written_as_png_and_pdf(tmp_path: Path, users: int) -> None:
    points = [TradeOff(f"user {user}", -user, 0.01 * user, ("relu1_2", "pixel")[user % 2]) for user in range(users)]
    draw_trade_off(tmp_path / "trade-off", points, (2.0, 0.05))
    assert_drawn(tmp_path / "trade-off")


def test_labels_of_a_trade_off_cover_no_mark_and_no_other_label_and_marks_in_one_place_share_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures_drawn: list[Figure] = []
    monkeypatch.setattr(trade_off_figures, "save_figure", lambda figure, to: figures_drawn.append(figure))
    close = [TradeOff(f"user {user}", -5 - user / 9, 0.2 + user / 300, "relu1_2") for user in range(6)]
    draw_trade_off(
        tmp_path / "t", [*close, *(TradeOff(f"user {user}", 0, 0.1, "relu1_2") for user in (6, 7))], (2, 0.05)
    )
    (figure,) = figures_drawn
    figure.draw_without_rendering()
    ax = figure.axes[0]
    assert sorted(text.get_text() for text in ax.texts)[-1] == "user 6 and 1 more"
    boxes = [text.get_window_extent() for text in ax.texts]
    marks = [ax.transData.transform((point.gain, point.accuracy)) for point in close]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    assert not any(box.contains(*mark) for box in boxes for mark in marks)


def test_accuracy_is_drawn_against_alpha_without_alpha_0(tmp_path: Path) -> None:
    lines = {"relu1_2": [(0.1, 40.0), (0.005, 85.0), (0.005, 84.0), (0.0, 86.0)], "relu2_2": []}
    draw_accuracy(tmp_path / "accuracy", lines, 86.0)
    assert_drawn(tmp_path / "accuracy")


def test_more_kinds_than_colours_are_refused_in_trade_off_and_accuracy(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="9 groups of points: at most 8"):
        draw_trade_off(tmp_path / "t", [TradeOff("", 0, 0, str(group)) for group in range(9)], (2.0, 0.05))
    with pytest.raises(ValueError, match="9 lines: at most 8"):
        draw_accuracy(tmp_path / "a", {str(line): [] for line in range(9)}, 86.0)


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
