"""A run whose evaluators have no labels: no accuracy, and the mean of all images is the only trivial guess."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from roles.evaluator.results import AttackResult
from sim.report.page.tables import numbers, users_table
from sim.report.page.write import write_page
from sim.report.sweep import summary_table
from sim.report.table import measured_users
from sim.report.write import write_report
from sim.run.folder import RunFolder
from sim.run.subject import CONTROL, Subject
from tests.sim import made_up_run


def without_labels(result: AttackResult) -> AttackResult:
    return replace(
        result,
        protected=replace(result.protected, accuracy=None),
        estimates={name: replace(estimate, accuracy=None) for name, estimate in result.estimates.items()},
        baselines={"mean_image": result.baselines["mean_image"]},
        pictures={name: images for name, images in result.pictures.items() if name != "class_mean"},
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Five users and one that has failed, with its report and figures."""
    attack = made_up_run.experiment_of(1).attack.model_dump() | {"labels": False}
    path = tmp_path_factory.mktemp("without-labels") / "run"
    run = made_up_run.make(path, made_up_run.experiment_of(6, attack=attack), failed={5: "no more disk"})
    for subject in (CONTROL, *(Subject("user", user) for user in range(5))):
        result = run.attack(subject)
        assert result is not None
        run.keep_attack(subject, without_labels(result))
    write_report(run, run.experiment())
    return run


@pytest.fixture
def table(run: RunFolder) -> pd.DataFrame:
    return pd.read_parquet(run.path / "table.parquet")


def test_its_table_has_no_accuracies_and_no_class_mean(table: pd.DataFrame) -> None:
    named = ("accuracy", "accuracy_low", "accuracy_high", "class_mean_psnr", "class_mean_ssim", "itn_paper_accuracy")
    assert not set(named) & set(table.columns)
    assert {"plain_accuracy", "mean_image_ssim", "itn_paper_psnr", "itn_strong_recovered"} <= set(table.columns)


def test_what_is_had_beyond_the_mean_image_decides_on_verdicts_and_on_what_is_recovered(table: pd.DataFrame) -> None:
    # The mean image has a median of 13.5 dB and SSIM 0.15: a class mean of 15.5 dB and 0.25 would hide the first user.
    assert list(table["verdict"][:5]) == ["partial", "partial", "visible", "recovered", "recovered"]
    assert table["itn_strong_recovered"][3] == 1


def test_its_users_are_measured_all_the_same(table: pd.DataFrame) -> None:
    assert len(measured_users(table)) == 5
    found = numbers(table)
    assert not {"accuracy", "gap"} & set(found)
    assert (found["users"], found["failed"]) == (5, pytest.approx(1 / 6))
    assert found["gain"] == pytest.approx(found["ssim"] - 0.15, abs=0.01)


def test_its_summary_says_so_and_has_a_dash_where_an_accuracy_would_be(run: RunFolder) -> None:
    summary = (run.path / "summary.md").read_text()
    assert "evaluators had no labels, so that there are no accuracies" in summary
    assert "% of protected test images" not in summary
    assert "| user 3 | recovered | 100.0 | 0.0 | ITN strong | 22.5 | 0.65 |" in summary
    assert "| trivial guess | - | - | - | mean image | 13.5 | 0.15 |" in summary
    assert "- Over 5 users, median [95% bootstrap interval over users]: best attack's SSIM 0.65 [" in summary
    assert "least accurate" not in summary
    assert "- user 5 failed: no more disk" in summary


def test_it_has_all_figures_but_those_of_accuracies(run: RunFolder) -> None:
    drawn = {path.stem for path in (run.path / "figures").glob("*.png")}
    assert {"psnr", "curves", "strips-user-0000", "strips-control-blur"} <= drawn
    assert not {"trade-off", "accuracy"} & drawn


def test_its_page_leaves_accuracies_out(run: RunFolder, table: pd.DataFrame) -> None:
    page = write_page([run.path]).read_text()
    assert "evaluators had no labels" in page
    assert "SSIM to be had, median user" in page
    assert "accuracy</dt>" not in page
    assert "a mark a user" not in page
    groups = {column["group"] for column in users_table(table)[0]["columns"]}
    assert "mean image" in groups and "class mean" not in groups


def test_it_is_compared_with_a_run_that_has_labels(run: RunFolder, tmp_path: Path) -> None:
    other = made_up_run.make(tmp_path / "run", made_up_run.experiment_of(2))
    page = write_page([run.path, other.path], tmp_path / "both.html").read_text()
    assert "attack.labels" in page


def test_beside_cells_that_have_labels_its_row_of_a_sweep_has_dashes(run: RunFolder, tmp_path: Path) -> None:
    other = made_up_run.make(tmp_path / "run", made_up_run.experiment_of(2))
    cells = [pd.read_parquet(folder.path / "table.parquet") for folder in (run, other)]
    both = pd.concat([table.assign(labels=labels) for table, labels in zip(cells, ("no", "yes"), strict=True)])
    lines = summary_table(both.reset_index(drop=True), ["labels"]).splitlines()
    assert lines[2].startswith("| no | users | 5 of 6 | - | - | 10.5/0.15 | - |")
    assert next(line for line in lines if line.startswith("| yes | users |")).startswith("| yes | users | 2 | 70.0 (")
