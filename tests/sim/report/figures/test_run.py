"""What the figures of a run show."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

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
        pictures = {name: noise(30) for name in ("plain", "protected", "paper")}
        run.keep_attack(Subject("user", user), replace(made_up_run.attack_of(user), **measures, pictures=pictures))
    draw_run(run, run.experiment(), table_of(run, run.experiment()), [0])
    assert list(drawn) == ["strips-user-0000", "strips-over-alpha-relu2_2-width-64"]
    for rows in drawn.values():
        assert [len(row.images) for row in rows] == [20, 20, 20]
    captions = [row.captions for row in drawn["strips-user-0000"]]
    assert captions == [None, *[[f"{psnr}.00 dB" for psnr in range(20)]] * 2]


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
