import json
import math
import os
from pathlib import Path

import pytest

from roles.common.files import write_atomically
from sim.run import progress
from sim.run.progress import Board, Status, WorkerProgress, clear, read_progress, report_step


def test_a_file_is_written_whole_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "file.json"
    write_atomically(path, "old")
    write_atomically(path, "new")
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.json"
    write_atomically(path, "old")

    def no_more_space(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", no_more_space)
    with pytest.raises(OSError, match="no space left"):
        write_atomically(path, "new")
    assert path.read_text() == "old"


def test_a_status_is_read_as_it_was_written(tmp_path: Path) -> None:
    status = Status("attacks", "attacks", 3, 9, {"to test": 1}, {"attacks": 6}, 2, error="one\nline or two")
    status.write(tmp_path)
    assert Status.read(tmp_path) == status


def test_a_run_without_a_status_is_starting(tmp_path: Path) -> None:
    assert Status.read(tmp_path) == Status("starting")


def test_a_status_that_another_version_has_written_is_read_as_far_as_it_is_known(tmp_path: Path) -> None:
    written = {"phase": "users", "done": 1, "total": 2, "unit": "rounds", "users": 4, "error": ""}
    write_atomically(tmp_path / "progress" / "status.json", json.dumps(written))
    assert Status.read(tmp_path) == Status("users", done=1, total=2)


def test_phases_say_what_they_do_and_what_is_ahead_on_a_board(tmp_path: Path) -> None:
    board = Board(tmp_path, {"users": 1, "attacks": 1}, itns=2)
    board.show("users", "training users", 1, 4, users=3)
    board.note({"to test": 1}, attacks=5)
    ahead = {"users": 3, "attacks": 5}
    assert Status.read(tmp_path) == Status("users", "training users", 1, 4, {"to test": 1}, ahead, 2)
    board.note(attacks=4)
    assert Status.read(tmp_path).beside == {"to test": 1}
    board.show("report", "writing the report")
    assert Status.read(tmp_path).total == 0
    assert Status.read(tmp_path).ahead == {"users": 3, "attacks": 4}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(progress.time, "time", lambda: now[0])
    return now


def test_progress_is_written_at_most_twice_a_second_and_counts_every_step(tmp_path: Path, clock: list[float]) -> None:
    for step in range(1, 8):  # at 1000, 1000.2, 1000.4, 1000.6, ...: the 1st, 4th and 7th are written
        report_step(tmp_path, "users", "user 3", step, 20, loss=1 / step)
        expected = {1: 1, 2: 1, 3: 1, 4: 4, 5: 4, 6: 4, 7: 7}[step]
        (worker,) = read_progress(tmp_path, "users")
        assert (worker.label, worker.done, worker.total, worker.steps) == ("user 3", expected, 20, expected)
        assert worker.loss == 1 / expected
        clock[0] += 0.2


def test_a_last_step_is_written_at_once(tmp_path: Path, clock: list[float]) -> None:
    for step in (1, 2):
        report_step(tmp_path, "classifier", "psi", step, 2, loss=0.5)
    assert [worker.done for worker in read_progress(tmp_path, "classifier")] == [2]


def test_what_is_reported_twice_is_one_step(tmp_path: Path, clock: list[float]) -> None:
    for label, done in (("user 1", 0), ("user 2", 0), ("user 1", 1), ("user 2", 1), ("user 1", 1), ("user 2", 2)):
        report_step(tmp_path, "users", label, done, 9, loss=0.5)
        clock[0] += 1
    (worker,) = read_progress(tmp_path, "users")
    assert worker.steps == 3


def test_a_step_takes_what_passes_between_reports_of_its_phase(tmp_path: Path, clock: list[float]) -> None:
    def step_s(phase: str, done: int, after_s: float) -> float:
        clock[0] += after_s
        report_step(tmp_path, phase, "user 1", done, 9, loss=0.5)
        return read_progress(tmp_path, phase)[0].step_s

    assert step_s("users", 1, 50) == 0
    assert step_s("users", 2, 3) == 3
    assert step_s("users", 2, 1) == 4  # validation belongs to it
    assert step_s("users", 3, 2) == 3
    assert step_s("attacks", 1, 50) == 0
    assert step_s("users", 4, 50) == 3


def test_steps_are_counted_over_all_jobs_of_a_phase_while_phases_alternate(tmp_path: Path, clock: list[float]) -> None:
    jobs = (("users", "user 1", 1), ("users", "user 2", 2), ("attacks", "user-0001", 1), ("users", "user 3", 3))
    for phase, label, expected in jobs:
        report_step(tmp_path, phase, label, 1, 5, loss=0.5)
        assert [worker.steps for worker in read_progress(tmp_path, phase)] == [expected]
        clock[0] += 1
    assert [worker.label for worker in read_progress(tmp_path, "attacks")] == ["user-0001"]


def test_a_loss_that_is_not_a_number_yet_is_told_as_such(tmp_path: Path) -> None:
    report_step(tmp_path, "users", "user 1", 0, 5, loss=math.nan)
    assert math.isnan(read_progress(tmp_path, "users")[0].loss)


def test_the_progress_of_all_workers_is_read(tmp_path: Path) -> None:
    for worker in (7, 3):
        beat = {
            "label": f"user {worker}",
            "phase": "users",
            "done": 1,
            "total": 2,
            "steps": 1,
            "loss": 0.5,
            "time": 1.0,
        }
        write_atomically(tmp_path / "progress" / f"worker-{worker}.json", json.dumps(beat))
    assert read_progress(tmp_path, "users")[0] == WorkerProgress("user 3", "users", 1, 2, 1, 0.5, 1.0)
    assert [worker.label for worker in read_progress(tmp_path, "users")] == ["user 3", "user 7"]
    assert read_progress(tmp_path) == read_progress(tmp_path, "users")
    assert read_progress(tmp_path, "attacks") == []


def test_what_an_earlier_process_did_is_forgotten(tmp_path: Path) -> None:
    Status("users", "training users", 1, 2).write(tmp_path)
    report_step(tmp_path, "users", "user 1", 1, 5, loss=0.5)
    clear(tmp_path)
    assert Status.read(tmp_path) == Status("starting")
    assert read_progress(tmp_path, "users") == []
    clear(tmp_path / "never begun")
