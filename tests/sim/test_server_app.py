"""A whole run in this process: the real ServerApp, the real ClientApp, and a Grid that can be made to fail anywhere."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from flwr.app import Error, Message, RecordDict

import roles.provider.pupils
import roles.user.lessons
import sim.relay
import sim.server_app
from roles.common.weights import load, without_statistics
from sim.config import Experiment
from sim.messages import JOB, REQUEST_TYPES
from sim.progress import Status
from sim.runs import RunFolder
from sim.server_app import RunFailed, run_experiment
from sim.summary import shown_users, summary_of
from tests.sim.in_memory_grid import PROVIDER, USERS, InMemoryGrid

pytestmark = pytest.mark.usefixtures("without_figures")
Tamper = Callable[[Message, Message], Message]
EVALUATOR = 203


@pytest.fixture
def small(experiment: Experiment) -> Experiment:
    """Three rounds of users, one evaluator, a psi of a few steps, attacks of one."""
    return Experiment.model_validate(
        experiment.model_dump()
        | {
            "classifier": {"crop_padding": 0, "training": {"epochs": 0.2, "lr": 0.01}},
            "strategy": {"rounds": 3},
            "attack": {
                "pairs": 8,
                "test_images": 6,
                "pictures": 2,
                "blur_sigma": 0.5,
                "itns": [{"name": "itn", "width": 1, "depth": 2, "training": {"epochs": 1}}],
            },
            "runtime": experiment.runtime.model_dump() | {"evaluators": 1},
        }
    )


STRATEGIES: dict[str, dict[str, str]] = {
    "independent": {"name": "independent"},
    "fedavg": {"name": "fedavg"},
    "fedavg, local batch norm": {"name": "fedavg", "batch_norm": "local"},
}


def with_strategy(experiment: Experiment, name: str) -> Experiment:
    strategy = experiment.strategy.model_copy(update=STRATEGIES[name])
    return experiment.model_copy(update={"strategy": strategy})


def run_in(folder: Path, experiment: Experiment, tamper: Tamper | None = None) -> tuple[RunFolder, InMemoryGrid]:
    """Run, or go on with the run in ``folder``."""
    run = RunFolder(folder)
    if not (folder / "config.yaml").exists():
        run = RunFolder.create(folder, experiment)
    nodes = [PROVIDER, *range(USERS[0], USERS[0] + experiment.user_count + 1)]  # the last one evaluates
    grid = InMemoryGrid(nodes, **({} if tamper is None else {"tamper": tamper}))
    run_experiment(grid, run, run.experiment())
    return run, grid


def table_of(run: RunFolder) -> pd.DataFrame:
    return pd.read_parquet(run.path / "table.parquet").set_index("subject")


def failing(message_type: str, node: int = 201, reason: str = "no more disk") -> Tamper:
    def tamper(message: Message, reply: Message) -> Message:
        metadata = message.metadata
        failed = metadata.message_type == message_type and metadata.dst_node_id == node
        return Message(Error(0, reason), reply_to=message) if failed else reply

    return tamper


def attack_failing(subject: str) -> Tamper:
    def tamper(message: Message, reply: Message) -> Message:
        asked = message.content.config_records.get("config", {}).get("subject")
        return Message(Error(0, "out of memory"), reply_to=message) if asked == subject else reply

    return tamper


@pytest.fixture
def unbroken(small: Experiment, tmp_path: Path) -> RunFolder:
    return run_in(tmp_path / "unbroken", small)[0]


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
        *(f"strips-{subject}.png" for subject in [*subjects, "control-blur"]),
    }
    # An independent user is told to train once, and published theta is attacked once however many publish it.
    messages = {"independent": (2, 3), "fedavg": (6, 2), "fedavg, local batch norm": (6, 3)}[strategy]
    assert (len(grid.of_type("train")), len(grid.of_type("evaluate.itn"))) == messages
    assert ("selected_epoch" in table) == (strategy == "independent")
    summary = (run.path / "summary.md").read_text()
    assert ("All users publish the same theta: it was attacked once" in summary) == (strategy == "fedavg")


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
    assert "user-0000 failed: no more disk" in (run.path / "summary.md").read_text()

    run, _ = run_in(tmp_path / "run", small)
    pd.testing.assert_frame_equal(table_of(run), table_of(unbroken), check_dtype=False)


def test_an_attack_that_fails_is_named_in_its_users_row(small: Experiment, tmp_path: Path, unbroken: RunFolder) -> None:
    run, _ = run_in(tmp_path / "run", small, attack_failing("user-0001"))
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


@pytest.mark.parametrize(
    ("tamper", "failed"),
    [
        # The attack on what all publish is another user's as well, and is done.
        (failing("evaluate.test", node=202), "user-0001"),
        (attack_failing("shared"), "shared"),
        (attack_failing("control-blur"), "control-blur"),
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


def test_a_deployment_with_direct_exchange_is_told_to_relay(small: Experiment, tmp_path: Path) -> None:
    def tamper(message: Message, reply: Message) -> Message:
        if message.metadata.message_type == "query.role":
            reply.content.config_records["role"]["simulated"] = False
        return reply

    runtime = small.runtime.model_copy(update={"exchange": "direct"})
    with pytest.raises(
        RunFailed, match=r"^direct exchange is for simulations: a deployment needs runtime.exchange=rel"
    ):
        run_in(tmp_path / "run", small.model_copy(update={"runtime": runtime}), tamper)


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


def test_a_user_that_is_trained_is_attacked_before_others_begin(
    small: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No more is under way than workers are busy with: here messages arrive at once.
    monkeypatch.setattr(sim.relay, "_LATENCY_S", 1e-9)
    users = {"count": 8, "partition": {"kind": "iid"}, "images": 24, "validation_images": 20}
    _, grid = run_in(tmp_path / "run", Experiment.model_validate(small.model_dump() | {"users": users}))
    types = [message.metadata.message_type for message in grid.sent]
    last_begins = len(types) - types[::-1].index("train")
    assert types[:last_begins].count("train") == 8
    assert types[:last_begins].count("evaluate.itn") >= 2


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


class KilledError(Exception):
    """The process is gone."""


def killed_after(replies: int) -> Tamper:
    left = replies

    def tamper(message: Message, reply: Message) -> Message:
        nonlocal left
        left -= 1
        if left < 0:
            raise KilledError
        return reply

    return tamper


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95])
def test_a_run_killed_at_any_message_resumes_to_the_same_table(
    small: Experiment, tmp_path: Path, whole_runs: dict[str, Any], strategy: str, share: float
) -> None:
    experiment = with_strategy(small, strategy)
    if strategy not in whole_runs:
        run, grid = run_in(tmp_path / "whole", experiment)
        thetas = [load(run.path / "users" / f"user-000{user}" / "theta.safetensors")[0] for user in (0, 1)]
        whole_runs[strategy] = table_of(run), thetas, len(grid.replies)
    table, thetas, replies = whole_runs[strategy]
    with pytest.raises(KilledError):
        run_in(tmp_path / "run", experiment, killed_after(round(share * replies)))
    run, grid = run_in(tmp_path / "run", experiment)
    pd.testing.assert_frame_equal(table_of(run), table, check_dtype=False)
    for user, theta in enumerate(thetas):
        resumed = load(run.path / "users" / f"user-000{user}" / "theta.safetensors")[0]
        assert all(torch.equal(resumed[name], theta[name]) for name in theta)
    # Of what was finished, nothing is done again.
    assert len(grid.replies) <= replies - {0.1: 0, 0.3: 0}.get(share, replies // 5)


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


@pytest.fixture(scope="module")
def whole_runs() -> dict[str, Any]:
    return {}


# ---- users who differ ---------------------------------------------------------------------------------------------

SETTINGS: list[dict[str, Any]] = [
    {"alpha": 0.3, "width": 3},
    {"protection": {"kind": "plain"}},
    {"protection": {"kind": "tanaka"}},
    {"protection": {"kind": "pixel"}},
    {"protection": {"kind": "pixel", "key": "per_image", "shuffle": True}},
]


@pytest.fixture
def mixed(small: Experiment) -> Experiment:
    users = {"count": 6, "partition": {"kind": "all"}, "images": 30, "validation_images": 20, "settings": SETTINGS}
    classifier = {"crop_padding": 0, "training": {"epochs": 2, "lr": 0.01, "batch_size": 256}}
    return Experiment.model_validate(small.model_dump() | {"users": users, "classifier": classifier})


@pytest.fixture
def short_lessons(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three lessons an epoch."""
    monkeypatch.setattr(roles.user.lessons, "LESSON_IMAGES", 10)
    monkeypatch.setattr(roles.provider.pupils, "LESSON_IMAGES", 10)


