"""What a whole run does, and what becomes of it where something fails."""

import time
from pathlib import Path

import pandas as pd
import pytest
from flwr.app import Error, Message, RecordDict

import sim.exchange.relay
import sim.server_app
from sim.config.experiment import Experiment
from sim.exchange.messages import JOB, REQUEST_TYPES
from sim.phases.roster import RunFailed
from sim.run.folder import RunFolder
from sim.run.progress import Status
from sim.server_app import run_experiment
from tests.sim.in_memory_grid import PROVIDER, USERS, InMemoryGrid
from tests.sim.in_process_run import (
    EVALUATOR,
    STRATEGIES,
    Tamper,
    evaluation_failing,
    failing,
    run_in,
    table_of,
    with_strategy,
)

pytestmark = pytest.mark.usefixtures("without_figures")


@pytest.fixture
def unbroken(small: Experiment, tmp_path_factory: pytest.TempPathFactory, known: dict[str, RunFolder]) -> RunFolder:
    """A run in which nothing has failed, the same one for all tests here: to be read."""
    if not known:
        known["unbroken"] = run_in(tmp_path_factory.mktemp("unbroken") / "run", small)[0]
    return known["unbroken"]


@pytest.fixture(scope="module")
def known() -> dict[str, RunFolder]:
    return {}


@pytest.mark.with_figures
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_user_and_the_control_end_with_a_row(small: Experiment, tmp_path: Path, strategy: str) -> None:
    run, grid = run_in(tmp_path / "run", with_strategy(small, strategy))
    table = table_of(run)
    assert list(table.index) == ["user-0000", "user-0001", "control-blur"]
    assert list(table["images"][:2]) == [24, 36]
    assert list(table["steps"][:2]) == [4, 6]
    assert (table["failure"].fillna("") == "").all()
    assert table["itn_itn_psnr"].notna().all()
    assert Status.read(run.path).phase == "complete"
    subjects = ["shared"] if strategy == "fedavg" else ["user-0000", "user-0001"]
    drawn = {path.name for path in (run.path / "figures").glob("*.png")}
    assert drawn == {
        "psnr.png",
        "curves.png",
        "trade-off.png",
        *(["rounds.png"] if strategy != "independent" else []),
        *(f"strips-{subject}.png" for subject in [*subjects, "control-blur"]),
    }
    # An independent user is told to train once, and published theta is attacked once however many publish it.
    messages = {"independent": (2, 3), "fedavg": (6, 2), "fedavg, local batch norm": (6, 3)}[strategy]
    assert (len(grid.of_type("train")), len(grid.of_type("evaluate.itn"))) == messages
    assert ("selected_epoch" in table) == (strategy == "independent")
    summary = (run.path / "summary.md").read_text()
    assert ("All users publish the same theta: it was attacked once" in summary) == (strategy == "fedavg")


@pytest.mark.parametrize(
    ("message_type", "node", "without"),
    [
        ("train", 201, "steps"),
        ("train.resume", 201, "steps"),
        ("query.publish", 201, "steps"),
        ("evaluate.test", 201, "accuracy"),
        ("evaluate.resume", 201, "accuracy"),
    ],
)
def test_a_user_that_fails_anywhere_is_named_alone_and_tried_again_when_resumed(
    small: Experiment, tmp_path: Path, unbroken: RunFolder, message_type: str, node: int, without: str
) -> None:
    run, _ = run_in(tmp_path / "run", small, failing(message_type, node))
    table = table_of(run)
    assert table.loc["user-0000", "failure"] == "no more disk"
    assert pd.isna(table.loc["user-0000", without])
    others = ["user-0001", "control-blur"]
    pd.testing.assert_frame_equal(table.loc[others], table_of(unbroken).loc[others], check_dtype=False)
    assert "user 0 failed: no more disk" in (run.path / "summary.md").read_text()

    run, _ = run_in(tmp_path / "run", small)
    pd.testing.assert_frame_equal(table_of(run), table_of(unbroken), check_dtype=False)


def test_an_attack_that_fails_is_named_in_its_users_row(small: Experiment, tmp_path: Path, unbroken: RunFolder) -> None:
    run, _ = run_in(tmp_path / "run", small, evaluation_failing("user-0001"))
    table = table_of(run)
    assert table.loc["user-0001", "failure"] == "out of memory"
    assert table.loc["user-0000", "failure"] == ""
    assert (run.path / "users" / "user-0001" / "theta.safetensors").is_file()
    run, grid = run_in(tmp_path / "run", small)
    pd.testing.assert_frame_equal(table_of(run), table_of(unbroken), check_dtype=False)
    # Nothing that was finished is done again.
    assert not grid.of_type("train")
    assert not grid.of_type("evaluate.test")
    assert len(grid.of_type("evaluate.itn")) == 1


