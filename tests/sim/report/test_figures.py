import io
import itertools
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread

from roles.evaluator.results import Measured
from sim.report.figures import run as run_figures
from sim.report.figures import style
from sim.report.figures.boxes import Box, draw_psnr_boxes
from sim.report.figures.curves import Panel, draw_learning_curves
from sim.report.figures.run import boxes_of, draw_run, draw_table, trade_offs
from sim.report.figures.strips import StripRow, draw_strips
from sim.report.figures.style import look_of
from sim.report.figures.trade_off import TradeOff, draw_accuracy, draw_trade_off
from sim.report.table import table_of
from sim.run.subject import Subject
from tests.sim import made_up_run


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, Figure]:
    """Figures as they were written, by the names of their files."""
    figures: dict[str, Figure] = {}

    def keep(figure: Figure, to: Path) -> None:
        figures[to.stem] = figure
        save(figure, to)

    save = style.save_figure
    monkeypatch.setattr(style, "save_figure", keep)
    return figures


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


def lines_of(figure: Figure) -> list[list[list[float]]]:
    """The points of each line, panel by panel, without those that only a legend shows."""
    lines = [line.get_xydata().tolist() for ax in figure.axes for line in ax.lines]
    return [line for line in lines if line]


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


def test_strips_have_the_first_twenty_of_all_pictures_that_a_run_keeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: dict[str, list[StripRow]] = {}

    def keep(to: Path, rows: list[StripRow], *_: Any) -> None:
        drawn[to.name] = rows

    monkeypatch.setattr(run_figures, "draw_strips", keep)
    many = Measured(torch.arange(30.0), torch.linspace(0, 1, 30), None, 0.5)
    users = {"count": 2, "settings": [{"alpha": 0.1}, {"alpha": 0.2}]}
    run = made_up_run.start(tmp_path, made_up_run.experiment_of(2, users=users))
    for user in (0, 1):
        made_up_run.keep_training(run, user)
        measures = {
            "protected": many,
            "estimates": {"paper": many},
            "baselines": {"mean_image": many, "class_mean": many},
        }
        pictures = {name: noise(30) for name in ("plain", "protected", "paper")}
        run.keep_attack(Subject("user", user), replace(made_up_run.attack_of(user), **measures, pictures=pictures))
    draw_run(run, run.experiment(), table_of(run, run.experiment()), [0])
    assert list(drawn) == ["strips-user-0000", "strips-over-alpha-relu2_2-width-64"]
    for rows in drawn.values():
        assert [len(row.images) for row in rows] == [20, 20, 20]
    captions = [row.captions for row in drawn["strips-user-0000"]]
    assert captions == [None, *[[f"{psnr}.00 dB" for psnr in range(20)]] * 2]


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


@pytest.mark.parametrize("users", [0, 1, 9, 17])
def test_learning_curves_are_written_as_png_and_pdf(tmp_path: Path, users: int) -> None:
    curves = {f"user {user}": rows_of(user, 3) for user in range(users)}
    draw_learning_curves(tmp_path / "curves", curves, [Panel("loss", "training loss", log=True)])
    assert_drawn(tmp_path / "curves")


def test_rows_without_a_usable_value_are_left_out_of_the_curves(tmp_path: Path, drawn: dict[str, Figure]) -> None:
    rows = [
        {"epoch": 1.0, "loss": 0.5},
        {"epoch": 2.0},
        {"loss": 0.4},
        {"epoch": 3.0, "loss": math.nan},
        {"epoch": 4.0, "loss": -0.25},
    ]
    panels = [Panel("loss", "loss"), Panel("loss", "log loss", log=True), Panel("accuracy", "never measured")]
    draw_learning_curves(tmp_path / "curves", {"user 0": rows}, panels)
    assert lines_of(drawn["curves"]) == [[[1.0, 0.5], [4.0, -0.25]], [[1.0, 0.5]]]
    assert_drawn(tmp_path / "curves")


def test_the_median_of_many_curves_is_over_the_users_with_a_value_at_the_epoch(
    tmp_path: Path, drawn: dict[str, Figure]
) -> None:
    # Losses of epoch 0 are 1 to 17; users 0 to 2 go on to epoch 1, where theirs are 0.5, 1, 1.5.
    curves = {str(user): rows_of(user, 2 if user < 3 else 1) for user in range(17)}
    draw_learning_curves(tmp_path / "curves", curves, [Panel("loss", "loss")])
    lines = lines_of(drawn["curves"])
    assert len(lines) == 18
    assert lines[-1] == [[0, 9.0], [1, 1.0]]


def test_learning_curves_without_panels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one panel"):
        draw_learning_curves(tmp_path / "curves", {}, [])


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


def labels_of(*rows: dict[str, object]) -> list[str]:
    measures = {"plain_accuracy": 0.8, "accuracy": 0.7, "class_mean_ssim": 0.2, "protected_ssim": 0.3}
    network = {"subject": "user-0000", "protection": "network", "phi": "relu2_2"}
    table = pd.DataFrame([{**measures, **network, **row} for row in rows]).convert_dtypes()
    return [point.label for point in trade_offs(table)]


def test_a_mark_of_a_sweep_over_alpha_is_named_by_its_alpha() -> None:
    seeds_and_alphas = itertools.product((0, 1), (0.005, 0.05))
    cells = [{"seed": str(seed), "user.alpha": str(alpha), "alpha": alpha} for seed, alpha in seeds_and_alphas]
    assert labels_of(*cells) == ["alpha 0.005", "alpha 0.05"] * 2
    users = ({"setting": "width 32"}, {"setting": "tanaka", "protection": "tanaka", "phi": None, "alpha": None})
    swept = [{"alpha": alpha} | user for alpha in (0.005, 1) for user in users]
    assert labels_of(*swept) == ["alpha 0.005, width 32", "tanaka", "alpha 1, width 32", "tanaka"]


def test_a_mark_names_alpha_once_and_only_where_it_differs() -> None:
    settings = [{"alpha": 0.01, "setting": "alpha 0.01, width 32"}, {"alpha": 0.005, "setting": "layer relu2_2"}]
    assert labels_of(*settings) == ["alpha 0.01, width 32", "alpha 0.005"]
    assert labels_of({"alpha": 0.01}, {"alpha": 0.01, "subject": "user-0001"}) == ["user 0", "user 1"]
    assert labels_of({"protection": "plain", "phi": None}) == ["user 0"]


def test_attackers_without_labels_leave_no_trade_off_and_the_mean_image_as_the_guess(tmp_path: Path) -> None:
    table = pd.DataFrame({"subject": ["user-0000"], "protected_psnr": [9.0], "protected_ssim": [0.1]})
    draw_table(tmp_path, table)
    assert trade_offs(table) == [] and list(tmp_path.iterdir()) == []
    result = made_up_run.attack_of(0)
    mean_image = {"mean_image": result.baselines["mean_image"]}
    experiment = made_up_run.experiment_of(1)
    boxes = boxes_of(experiment, Subject("user", 0), replace(result, baselines=mean_image))
    assert [box.group for box in boxes] == ["protected", "ITN (paper)", "ITN (strong)", "mean-image baseline"]


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
