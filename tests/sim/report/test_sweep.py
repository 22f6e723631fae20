"""Sweeps: several experiments, one table."""

from pathlib import Path

import pandas as pd
import pytest

from sim.report.sweep import summary_table, write_sweep_report
from sim.run.progress import Status
from sim.run.sweep import SweepFolder, load_cells
from tests.sim.made_up_sweep import config_with, finish, row, start


@pytest.fixture
def sweep(tmp_path: Path) -> SweepFolder:
    return start(tmp_path)


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
    assert lines[-3].startswith("| vgg16_bn | control-blur | 2 |")
    assert lines[-3].endswith("| 2 recovered |")
    assert lines[-1] == "`veilsim report RUN` compares the cells, with pictures, on one page."


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