def test_a_reply_of_nonsense_costs_its_user_its_row_and_nothing_else(small: Experiment, tmp_path: Path) -> None:
    def tamper(message: Message, reply: Message) -> Message:
        nonsense = message.metadata.message_type == "query.publish" and message.metadata.dst_node_id == 201
        return Message(RecordDict(), reply_to=message) if nonsense else reply

    table = table_of(run_in(tmp_path / "run", small, tamper)[0])
    assert table.loc["user-0000", "failure"] == "the reply has no record 'arrays'"
    assert table.loc["user-0001", "failure"] == ""


@pytest.mark.parametrize("strategy", ["independent", "fedavg"])
def test_a_user_whose_node_is_gone_is_named(small: Experiment, tmp_path: Path, strategy: str) -> None:
    def tamper(message: Message, reply: Message) -> Message:
        if message.metadata.dst_node_id != 201 or message.metadata.message_type == "query.role":
            return reply
        lost = Message(Error(0, "node is unavailable"), reply_to=message)
        # What Flower says in place of a node comes from the SuperLink.
        lost.metadata.__dict__["_src_node_id"] = 1
        return lost

    table = table_of(run_in(tmp_path / "run", with_strategy(small, strategy), tamper)[0])
    assert table.loc["user-0000", "failure"] == "node is unavailable"
    assert table.loc["user-0001", "failure"] == ""