@pytest.mark.with_figures
def test_users_of_every_kind_of_protection_share_a_run(mixed: Experiment, tmp_path: Path) -> None:
    run, _ = run_in(tmp_path / "run", mixed)
    table = table_of(run)
    assert (table["failure"].fillna("") == "").all()
    assert list(table["setting"][:6]) == [
        "alpha 0.3, width 3",
        "plain",
        "tanaka",
        "pixel",
        "pixel, key per_image, shuffle",
        "alpha 0.3, width 3",
    ]
    assert (table["images"][:6] == 30).all()
    # The two users of one setting have networks of their own, of the width that it says.
    thetas = [load(run.path / "users" / f"user-000{user}" / "theta.safetensors")[0] for user in range(6)]
    assert thetas[0]["head.weight"].shape[1] == 3
    assert not torch.equal(thetas[0]["head.weight"], thetas[5]["head.weight"])
    assert [len(theta) for theta in thetas[1:5]] == [0, 0, 0, 0]
    # Plain images are themselves, and psi is as good on them as it is; FR-Attack is for pixels.
    plain = table.loc["user-0001"]
    assert plain["protected_ssim"] == pytest.approx(1)
    assert plain["accuracy"] == plain["plain_accuracy"]
    assert plain["queries"] == 0
    assert list(table["fr_attack_psnr"].notna()) == [False, False, False, True, True, False, False]
    # Where all images share a key, a few known pairs give every image back.
    assert list(table["key_attack_ssim"].fillna(0) > 0.99) == [False, False, True, True, False, False, False]
    assert list(table["verdict"][2:4]) == ["recovered", "recovered"]
    # In each of psi's two epochs a lesson of all 30 images and an exam of 20.
    for user in ("user-0002", "user-0003", "user-0004"):
        assert (table.loc[user, "queries"], table.loc[user, "queried_images"]) == (4, 100)
        assert table.loc[user, "protected_ssim"] < 0.5
    summary = (run.path / "summary.md").read_text()
    assert "Images under pixel and tanaka encryption are classified by a classifier" in summary


