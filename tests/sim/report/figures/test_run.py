"""What the figures of a run show."""

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from roles.evaluator.measures import PSNR_CAP
from roles.evaluator.results import Measured
from sim.report.figures import run as run_figures
from sim.report.figures.run import boxes_of, draw_run, draw_table, trade_offs
from sim.report.figures.strips import StripRow
from sim.report.table import table_of
from sim.run.subject import Subject
from tests.sim import made_up_run
from tests.sim.report.figures.drawings import noise


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
        pictures = {name: noise(30) for name in ("plain", "protected", "paper", "class_mean")}
        run.keep_attack(Subject("user", user), replace(made_up_run.attack_of(user), **measures, pictures=pictures))
    draw_run(run, run.experiment(), table_of(run, run.experiment()), [0])
    assert list(drawn) == ["strips-user-0000", "strips-over-alpha-relu2_2-width-64"]
    for rows in drawn.values():
        assert {len(row.images) for row in rows} == {20}
    captions = [row.captions for row in drawn["strips-user-0000"]]
    assert captions == [None, *[[f"{psnr}.0 dB" for psnr in range(20)]] * 3]


Strips = dict[str, tuple[str, list[StripRow]]]


@pytest.fixture
def strips(monkeypatch: pytest.MonkeyPatch) -> Strips:
    """The title and the rows of each strip that is drawn, by the name of its file; nothing else is drawn."""
    drawn: Strips = {}

    def keep(to: Path, rows: list[StripRow], title: str) -> None:
        drawn[to.name] = title, rows

    monkeypatch.setattr(run_figures, "draw_strips", keep)
    for other in ("draw_psnr_boxes", "draw_learning_curves", "draw_table"):
        monkeypatch.setattr(run_figures, other, lambda *_: None)
    return drawn


def test_a_strip_is_titled_by_its_setting_and_what_came_of_it(tmp_path: Path, strips: Strips) -> None:
    settings: list[dict[str, Any]] = [{"alpha": 0.1}, {"alpha": 0.2}, {"protection": {"kind": "plain"}}]
    experiment = made_up_run.experiment_of(3, users={"count": 3, "settings": settings})
    run = made_up_run.make(tmp_path / "run", experiment)
    table = pd.DataFrame({"subject": ["user-0000", "user-0001", "user-0002", "control-blur"]})
    table["verdict"] = ["recovered", "partial", "visible", "visible"]
    draw_run(run, experiment, table.assign(accuracy=[0.638, None, 0.97, 0.4]), [0, 1, 2])
    assert {name: title for name, (title, _) in strips.items()} == {
        "strips-user-0000": "alpha 0.1, relu2_2, 200 epochs: 64%, recovered",
        "strips-user-0001": "alpha 0.2, relu2_2, 200 epochs: partial",
        "strips-user-0002": "plain: 97%, visible",
        "strips-control-blur": "control: blurred images",
        "strips-over-alpha-relu2_2-width-64": "relu2_2, width 64, over alpha",
    }
    labels = [row.label for row in strips["strips-over-alpha-relu2_2-width-64"][1]]
    assert labels == ["plain", "alpha 0.1: 64%, recovered", "alpha 0.2: partial"]


def test_the_title_of_a_strip_says_what_else_differs_between_networks(tmp_path: Path, strips: Strips) -> None:
    users = {"count": 2, "settings": [{"width": 8}, {"width": 16, "training": {"epochs": 3}}]}
    experiment = made_up_run.experiment_of(2, users=users, user={"alpha": 0.5})
    run = made_up_run.make(tmp_path / "run", experiment)
    draw_run(run, experiment, pd.read_parquet(run.path / "table.parquet"), [1])
    assert strips["strips-user-0001"][0].startswith("alpha 0.5, relu2_2, width 16, 3 epochs: 70%, ")


def test_the_class_mean_is_a_row_that_is_called_a_guess_and_is_not_there_in_older_runs(
    tmp_path: Path, strips: Strips
) -> None:
    run = made_up_run.make(tmp_path / "run", made_up_run.experiment_of(1))
    table = pd.read_parquet(run.path / "table.parquet")
    result = run.attack(Subject("user", 0))
    assert result is not None
    pictures = {name: images for name, images in result.pictures.items() if name != "class_mean"}
    for known in (pictures, pictures | {"class_mean": noise(6, 32)}):
        run.keep_attack(Subject("user", 0), replace(result, pictures=known))
        draw_run(run, run.experiment(), table, [0])
        labels = [row.label for row in strips["strips-user-0000"][1]]
        guess = ["class mean (trivial guess)"] if "class_mean" in known else []
        assert labels == ["plain", "protected", "ITN paper", "ITN strong", *guess]
    assert strips["strips-user-0000"][1][-1].captions == [f"{13 + n / 2:.1f} dB" for n in range(6)]


def test_a_caption_calls_an_image_that_is_recovered_exactly_exact(tmp_path: Path, strips: Strips) -> None:
    run = made_up_run.make(tmp_path / "run", made_up_run.experiment_of(1))
    result = run.attack(Subject("user", 0))
    assert result is not None
    psnr = torch.tensor([PSNR_CAP, 20.0] * 6)
    exact = {"strong": replace(result.estimates["strong"], psnr=psnr)}
    run.keep_attack(Subject("user", 0), replace(result, estimates=result.estimates | exact))
    draw_run(run, run.experiment(), pd.read_parquet(run.path / "table.parquet"), [0])
    (strong,) = [row for row in strips["strips-user-0000"][1] if row.label == "ITN strong"]
    assert strong.captions == ["exact", "20.0 dB"] * 3


def test_the_share_of_exposed_images_is_that_of_the_table_where_it_has_one() -> None:
    row = {"subject": "user-0000", "protection": "plain", "plain_accuracy": 0.8, "accuracy": 0.7}
    table = pd.DataFrame([{**row, "class_mean_ssim": 0.2, "protected_ssim": 0.3}])
    assert math.isnan(trade_offs(table)[0].exposed)
    assert [point.exposed for point in trade_offs(pd.concat([table.assign(exposed=0.25)] * 2))] == [0.25, 0.25]
    assert math.isnan(trade_offs(table.assign(exposed=None).convert_dtypes())[0].exposed)


def test_accuracy_over_alpha_has_a_diagram_a_layer_and_a_line_a_kind_of_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(run_figures, "draw_accuracy", lambda to, panels, plain: drawn.extend([panels, plain]))
    row = {"subject": "user-0000", "protection": "network", "plain_accuracy": 0.8, "accuracy": 0.75}
    row |= {"class_mean_ssim": 0.2, "protected_ssim": 0.3, "protected_psnr": 9.0, "setting": ""}
    cells = [("relu1_2", 16, 0.1), ("relu1_2", 64, 0.2), ("relu2_2", 16, 0.1), ("relu2_2", 16, 0.2)]
    draw_table(tmp_path, pd.DataFrame([{**row, "phi": phi, "width": w, "alpha": a} for phi, w, a in cells]))
    panels, plain = drawn
    assert panels == {
        "relu1_2": {"width 16": [(0.1, 75.0)], "width 64": [(0.2, 75.0)]},
        "relu2_2": {"width 16": [(0.1, 75.0), (0.2, 75.0)]},
    }
    assert plain == 80.0


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
    assert [box.group for box in boxes] == ["protected", "ITN paper", "ITN strong", "mean-image baseline"]
