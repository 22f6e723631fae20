"""Attacks that are added to a finished run: what they change of its folder, and what they leave as it is."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from flwr.app import Message
from typer.testing import CliRunner

import sim.client_app
from roles.common.weights import State, load
from sim.cli import cli
from sim.cli.attacks import attacked
from sim.config.experiment import Experiment
from sim.report.page.write import write_page
from sim.report.results import Run
from sim.run.folder import RunFolder
from tests.sim.in_process_run import (
    KilledError,
    evaluation_failing,
    killed_after,
    run_in,
    table_of,
    with_strategy,
)

pytestmark = pytest.mark.usefixtures("without_figures")
WIDE = ["name=wide", "width=2"]
SUBJECTS = ("user-0000", "user-0001", "control-blur")


@pytest.fixture(scope="module")
def known() -> dict[str, Path]:
    return {}


@pytest.fixture
def finished(
    small: Experiment, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, known: dict[str, Path]
) -> Path:
    """A copy of one complete run, to be attacked again."""
    if not known:
        known["run"] = run_in(tmp_path_factory.mktemp("finished") / "run", small)[0].path
    return Path(shutil.copytree(known["run"], tmp_path / "run"))


def kept(run: Path, subject: str) -> State:
    return load(run / "attacks" / subject / "measures.safetensors")[0]


def add(run: Path, kind: str, keys: list[str], users: list[int] | None = None) -> Experiment:
    attacked(run, kind, keys, users or [])
    return RunFolder(run).experiment()


def assert_stayed(before: State, after: State) -> None:
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_an_inverse_network_is_trained_against_everybody_and_nothing_else_is_done_again(finished: Path) -> None:
    before, table = {name: kept(finished, name) for name in SUBJECTS}, table_of(RunFolder(finished))
    run, grid = run_in(finished, add(finished, "itn", WIDE))
    assert len(grid.of_type("evaluate.itn")) == 3
    assert not {"train", "query.publish", "evaluate.test"} & {sent.metadata.message_type for sent in grid.sent}
    for name in SUBJECTS:
        after = kept(finished, name)
        assert_stayed(before[name], after)
        assert {"itn/wide/psnr", "itn/wide/ssim", "picture/wide"} == after.keys() - before[name].keys()
    added = table_of(run)
    assert added["itn_wide_ssim"].notna().all()
    unchanged = [column for column in table if column not in ("exposed", "verdict")]
    pd.testing.assert_frame_equal(added[unchanged], table[unchanged])
    assert "itn_wide_psnr" in (finished / "columns.md").read_text()


@pytest.mark.parametrize("strategy", ["independent", "fedavg"])
def test_an_added_inverse_network_finds_what_it_had_found_in_the_run_from_the_start(
    small: Experiment, finished: Path, tmp_path: Path, strategy: str
) -> None:
    before = finished
    if strategy != "independent":
        before = run_in(tmp_path / "later", with_strategy(small, strategy))[0].path
    later, _ = run_in(before, added := add(before, "itn", WIDE))
    at_once, _ = run_in(tmp_path / "at-once", added)
    pd.testing.assert_frame_equal(table_of(later), table_of(at_once), check_dtype=False)


def test_of_some_users_others_have_no_values_and_the_summary_says_who_was_attacked(finished: Path) -> None:
    before = (finished / "attacks" / "user-0000" / "measures.safetensors").read_bytes()
    run, grid = run_in(finished, add(finished, "itn", WIDE, [1]))
    assert len(grid.of_type("evaluate.itn")) == 2
    assert (finished / "attacks" / "user-0000" / "measures.safetensors").read_bytes() == before
    table = table_of(run)
    assert list(table["itn_wide_psnr"].notna()) == [False, True, True]
    assert list(table["failure"]) == ["", "", ""]
    assert table["verdict"].notna().all()
    said = "- The wide ITN was trained against user 1 and the control alone: of other users, it says nothing."
    assert said in (finished / "summary.md").read_text()
    page = write_page([finished]).read_text()
    assert said[2:] in page and "ITN wide" in page


def test_a_notebook_attacks_with_it_by_its_name_and_gets_the_same(finished: Path) -> None:
    run, _ = run_in(finished, add(finished, "itn", WIDE))
    measures, estimates = Run(run).attack(1, "wide")
    assert len(measures) == len(estimates)
    assert list(measures["psnr"]) == list(Run(run).measures(1)["itn_wide_psnr"])


def test_a_study_is_added_with_a_table_of_its_own(finished: Path) -> None:
    before = {name: (finished / "attacks" / name / "measures.safetensors").read_bytes() for name in SUBJECTS}
    keys = ["images=2", "steps=2"]
    run, grid = run_in(finished, add(finished, "inversion", keys, [1]))
    assert len(grid.of_type("evaluate.study")) == 1 and not grid.of_type("evaluate.itn")
    assert list(pd.read_parquet(finished / "studies" / "inversion.parquet")["user"]) == ["user-0001"]
    assert "- inversion: Descent through h_theta" in (finished / "summary.md").read_text()
    assert before == {name: (finished / "attacks" / name / "measures.safetensors").read_bytes() for name in SUBJECTS}
    run, grid = run_in(finished, add(finished, "transfer", ["images=2"]))
    assert len(grid.of_type("evaluate.study")) == 2
    assert sorted(Run(run).studies) == ["inversion", "transfer"]


def test_an_attack_that_is_killed_goes_on_where_it_was(finished: Path) -> None:
    experiment = add(finished, "itn", WIDE)
    assert not RunFolder(finished).is_done()
    with pytest.raises(KilledError):
        run_in(finished, experiment, killed_after(12))
    done = [name for name in SUBJECTS if "itn/wide/psnr" in kept(finished, name)]
    assert 1 <= len(done) < 3
    run, grid = run_in(finished, experiment)
    assert len(grid.of_type("evaluate.itn")) == 3 - len(done)
    assert table_of(run)["itn_wide_psnr"].notna().all()


def test_an_evaluator_that_goes_on_in_another_process_still_knows_what_it_was_told(finished: Path) -> None:
    def forgetting(message: Message, reply: Message) -> Message:
        sim.client_app._store.forget()
        return reply

    before = {name: kept(finished, name) for name in SUBJECTS}
    run, grid = run_in(finished, add(finished, "itn", WIDE), forgetting)
    # Of each subject, the labels of one network's estimates are asked for; of the control, those of blurred images too.
    assert len(grid.of_type("evaluate.resume")) == 4
    for name in SUBJECTS:
        assert_stayed(before[name], kept(finished, name))
    assert table_of(run)["itn_wide_psnr"].notna().all()


def test_one_that_fails_is_named_costs_no_earlier_result_and_is_tried_again(finished: Path) -> None:
    experiment = add(finished, "itn", WIDE)
    run, _ = run_in(finished, experiment, evaluation_failing("user-0001"))
    table = table_of(run)
    assert list(table["failure"]) == ["", "out of memory", ""]
    assert table.loc["user-0001", "verdict"] and table.loc["user-0001", "itn_itn_psnr"] > 0
    assert "- user 1 lacks an attack: out of memory" in (finished / "summary.md").read_text()
    assert not run.is_done()
    run, grid = run_in(finished, experiment)
    assert len(grid.of_type("evaluate.itn")) == 1
    assert run.is_done() and list(table_of(run)["failure"]) == ["", "", ""]


def test_time_and_command_of_what_was_added_are_told_apart(finished: Path) -> None:
    before = RunFolder(finished).facts()["seconds"]
    run, _ = run_in(finished, add(finished, "itn", WIDE))
    (added,) = run.facts()["added"]
    assert added["seconds_before"] == before < run.facts()["seconds"]
    assert "s for attacks that were added to the finished run." in (finished / "summary.md").read_text()
    run.note({"added": [added | {"command": ["attack", "runs/x y", "--kind", "itn"], "processor": "another"}]})
    page = write_page([finished]).read_text()
    assert "veilsim attack &#39;runs/x y&#39; --kind itn" in page
    assert "attacks that were added to the finished run (on another)" in page


def test_veilsim_attack_runs_it_through_flower_and_shows_what_came_of_it(finished: Path) -> None:
    done = CliRunner().invoke(cli, ["attack", str(finished), "--kind", "itn", *WIDE, "--user", "1"])
    assert done.exit_code == 0, done.output + (finished / "flower.log").read_text()[-3000:]
    table = table_of(RunFolder(finished))
    assert list(table["itn_wide_psnr"].notna()) == [False, True, True]
    assert "The wide ITN was trained against user 1" in done.output.replace("\n", " ")
    assert RunFolder(finished).is_done()
