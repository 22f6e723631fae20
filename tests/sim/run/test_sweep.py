"""Sweeps: one config, several experiments, one table."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from sim.config.errors import ConfigError
from sim.config.files import load_experiment
from sim.report.sweep import summary_table, write_sweep_report
from sim.run.progress import Status
from sim.run.sweep import SweepFolder, is_sweep, load_cells

BASE: dict[str, Any] = {
    "name": "small",
    "users": {"count": 2, "settings": [{"alpha": 0.1}, {"alpha": 0.2}]},
    "attack": {"itns": [{"name": "strong", "training": {"epochs": 1}}]},
}


def config_with(tmp_path: Path, sweep: Any) -> Path:
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(BASE | {"sweep": sweep}, sort_keys=False))
    return path


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


# ---- the folder --------------------------------------------------------------------------------------------------


def row(subject: str, accuracy: float, setting: str | None = None, **more: Any) -> dict[str, Any]:
    if setting is not None:
        more = {"protection": "network", "phi": "relu1_2", "alpha": float(setting.split()[1]), "width": 16} | more
    measures = {"plain_accuracy": 0.8, "protected_psnr": 10.0, "protected_ssim": 0.1, "class_mean_psnr": 12.0}
    measures |= {"class_mean_ssim": 0.2, "itn_strong_psnr": 20.0, "itn_strong_ssim": 0.7, "verdict": "recovered"}
    return {"subject": subject, "setting": setting, "accuracy": accuracy, **measures, **more}


def finish(sweep: SweepFolder, number: int, accuracy: float) -> None:
    run = sweep.runs()[number].path
    rows = [row("user-0000", accuracy, "alpha 0.1"), row("user-0001", accuracy - 0.1, "alpha 0.2")]
    pd.DataFrame([*rows, row("control-blur", 0.3)]).to_parquet(run / "table.parquet")
    Status("complete").write(run)


@pytest.fixture
def sweep(tmp_path: Path) -> SweepFolder:
    path = config_with(tmp_path, {"classifier.name": ["resnet20", "vgg16_bn"], "seed": [0, 1]})
    return SweepFolder.create(tmp_path / "out", "small", load_cells(path))


def test_every_cell_has_a_run_folder_with_its_experiment(sweep: SweepFolder) -> None:
    assert SweepFolder.is_one(sweep.path)
    assert [run.experiment().classifier.name for run in sweep.runs()] == ["resnet20"] * 2 + ["vgg16_bn"] * 2
    assert [run.experiment().seed for run in sweep.runs()] == [0, 1, 0, 1]


def test_a_sweep_is_never_overwritten(sweep: SweepFolder, tmp_path: Path) -> None:
    cells = load_cells(config_with(tmp_path, {"seed": [0]}))
    with pytest.raises(ConfigError, match=r"holds a sweep already; name another folder, or resume it with --resume"):
        SweepFolder.create(sweep.path, "small", cells)


def test_the_table_holds_the_rows_of_all_complete_cells_with_their_axes(sweep: SweepFolder) -> None:
    for number, accuracy in ((0, 0.7), (1, 0.75), (2, 0.6)):
        finish(sweep, number, accuracy)
    summary = write_sweep_report(sweep)
    table = pd.read_parquet(sweep.path / "table.parquet")
    assert list(table.columns[:3]) == ["classifier.name", "seed", "subject"]
    assert len(table) == 9
    assert list(table["seed"].unique()) == ["0", "1"]
    assert len(pd.read_csv(sweep.path / "table.csv")) == 9
    assert "3 of 4 cells" in summary
    drawn = {str(path.relative_to(sweep.path / "figures")) for path in sweep.path.rglob("*.png")}
    pictures = ("trade-off.png", "accuracy.png")
    assert drawn == {f"{name}/{picture}" for name in ("resnet20", "vgg16_bn") for picture in pictures}
    assert (sweep.path / "summary.md").read_text() == summary


def test_a_cell_that_is_tried_again_keeps_its_rows_until_it_has_better_ones(sweep: SweepFolder) -> None:
    finish(sweep, 0, 0.7)
    Status("failed", error="killed").write(sweep.runs()[0].path)
    assert "1 of 4 cells" in write_sweep_report(sweep)
    assert len(pd.read_parquet(sweep.path / "table.parquet")) == 3


def test_in_the_summary_runs_that_differ_by_a_seed_alone_are_one_row(sweep: SweepFolder) -> None:
    for number, accuracy in enumerate((0.7, 0.75, 0.6, 0.61)):
        finish(sweep, number, accuracy)
    lines = write_sweep_report(sweep).splitlines()
    assert (
        "| resnet20 | alpha 0.1 | 2 | 72.5 (70.0 to 75.0) | -7.5 (-10.0 to -5.0) | 10.0/0.10 | 12.0/0.20 | 20.0/0.70 "
        in (next(line for line in lines if "resnet20 | alpha 0.1" in line))
    )
    assert sum("control-blur" in line for line in lines) == 2
    assert lines[-1].startswith("| vgg16_bn | control-blur | 2 |")
    assert lines[-1].endswith("| 2 recovered |")


def test_the_table_tells_sections_of_one_name_apart(tmp_path: Path) -> None:
    axis = [{"name": "fedavg"}, {"name": "fedavg", "batch_norm": "local"}]
    cells = load_cells(config_with(tmp_path, {"strategy": axis}))
    sweep = SweepFolder.create(tmp_path / "out", "small", cells)
    finish(sweep, 1, 0.7)
    summary = write_sweep_report(sweep)
    assert set(pd.read_parquet(sweep.path / "table.parquet")["strategy"]) == {"fedavg batch_norm local"}
    assert "| fedavg batch_norm local | alpha 0.1 | 1 |" in summary


def test_of_three_seeds_or_more_the_mean_over_seeds_has_an_interval() -> None:
    accuracies = {"0": (0.68, 0.72), "1": (0.72, 0.72), "2": (0.7, 0.78)}
    rows = [row(f"user-000{u}", a, seed=seed) for seed, both in accuracies.items() for u, a in enumerate(both)]
    # Seeds have means of 70, 72 and 74: the two users of a seed, who share its psi, are no repetitions.
    (line,) = summary_table(pd.DataFrame(rows), ["seed"]).splitlines()[2:]
    assert "| 6 | 72.0 [67.0 to 77.0] | -8.0 [-13.0 to -3.0] | 10.0/0.10 |" in line


def test_runs_that_differ_by_no_seed_have_a_range_however_many_they_are() -> None:
    rows = [row("user-0000", accuracy, size=size) for size, accuracy in (("1", 0.7), ("1", 0.72), ("1", 0.74))]
    assert "| 3 | 72.0 (70.0 to 74.0) |" in summary_table(pd.DataFrame(rows), ["size"])


def test_a_sweep_says_what_its_columns_hold_and_what_its_numbers_are(sweep: SweepFolder) -> None:
    finish(sweep, 0, 0.7)
    said = "the mean over seeds [95% interval, Student's t], else the median (lowest to highest)"
    assert said in write_sweep_report(sweep)
    columns = (sweep.path / "columns.md").read_text()
    assert "| `classifier.name` | what the run has of this axis of the sweep |" in columns
    assert "| `itn_strong_ssim` | median SSIM of the inverse network's estimates |" in columns


def test_a_sweep_of_which_no_cell_has_come_to_its_end_says_so(sweep: SweepFolder) -> None:
    assert write_sweep_report(sweep) == "No cell has come to its end."
    assert not (sweep.path / "table.csv").exists()


def test_users_without_a_result_are_counted_and_called_failed() -> None:
    failed = {"subject": "user-0000", "setting": "alpha 0.1", "accuracy": None, "plain_accuracy": None}
    table = pd.DataFrame([failed | {"seed": "0"}, row("user-0001", 0.5, "alpha 0.2", seed="0")])
    lines = summary_table(table, ["seed"]).splitlines()
    assert lines[2].startswith("| alpha 0.1 | 0 of 1 | - |")
    assert lines[2].endswith("| failed |")
    assert lines[3].startswith("| alpha 0.2 | 1 | 50.0 |")