@pytest.mark.with_figures
def test_users_of_one_network_and_several_alphas_are_drawn_over_alpha(small: Experiment, tmp_path: Path) -> None:
    settings = [{"alpha": 0.3}, {"alpha": 0.1}, {"alpha": 0.3, "width": 3}]
    users = small.users.model_dump() | {"count": 3, "partition": {"kind": "iid"}, "images": 24, "settings": settings}
    run, _ = run_in(tmp_path / "run", Experiment.model_validate(small.model_dump() | {"users": users}))
    drawn = {path.name for path in (run.path / "figures").glob("strips-over-alpha-*.png")}
    assert drawn == {"strips-over-alpha-relu1_2-width-2.png"}


@pytest.mark.usefixtures("short_lessons")
@pytest.mark.parametrize("share", [0.1, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.9])
def test_a_run_of_all_kinds_killed_at_any_message_resumes_to_the_same_table(
    mixed: Experiment, tmp_path: Path, whole_runs: dict[str, Any], share: float
) -> None:
    if "mixed" not in whole_runs:
        run, grid = run_in(tmp_path / "whole", mixed)
        whole_runs["mixed"] = table_of(run), len(grid.replies)
    table, replies = whole_runs["mixed"]
    with pytest.raises(KilledError):
        run_in(tmp_path / "run", mixed, killed_after(round(share * replies)))
    pd.testing.assert_frame_equal(table_of(run_in(tmp_path / "run", mixed)[0]), table, check_dtype=False)


