"""Sweeps: one config, several experiments."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from sim.config.errors import ConfigError
from sim.config.files import load_experiment
from sim.run.sweep import SweepFolder, is_sweep, load_cells
from tests.sim.made_up_sweep import BASE, config_with, start


def test_a_sweep_is_every_combination_of_its_axes(tmp_path: Path) -> None:
    path = config_with(tmp_path, {"classifier.name": ["resnet20", "vgg16_bn"], "seed": [0, 1, 2]})
    assert is_sweep(path, [])
    cells = load_cells(path, ["user.width=8"])
    assert [(cell.experiment.classifier.name, cell.experiment.seed) for cell in cells] == [
        (name, seed) for name in ("resnet20", "vgg16_bn") for seed in (0, 1, 2)
    ]
    assert [cell.name for cell in cells][:2] == ["name=resnet20,seed=0", "name=resnet20,seed=1"]
    assert all(cell.experiment.user.width == 8 for cell in cells)


def test_an_axis_may_reach_into_lists_and_hold_sections(tmp_path: Path) -> None:
    axes = {"users.settings.1.alpha": [0.3, 0.4], "users.partition": [{"kind": "iid"}, {"kind": "all"}]}
    cells = load_cells(config_with(tmp_path, axes))
    assert [(cell.experiment.user_config(1).alpha, cell.experiment.users.partition.kind) for cell in cells] == [
        (0.3, "iid"),
        (0.3, "all"),
        (0.4, "iid"),
        (0.4, "all"),
    ]
    assert {cell.experiment.user_config(0).alpha for cell in cells} == {0.1}


def test_sections_of_one_name_are_told_apart_by_what_differs(tmp_path: Path) -> None:
    strategies = [{"name": "independent"}, {"name": "fedavg"}, {"name": "fedavg", "batch_norm": "local"}]
    partitions = [{"kind": "dirichlet", "alpha": 0.5}, {"kind": "dirichlet", "alpha": 0.1}]
    cells = load_cells(config_with(tmp_path, {"strategy": strategies, "users.partition": partitions}))
    assert [cell.name for cell in cells] == [
        f"strategy={strategy},partition=dirichlet_alpha_{alpha}"
        for strategy in ("independent", "fedavg", "fedavg_batch_norm_local")
        for alpha in (0.5, 0.1)
    ]


def test_an_override_of_an_axis_takes_its_place(tmp_path: Path) -> None:
    cells = load_cells(config_with(tmp_path, {"seed": [0, 1], "user.alpha": [1, 2]}), ["seed=7"])
    assert [cell.values for cell in cells] == [{"user.alpha": 1}, {"user.alpha": 2}]
    assert {cell.experiment.seed for cell in cells} == {7}


def test_an_override_beneath_an_axis_holds_in_all_cells(tmp_path: Path) -> None:
    axes = {"classifier": [{"name": "resnet20"}, {"name": "vgg16_bn", "flip": False}]}
    cells = load_cells(config_with(tmp_path, axes), ["classifier.training.epochs=3", "user.width=8"])
    classifiers = [cell.experiment.classifier for cell in cells]
    assert [(c.name, c.flip, c.training.epochs) for c in classifiers] == [("resnet20", True, 3), ("vgg16_bn", False, 3)]
    assert [cell.name for cell in cells] == ["classifier=resnet20", "classifier=vgg16_bn"]
    assert {cell.experiment.user.width for cell in cells} == {8}


def test_with_every_axis_overridden_one_cell_is_left(tmp_path: Path) -> None:
    (cell,) = load_cells(config_with(tmp_path, {"seed": [0, 1]}), ["seed=7"])
    assert (cell.name, cell.values, cell.experiment.seed) == ("the-only-one", {}, 7)


def test_a_long_value_makes_a_folder_name_that_a_file_system_takes(tmp_path: Path) -> None:
    settings = [[{"alpha": alpha / 100} for alpha in range(1 + extra, 100 + extra)] for extra in (0, 1)]
    cells = load_cells(config_with(tmp_path, {"users.settings": settings, "users.count": [100]}))
    assert all(len(cell.name) < 120 for cell in cells)
    assert cells[0].name != cells[1].name


def test_a_config_without_a_sweep_is_none(tmp_path: Path) -> None:
    path = tmp_path / "one.yaml"
    path.write_text(yaml.safe_dump(BASE))
    assert not is_sweep(path, [])


@pytest.mark.parametrize(
    ("sweep", "expected"),
    [
        ([], "sweep: must map keys to lists of values"),
        ({}, "sweep: must map keys to lists of values"),
        ({"seed": 3}, "sweep.seed: got 3: must be a list of values"),
        ({"seed": []}, "sweep.seed: got []: must be a list of values"),
        ({"user.alhpa": [1]}, "user.alhpa: unknown key; did you mean 'alpha'? (in the cell {'user.alhpa': 1})"),
        ({"user.alpha": [0.1, -1]}, "user.alpha: got -1: must be greater than or equal to 0 (in the cell"),
        ({"name.x": [1]}, "sweep.name.x: 'name' holds a value, not a section"),
        ({"users.settings.5.alpha": [1]}, "sweep.users.settings.5.alpha: '5' must be a position from 0 to 1"),
        ({"seed": [1, 1]}, "sweep: two cells have one name"),
        ({"user": [{"alpha": 1}], "user.alpha": [2]}, "sweep.user.alpha: lies beneath the axis user: put it into"),
    ],
)
def test_a_sweep_that_cannot_be_is_one_line(tmp_path: Path, sweep: Any, expected: str) -> None:
    path = config_with(tmp_path, sweep)
    with pytest.raises(ConfigError) as caught:
        load_cells(path)
    assert str(caught.value).startswith(f"{path}: {expected}")
    assert "\n" not in str(caught.value)


def test_a_sweep_is_no_experiment(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds a sweep of several experiments: 'veilsim run' runs it$"):
        load_experiment(config_with(tmp_path, {"seed": [0, 1]}))


@pytest.fixture
def sweep(tmp_path: Path) -> SweepFolder:
    return start(tmp_path)


def test_every_cell_has_a_run_folder_with_its_experiment(sweep: SweepFolder) -> None:
    assert SweepFolder.is_one(sweep.path)
    assert [run.experiment().classifier.name for run in sweep.runs()] == ["resnet20"] * 2 + ["vgg16_bn"] * 2
    assert [run.experiment().seed for run in sweep.runs()] == [0, 1, 0, 1]


def test_a_sweep_is_never_overwritten(sweep: SweepFolder, tmp_path: Path) -> None:
    cells = load_cells(config_with(tmp_path, {"seed": [0]}))
    with pytest.raises(ConfigError, match=r"holds a sweep already; name another folder, or resume it with --resume"):
        SweepFolder.create(sweep.path, "small", cells)
