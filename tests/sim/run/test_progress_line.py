"""What is said of a run in one line."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from roles.common.files import write_atomically
from sim.run import progress, progress_line
from sim.run.progress import Status, WorkerProgress
from sim.run.progress_line import ProgressLine, clock

LineOf = Callable[..., str]
AHEAD = {"classifier": 0, "users": 3, "attacks": 5, "studies": 0}
TRAINING = Status("users", "training users", 1, 4, ahead=AHEAD)


def worker(label: str, phase: str, done: int, total: int, loss: float = 0.5, step_s: float = 0.0) -> WorkerProgress:
    return WorkerProgress(label, phase, done, total, done, loss, 1000.0, step_s)


@pytest.fixture
def line_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LineOf:
    """The line of a run that began 90 seconds ago, its workers having said just now what they do."""
    now = [910.0]
    monkeypatch.setattr(progress.time, "time", lambda: now[0])
    monkeypatch.setattr(progress_line.time, "monotonic", lambda: now[0])
    line = ProgressLine(tmp_path)
    now[0] = 1000.0

    def line_of(status: Status, *workers: WorkerProgress, width: int = 80, later_s: float = 0) -> str:
        for number, each in enumerate(workers):
            write_atomically(tmp_path / "progress" / f"worker-{number}-{each.phase}.json", json.dumps(asdict(each)))
        now[0] += later_s
        return line.of(status, width)

    return line_of


def test_it_names_what_is_done_and_for_how_long_the_run_has_been_going_on(line_of: LineOf) -> None:
    assert line_of(Status("starting", "starting Ray")) == "starting Ray  1:30"
    assert line_of(Status("report", "writing the report")) == "writing the report  1:30"


def test_before_the_first_step_of_a_phase_it_says_what_workers_do_and_nothing_of_a_rate(line_of: LineOf) -> None:
    assert line_of(Status("classifier", "preparing psi", ahead=AHEAD)) == "preparing psi: loading data  1:30"
    assert line_of(TRAINING) == "training users 1/4: loading psi and phi  1:30"
    assert line_of(replace(TRAINING, elsewhere=True)) == "training users 1/4  1:30"  # nobody tells


def test_of_a_training_without_a_step_there_is_no_loss(line_of: LineOf) -> None:
    assert line_of(TRAINING, worker("user 2", "users", 0, 44, math.nan)) == "training users 1/4  user 2 0/44  1:30"
    assert "nan" not in line_of(TRAINING, worker("user 2", "users", 3, 44, math.nan))


def test_it_tells_steps_a_second_of_all_workers_and_where_each_of_them_is(line_of: LineOf) -> None:
    status = Status("classifier", "preparing psi", ahead={"classifier": 1})
    line = line_of(status, worker("psi", "classifier", 31, 63, 0.51234, step_s=0.5))
    assert line == "preparing psi  2.0 steps/s  31/63 loss 0.512  1:30, 0:16 left"
    line = line_of(TRAINING, worker("user 2", "users", 30, 44), worker("user 3", "users", 2, 44, 1.5))
    assert line == "training users 1/4  user 2 30/44 loss 0.5  user 3 2/44 loss 1.5  1:30"


def test_time_left_is_of_the_whole_run_once_all_that_is_ahead_has_been_measured(line_of: LineOf) -> None:
    training = worker("user 2", "users", 30, 40, step_s=0.5)
    # One worker has 3 users of 40 steps before it, less the 30 that are done.
    assert line_of(TRAINING, training).endswith("1:30, at least 0:45 left")
    # And 5 attacks of 100 steps, less 10.
    assert line_of(TRAINING, training, worker("user 0", "attacks", 10, 100, step_s=0.1)).endswith("1:30, 1:34 left")


def test_less_than_a_second_is_not_said_to_be_left(line_of: LineOf) -> None:
    ending = worker("psi", "classifier", 62, 63, step_s=0.4)
    assert line_of(Status("classifier", "preparing psi", ahead={"classifier": 1}), ending).endswith("loss 0.5  1:30")


def test_attacks_that_go_on_while_users_train_are_told_behind_them(line_of: LineOf) -> None:
    workers = worker("user 0", "attacks", 10, 100), worker("user 2", "users", 30, 40)
    assert "user 2 30/40 loss 0.5  attack on user 0 10/100 loss 0.5" in line_of(TRAINING, *workers, width=120)
    assert line_of(Status("attacks", "attacks", 1, 5)) == "attacks 1/5  user 0 10/100 loss 0.5  1:30"


def test_what_follows_the_last_step_is_named(line_of: LineOf) -> None:
    status = Status("classifier", "preparing psi")
    assert line_of(status, worker("psi", "classifier", 63, 63)) == "preparing psi  testing  1:30"
    assert "user 2 validating" in line_of(TRAINING, worker("user 2", "users", 44, 44))
    assert "user 0 measuring" in line_of(Status("attacks", "attacks", 1, 5), worker("user 0", "attacks", 100, 100))


def test_users_that_are_waited_for_to_publish_and_to_test_are_counted(line_of: LineOf) -> None:
    status = Status("attacks", "attacks", 0, 5, beside={"to publish": 0, "to test": 4})
    assert line_of(status) == "attacks 0/5  to test 4  1:30"


def test_a_worker_that_has_said_nothing_for_long_is_not_told_of(line_of: LineOf) -> None:
    assert "user 2" not in line_of(TRAINING, worker("user 2", "users", 44, 44), later_s=15)
    assert "user 2" in line_of(TRAINING, worker("user 2", "users", 30, 44))
    assert "user 2" not in line_of(TRAINING, worker("user 2", "users", 30, 44), later_s=16)


@pytest.mark.parametrize("width", range(81))
def test_it_is_never_wider_than_it_may_be(line_of: LineOf, width: int) -> None:
    workers = [worker(f"user {number}", "users", 1000, 99_999, 0.000123456, 0.5) for number in range(12)]
    status = Status("users", "training users, rounds", 1000, 1000, {"to publish": 1000, "to test": 1000}, AHEAD)
    line = line_of(status, *workers, width=width)
    assert len(line) <= width
    assert "\n" not in line


def test_where_there_is_little_room_phase_and_times_are_what_stays(line_of: LineOf) -> None:
    training = worker("user 2", "users", 30, 40, step_s=0.5)
    assert line_of(TRAINING, training, width=80) == (
        "training users 1/4  2.0 steps/s  user 2 30/40 loss 0.5  1:30, at least 0:45 left"
    )
    assert line_of(TRAINING, training, width=79) == (
        "training users 1/4  2.0 steps/s  user 2 30/40  1:30, at least 0:45 left"
    )
    assert line_of(TRAINING, training, width=60) == "training users 1/4  2.0 steps/s  1:30, at least 0:45 left"
    assert line_of(TRAINING, training, width=50) == "training users 1/4  1:30, at least 0:45 left"
    assert line_of(TRAINING, training, width=20) == "training users 1/..."


def test_a_time_has_hours_where_there_are_some() -> None:
    assert [clock(seconds) for seconds in (0.4, 59.6, 3599.4, 3599.6, 360_000)] == [
        "0:00",
        "1:00",
        "59:59",
        "1:00:00",
        "100:00:00",
    ]
