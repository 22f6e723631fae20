"""Runs under a strategy that averages."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from flwr.app import Error, Message

import sim
from roles.common.weights import without_statistics
from sim.config.experiment import Experiment
from sim.exchange.messages import JOB, METRICS
from sim.phases.roster import RunFailed
from sim.run.folder import RunFolder
from tests.sim.in_memory_grid import USERS
from tests.sim.in_process_run import run_in, table_of, with_strategy

pytestmark = pytest.mark.usefixtures("without_figures")


def test_with_local_batch_norm_users_publish_one_set_of_weights_with_statistics_of_their_own(
    small: Experiment, tmp_path: Path
) -> None:
    run, _ = run_in(tmp_path / "run", with_strategy(small, "fedavg, local batch norm"))
    first, second = run.theta(0), run.theta(1)
    weights = without_statistics(first)
    assert all(torch.equal(second[name], value) for name, value in weights.items())
    assert first.keys() - weights.keys()
    assert all(not torch.equal(first[name], second[name]) for name in first.keys() - weights.keys())
    # What is published is what is tested and attacked.
    table = table_of(run)
    assert table.loc["user-0000", "itn_itn_psnr"] != table.loc["user-0001", "itn_itn_psnr"]
    summary = (run.path / "summary.md").read_text()
    assert "(fedavg, batch-norm statistics local, sizes X')" in summary
    assert "All users publish the same weights, each with batch-norm statistics of its own" in summary


@pytest.mark.parametrize(("strategy", "asked"), [("fedavg", 3), ("fedavg, local batch norm", 6)])
def test_how_the_average_of_each_round_does_is_kept_and_asked_of_no_more_users_than_have_different_answers(
    small: Experiment, tmp_path: Path, strategy: str, asked: int
) -> None:
    run, grid = run_in(tmp_path / "run", with_strategy(small, strategy))
    rounds = sim.load(run.path).rounds
    assert list(rounds["round"]) == [1, 2, 3]
    replies = [reply for reply in grid.final_replies("evaluate.resume") if reply.metadata.src_node_id in USERS]
    records = [reply.content.metric_records for reply in replies]
    # A user's test, which is asked of all, has no metrics.
    answers = [dict(record[METRICS]) for record in records if METRICS in record]
    assert len(answers) == asked
    per_round = asked // 3
    last = answers[-per_round:]
    assert rounds["validation_loss"].iloc[-1] == pytest.approx(sum(a["loss"] for a in last) / per_round)
    assert rounds["validation_accuracy"].iloc[-1] == pytest.approx(sum(a["accuracy"] for a in last) / per_round)


def test_a_user_that_has_missed_the_last_round_of_averaging_shares_in_the_average_when_the_run_is_resumed(
    small: Experiment, tmp_path: Path
) -> None:
    def tamper(message: Message, reply: Message) -> Message:
        kind, config = message.metadata.message_type, message.content.config_records.get(JOB, {})
        lost = kind == "query.publish" or (kind == "train" and config["server-round"] == 3)
        return Message(Error(0, "no disk"), reply_to=message) if lost and message.metadata.dst_node_id == 201 else reply

    experiment = with_strategy(small, "fedavg, local batch norm")
    run, _ = run_in(tmp_path / "run", experiment, tamper)
    assert list(table_of(run)["failure"]) == ["no disk", "", ""]
    run, grid = run_in(tmp_path / "run", experiment)
    assert not grid.of_type("train")
    table = table_of(run)
    assert list(table["failure"]) == ["", "", ""]
    # Of three rounds for four steps, it has gone through two.
    assert list(table["steps"][:2]) == [2, 6]
    weights = without_statistics(run.theta(0))
    assert all(torch.equal(run.theta(1)[name], value) for name, value in weights.items())


def test_a_round_that_no_user_finishes_is_not_kept_and_is_tried_again_when_resumed(
    small: Experiment, tmp_path: Path
) -> None:
    def tamper(message: Message, reply: Message) -> Message:
        lost = message.metadata.message_type == "train" and message.content.config_records[JOB]["server-round"] == 2
        return Message(Error(0, f"no disk at {message.metadata.dst_node_id}"), reply_to=message) if lost else reply

    experiment = with_strategy(small, "fedavg")
    with pytest.raises(RunFailed, match=r"^no user finished round 2; the first said: no disk at 201$"):
        run_in(tmp_path / "run", experiment, tamper)
    assert RunFolder(tmp_path / "run").finished_rounds() == 1
    run, grid = run_in(tmp_path / "run", experiment)
    assert len(grid.of_type("train")) == 4
    unbroken, _ = run_in(tmp_path / "unbroken", experiment)
    pd.testing.assert_frame_equal(table_of(run), table_of(unbroken), check_dtype=False)