# ---- many users --------------------------------------------------------------------------------------------------


def many(ssims: list[float | None], experiment: Experiment) -> tuple[pd.DataFrame, Experiment]:
    users = experiment.users.model_copy(update={"count": len(ssims), "partition": {"kind": "iid"}})
    rows = [{"subject": f"user-{user:04d}", "itn_itn_ssim": ssim} for user, ssim in enumerate(ssims)]
    table = pd.DataFrame([*rows, {"subject": "control-blur", "itn_itn_ssim": 0.9}])
    return table, experiment.model_copy(update={"users": users})


def test_of_many_users_those_with_the_most_and_the_least_recovered_images_are_among_the_shown(
    small: Experiment,
) -> None:
    ssims: list[float | None] = [0.5 + 0.001 * ((user * 37) % 100) for user in range(100)]
    ssims[41], ssims[7], ssims[8] = 0.99, 0.01, None
    shown = shown_users(*many(ssims, small))
    assert len(shown) == 20
    assert shown == sorted(shown)
    assert {41, 7} <= set(shown)
    assert 8 not in shown


def test_few_users_are_all_shown_and_so_are_some_of_many_without_results(small: Experiment) -> None:
    assert shown_users(*many([0.5, None, 0.1], small)) == [0, 1, 2]
    assert shown_users(*many([None] * 21, small)) == list(range(20))


# ---- statistics --------------------------------------------------------------------------------------------------


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


def summary_with(run: RunFolder, experiment: Experiment, accuracies: list[float | None]) -> str:
    control = {"subject": "control-blur", "accuracy": 0.3, "protected_ssim": 0.5, "itn_itn_ssim": 0.9}
    rows = [
        {"subject": f"user-{user:04d}", "accuracy": accuracy, "itn_itn_ssim": accuracy, "itn_itn_psnr": 20.0}
        for user, accuracy in enumerate(accuracies)
    ]
    table = pd.DataFrame([*rows, control]).assign(verdict="partial", failure="", plain_accuracy=0.8)
    psi = {"test_accuracy": 0.8, "plain_accuracy": 0.8, "reused": False}
    run.note({"psi": psi, "processor": "none"})
    experiment = Experiment.model_validate(experiment.model_dump() | {"users": {"count": len(accuracies)}})
    return summary_of(run, experiment, table.assign(itn_itn_accuracy=0.5), [], [])


def test_of_five_users_the_summary_tells_how_they_are_spread_and_names_the_worst(
    small: Experiment, tmp_path: Path
) -> None:
    run = RunFolder.create(tmp_path / "run", small)
    summary = summary_with(run, small, [0.5, 0.9, 0.6, None, 0.7, 0.8])
    assert "- Over 5 users, median [95% bootstrap interval over users]: accuracy 70.0 [50.0 to 90.0], best " in summary
    assert "attack's SSIM 0.70 [0.50 to 0.90]. Recovered best: user 1 (0.90), user 5 (0.80), user 4 (0.70); " in summary
    assert "least accurate: user 0 (50.0), user 2 (60.0), user 4 (70.0)." in summary


def test_of_fewer_users_or_of_users_who_share_a_theta_it_tells_nothing_of_the_kind(
    small: Experiment, tmp_path: Path
) -> None:
    run = RunFolder.create(tmp_path / "run", small)
    assert "Over " not in summary_with(run, small, [0.5, 0.9, 0.6, None, 0.7])
    assert "Over " not in summary_with(run, with_strategy(small, "fedavg"), [0.5, 0.9, 0.6, 0.6, 0.7])
