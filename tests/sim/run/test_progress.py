import json
import math
import os
from pathlib import Path

import pytest

from roles.common.files import write_atomically
from sim.run import progress
from sim.run.progress import ProgressLine, Status, WorkerProgress, clear, read_progress, report_step


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
    status = Status("attacks", 3, 9, "attacks", error="one\nline or two")
    status.write(tmp_path)
    assert Status.read(tmp_path) == status


def test_a_run_without_a_status_is_starting(tmp_path: Path) -> None:
    assert Status.read(tmp_path) == Status("starting", 0, 0, "")


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
    assert read_progress(tmp_path, "attacks") == []


def test_what_an_earlier_process_did_is_forgotten(tmp_path: Path) -> None:
    Status("users", 1, 2, "rounds").write(tmp_path)
    report_step(tmp_path, "users", "user 1", 1, 5, loss=0.5)
    clear(tmp_path)
    assert Status.read(tmp_path) == Status("starting")
    assert read_progress(tmp_path, "users") == []
    clear(tmp_path / "never begun")


def test_the_line_tells_phase_rounds_steps_a_second_loss_and_the_time_left(
    tmp_path: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    line = ProgressLine(tmp_path)
    status = Status("users", 0, 2, "rounds", users=4)
    assert "left" not in line.of(status)
    for step in range(1, 11):
        clock[0] += 1
        report_step(tmp_path, "users", "user 2", step, 20, loss=1.25)
    shown = line.of(status)
    # 10 of 4 times 20 steps have taken 10 s: 70 are left.
    for part in ("users", "0/2 rounds", "1.0 steps/s", "user 2 10/20 loss 1.250", "0:01:10 left"):
        assert part in shown
