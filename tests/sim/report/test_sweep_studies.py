"""What studies of a sweep's cells found, joined."""

from pathlib import Path

import pandas as pd
import pytest

from roles.evaluator.study import HeatMap, Lines
from sim.report.sweep import write_sweep_report
from sim.report.sweep_studies import joined, over_seeds
from sim.run.sweep import SweepFolder, load_cells
from tests.sim.made_up_sweep import config_with, finish, row

CELLS = pd.DataFrame(
    [
        row("user-0000", accuracy, "alpha 0.1", defence=defence, seed=seed)
        for defence, accuracies in (("default", (0.7, 0.8)), ("sign", (0.6, 0.6)))
        for seed, accuracy in enumerate(accuracies)
    ]
)
BY_PLACE = Lines("queries", "agreement", "channel", "agreement with psi", share=True)


def rows(*found: tuple[str, int, str, int, float]) -> pd.DataFrame:
    return pd.DataFrame(found, columns=["defence", "seed", "channel", "queries", "agreement"])


def test_a_row_has_the_cells_accuracy_and_a_column_for_each_place_on_each_line() -> None:
    found = rows(
        ("default", 0, "service", 50, 0.5),
        ("default", 0, "gradients", 50, 0.7),
        ("sign", 0, "service", 50, 0.5),
        ("sign", 0, "service", 99, 0.6),
    )
    lines = joined(found, BY_PLACE, CELLS, ["defence"]).splitlines()
    assert (
        lines[0] == "| defence | acc. | to plain | service, queries 50 | gradients, queries 50 | service, queries 99 |"
    )
    assert lines[2:] == ["| default | 75.0 | -5.0 | 50.0 | 70.0 | - |", "| sign | 60.0 | -20.0 | 50.0 | - | 60.0 |"]


def test_cells_that_differ_by_a_seed_alone_are_one_row_of_medians() -> None:
    found = rows(*(("sign", seed, "service", 50, agreement) for seed, agreement in enumerate((0.2, 0.3, 0.7))))
    assert joined(found, BY_PLACE, CELLS, ["defence"]).splitlines()[2] == "| sign | 60.0 | -20.0 | 30.0 |"
    assert joined(found, BY_PLACE, CELLS, []).splitlines()[2] == "| 65.0 | -15.0 | 30.0 |"


def test_users_and_heat_maps_have_one_column() -> None:
    found = pd.DataFrame({"user": ["user-0000", "user-0001"], "by": ["psi", "psi"], "gain_ssim": [0.1, 0.3]})
    one_line = joined(found, Lines("user", "gain_ssim", "by", "gain"), CELLS, []).splitlines()
    assert one_line[0] == "| acc. | to plain | psi |"
    assert one_line[2] == "| 65.0 | -15.0 | 0.20 |"
    assert (
        joined(found, HeatMap("user", "user", "gain_ssim", "gain"), CELLS, []).splitlines()[0].endswith("| gain_ssim |")
    )


def test_over_seeds_alone_each_line_of_the_picture_is_a_row() -> None:
    found = rows(*(("-", seed, "service", 50 * place, 0.1 * seed + place) for seed in range(3) for place in (1, 2)))
    lines = over_seeds(found, BY_PLACE).splitlines()
    assert lines[0] == "|  | queries 50 | queries 100 |"
    assert lines[2:] == ["| service | 110.0 | 210.0 |"]
    assert over_seeds(found, HeatMap("user", "user", "agreement", "gain")) == ""


@pytest.fixture(autouse=True)
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sim.report.sweep.draw_table", lambda path, table: None)
    monkeypatch.setattr("sim.report.sweep_studies.draw_study", lambda path, form, table: None)


@pytest.fixture
def sweep(tmp_path: Path) -> SweepFolder:
    """Two cells of three whose studies have found something, of which one is done."""
    axes = {
        "provider.defence": [{}, {"clip": 0.1, "sign": True}, {"sign": True}],
        "studies": [[{"kind": "extraction"}]],
    }
    cells = load_cells(config_with(tmp_path, axes))
    return SweepFolder.create(tmp_path / "out", "small", cells)


def test_a_sweep_keeps_the_rows_of_its_studies_and_says_what_they_amount_to(sweep: SweepFolder) -> None:
    for number, agreement in ((0, 0.9), (1, 0.4)):
        finish(sweep, number, 0.7)
        folder = sweep.runs()[number].path / "studies"
        folder.mkdir()
        found = {"user": ["user-0000"], "channel": ["gradients"], "queries": [50], "agreement": [agreement]}
        pd.DataFrame(found).to_parquet(folder / "extraction.parquet")
    summary = write_sweep_report(sweep)
    assert "**extraction**: agreement with psi (medians)." in summary
    assert "gradients, queries 50 |" in summary
    assert next(line for line in summary.splitlines() if line.endswith("| 40.0 |")).startswith("| clip 0.1 sign |")
    kept = pd.read_parquet(sweep.path / "studies" / "extraction.parquet")
    assert list(kept["provider.defence"]) == ["default", "clip 0.1 sign"]
    assert list(kept["agreement"]) == [0.9, 0.4]


def test_a_sweep_without_studies_says_nothing_of_any(tmp_path: Path) -> None:
    sweep = SweepFolder.create(tmp_path / "out", "small", load_cells(config_with(tmp_path, {"seed": [0]})))
    finish(sweep, 0, 0.7)
    assert "**" not in write_sweep_report(sweep)
    assert not (sweep.path / "studies").exists()
