"""Runs that are killed or stopped, and go on."""

import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from flwr.app import Message

import sim.server_app
from sim.config.experiment import Experiment
from sim.phases.roster import RunFailed
from sim.run.folder import RunFolder
from tests.sim.in_process_run import (
    STRATEGIES,
    KilledError,
    Whole,
    failing,
    killed_after,
    run_in,
    table_of,
    whole_run,
    with_strategy,
)

pytestmark = pytest.mark.usefixtures("without_figures")


SHARES = (0.1, 0.5, 0.8, 0.95)


@pytest.fixture(scope="module")
def whole_runs() -> dict[str, Whole]:
    return {}


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("share", SHARES)
def test_a_run_killed_at_any_message_resumes_to_the_same_table(
    small: Experiment,
    tmp_path_factory: pytest.TempPathFactory,
    whole_runs: dict[str, Whole],
    strategy: str,
    share: float,
) -> None:
    experiment = with_strategy(small, strategy)
    if strategy not in whole_runs:
        whole_runs[strategy] = whole_run(tmp_path_factory.mktemp("run"), experiment, SHARES)
    whole = whole_runs[strategy]
    run, grid = run_in(whole.killed[share], experiment)
    pd.testing.assert_frame_equal(table_of(run), table_of(whole.run), check_dtype=False)
    for user in (0, 1):
        resumed, theta = run.theta(user), whole.run.theta(user)
        assert all(torch.equal(resumed[name], theta[name]) for name in theta)
    assert run.rounds() == whole.run.rounds()
    # Done again is at most one of three rounds, what begins a run (roles, psi), and an attack that was not finished.
    assert len(grid.replies) <= (1 - share) * whole.replies + whole.replies / 3 + 8


def test_a_user_whose_state_is_damaged_is_named_and_costs_no_other_user_its_result(
    small: Experiment, tmp_path: Path
) -> None:
    def tamper(message: Message, reply: Message) -> Message:
        rounds = {path.parent.name for path in (tmp_path / "run" / "state").glob("user-*/round-*.safetensors")}
        if rounds == {"user-0000", "user-0001"}:
            raise KilledError
        return reply

    with pytest.raises(KilledError):
        run_in(tmp_path / "run", small, tamper)
    for path in (tmp_path / "run" / "state").glob("user-0001*/*.safetensors"):
        path.write_bytes(b"not weights")
    table = table_of(run_in(tmp_path / "run", small)[0])
    assert "not a readable safetensors file" in table.loc["user-0001", "failure"]
    assert table.loc["user-0000", "failure"] == ""
    assert table.loc["user-0000", "steps"] == 4


def test_a_resumed_run_that_gets_another_psi_fails_in_one_line_and_keeps_what_it_knew(
    small: Experiment, tmp_path: Path
) -> None:
    with pytest.raises(KilledError):
        run_in(tmp_path / "run", small, killed_after(30))
    run = RunFolder(tmp_path / "run")
    known = run.facts()["psi"] | {"digest": "5e" * 32}
    run.note({"psi": known})
    with pytest.raises(
        RunFailed, match=r"^psi is another one than in an earlier attempt \(digest \w{8}, was 5e5e5e5e\)"
    ):
        run_in(tmp_path / "run", small)
    assert run.facts()["psi"] == known


def test_what_a_training_would_go_on_from_is_deleted_once_its_user_has_published_and_has_not_failed(
    small: Experiment, tmp_path: Path
) -> None:
    def with_state(run: RunFolder) -> set[str]:
        return {path.parent.name for path in (run.path / "state").glob("user-*/*.safetensors")}

    run, _ = run_in(tmp_path / "run", small, failing("evaluate.test"))
    assert with_state(run) == {"user-0000"}
    run, _ = run_in(tmp_path / "run", small)
    assert with_state(run) == set()
    # A complete run is resumed to the same end, with nothing to do.
    before = table_of(run)
    run, grid = run_in(tmp_path / "run", small)
    assert {message.metadata.message_type for message in grid.sent} == {"query.role", "train.classifier", "query.psi"}
    pd.testing.assert_frame_equal(table_of(run), before)


def test_the_time_that_a_run_takes_is_noted_while_it_lasts_and_when_it_fails(
    small: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sim.server_app, "_LOG_INTERVAL_S", 0)
    noted: list[float] = []

    def tamper(message: Message, reply: Message) -> Message:
        noted.append(RunFolder(tmp_path / "run").facts().get("seconds", 0.0))
        if len(noted) == 40:
            time.sleep(0.2)
            raise KilledError
        return reply

    began = time.monotonic()
    with pytest.raises(KilledError):
        run_in(tmp_path / "run", small, tamper)
    taken, facts = time.monotonic() - began, RunFolder(tmp_path / "run").facts()
    assert noted == sorted(noted) and len(set(noted)) > 3
    assert noted[-1] + 0.2 <= facts["seconds"] <= taken
    assert 0.2 <= facts["users_seconds"] < facts["seconds"]
    run, _ = run_in(tmp_path / "run", small)
    assert run.facts()["seconds"] > facts["seconds"]