def test_a_round_ends_at_its_deadline_without_those_that_are_slow(
    small: Experiment, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def slow(message: Message) -> bool:
        job = message.content.config_records.get(JOB, {})
        in_first_round = message.metadata.message_type == "train" and job.get("server-round") == 1
        return in_first_round and message.metadata.dst_node_id == 201

    experiment = with_strategy(small, "fedavg")
    changed = experiment.strategy.model_copy(update={"deadline": 3.0})
    experiment = experiment.model_copy(update={"strategy": changed})
    began = time.monotonic()
    table = table_of(run_in(tmp_path / "run", experiment, slow=slow)[0])
    assert time.monotonic() - began > 3
    assert "round 1 went on without user-0000" in caplog.text and "round 2" not in caplog.text
    assert (table["failure"] == "").all() and (table["accuracy"][["user-0000", "user-0001"]] > 0).all()


def test_without_any_user_that_finished_the_run_fails_with_the_reason_and_attacks_nothing(
    small: Experiment, tmp_path: Path
) -> None:
    def tamper(message: Message, reply: Message) -> Message:
        diverged = message.metadata.message_type == "train"
        return Message(Error(0, "diverged: lower user.training.lr"), reply_to=message) if diverged else reply

    for strategy, what in (("independent", "its training"), ("fedavg", "round 1")):
        run = RunFolder.create(tmp_path / strategy, with_strategy(small, strategy))
        grid = InMemoryGrid([PROVIDER, *USERS, EVALUATOR], tamper=tamper)
        with pytest.raises(RunFailed, match=rf"^no user finished {what}; the first said: diverged: lower user"):
            run_experiment(grid, run, run.experiment())
        assert not grid.of_type("evaluate.itn")


@pytest.mark.parametrize(
    ("tamper", "failed"),
    [
        # The attack on what all publish is another user's as well, and is done.
        (failing("evaluate.test", node=202), "user-0001"),
        (evaluation_failing("shared"), "shared"),
        (evaluation_failing("control-blur"), "control-blur"),
    ],
)
def test_what_failed_keeps_a_run_from_being_done_until_it_is_done_and_forgotten(
    small: Experiment, tmp_path: Path, tamper: Tamper, failed: str
) -> None:
    experiment = with_strategy(small, "fedavg")
    run, _ = run_in(tmp_path / "run", experiment, tamper)
    assert run.failures() == [failed]
    assert not run.is_done()
    run, grid = run_in(tmp_path / "run", experiment)
    assert run.failures() == []
    assert run.is_done()
    assert len(grid.of_type("evaluate.test") + grid.of_type("evaluate.itn")) == 1


def test_a_run_whose_psi_has_changed_fails_and_is_not_complete(small: Experiment, tmp_path: Path) -> None:
    def tamper(message: Message, reply: Message) -> Message:
        if message.metadata.message_type == "query.psi":
            reply.content.config_records["psi"]["digest"] = "5e" * 32
        return reply

    with pytest.raises(RunFailed, match=r"^psi has changed while users trained: the results of this run mean nothing$"):
        run_in(tmp_path / "run", small, tamper)
    assert not RunFolder(tmp_path / "run").has_table()


def test_a_federation_of_other_nodes_than_the_experiment_needs_is_one_line(small: Experiment, tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", small)
    with pytest.raises(RunFailed, match=r"^the nodes hold evaluator roles \[\], expected \[0\]$"):
        run_experiment(InMemoryGrid([PROVIDER, *USERS]), run, run.experiment())


def test_a_deployment_ends_with_the_table_of_a_simulation_and_gives_no_node_two_things_to_do(
    small: Experiment, tmp_path: Path, unbroken: RunFolder
) -> None:
    roles = [("provider", 0), ("user", 0), ("user", 1), ("evaluator", 0)]
    configs = [{"role": role, "partition-id": number} for role, number in roles]
    run, grid = run_in(tmp_path / "run", small, configs=configs)
    pd.testing.assert_frame_equal(table_of(run), table_of(unbroken), check_dtype=False)
    assert set(grid.most_in_flight.values()) == {1}


def test_in_a_simulation_attacks_are_sent_ahead_of_an_evaluator_that_keeps_nothing_between_them(
    small: Experiment, tmp_path: Path
) -> None:
    users = {"count": 4, "partition": {"kind": "iid"}, "images": 24, "validation_images": 20}
    _, grid = run_in(tmp_path / "run", Experiment.model_validate(small.model_dump() | {"users": users}))
    assert grid.most_in_flight.pop(201 + 4) == 2
    assert set(grid.most_in_flight.values()) == {1}


def test_a_deployment_with_direct_exchange_is_told_what_it_needs(small: Experiment, tmp_path: Path) -> None:
    def tamper(message: Message, reply: Message) -> Message:
        if message.metadata.message_type == "query.role":
            reply.content.config_records["role"]["simulated"] = False
        return reply

    runtime = small.runtime.model_copy(update={"exchange": "direct"})
    with pytest.raises(
        RunFailed, match=r"^direct exchange is for simulations: a deployment needs runtime.exchange=endpoint"
    ):
        run_in(tmp_path / "run", small.model_copy(update={"runtime": runtime}), tamper)


def test_a_user_that_is_trained_is_attacked_before_others_begin(
    small: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No more is under way than workers are busy with: here messages arrive at once.
    monkeypatch.setattr(sim.exchange.relay, "_LATENCY_S", 1e-9)
    users = {"count": 8, "partition": {"kind": "iid"}, "images": 24, "validation_images": 20}
    _, grid = run_in(tmp_path / "run", Experiment.model_validate(small.model_dump() | {"users": users}))
    types = [message.metadata.message_type for message in grid.sent]
    last_begins = len(types) - types[::-1].index("train")
    assert types[:last_begins].count("train") == 8
    assert types[:last_begins].count("evaluate.itn") >= 2


def questions_in(grid: InMemoryGrid) -> int:
    sent = [message for message in grid.sent if message.metadata.message_type in REQUEST_TYPES]
    return sum(len({key.partition("/")[0] for key in message.content if "/" in key}) for message in sent)


def test_what_was_asked_of_the_provider_is_kept_by_the_second_and_counts_over_all_attempts(
    small: Experiment, tmp_path: Path
) -> None:
    run, grid = run_in(tmp_path / "run", small, failing("evaluate.test"))
    load = pd.DataFrame(run.load())
    assert list(load.columns) == ["second", "width", "requests", "images", "bytes"]
    assert load["second"].is_monotonic_increasing and (abs(load["second"] - time.time()) < 600).all()
    assert load["requests"].sum() == questions_in(grid)
    # Users count what they ask for in training; there are requests for ids, and for labels of test images, as well.
    table = table_of(run)
    assert load["images"].sum() > table["queried_images"].sum()
    assert load["bytes"].sum() > table["sent_bytes"].sum()

    run, again = run_in(tmp_path / "run", small)
    assert questions_in(again) > 0
    assert sum(row["requests"] for row in run.load()) == questions_in(grid) + questions_in(again)


def test_every_accuracy_and_ssim_has_an_interval_over_the_test_images_and_every_column_is_described(
    small: Experiment, tmp_path: Path
) -> None:
    run, _ = run_in(tmp_path / "run", small)
    table = table_of(run)
    for name in ("accuracy", "itn_itn_ssim"):
        assert ((table[f"{name}_low"] <= table[name]) & (table[name] <= table[f"{name}_high"])).all()
    described = (run.path / "columns.md").read_text()
    assert all(f"| `{column}` |" in described for column in ["subject", *table.columns])
    assert "this axis of the sweep" not in described
