"""What is left of a run, with every number worked out by hand."""

import time

from sim.run.progress import Status, WorkerProgress
from sim.run.time_left import Left, TimeLeft


def worker(
    label: str, phase: str, done: int, total: int, step_s: float, steps: int | None = None, ago_s: float = 0
) -> WorkerProgress:
    taken = done if steps is None else steps
    return WorkerProgress(label, phase, done, total, taken, 0.5, time.time() - ago_s, step_s)


def status(phase: str, itns: int = 1, **ahead: float) -> Status:
    return Status(phase, ahead=ahead, itns=itns)


def left_of(status: Status, *workers: WorkerProgress) -> Left:
    return TimeLeft().of(status, workers, 0.0)


def test_nothing_is_guessed_before_a_step_is_timed() -> None:
    assert left_of(status("classifier", classifier=1, users=1, attacks=1)) == Left(0, is_all=False)
    assert left_of(status("users", users=4, attacks=5), worker("user 0", "users", 1, 10, 0)) == Left(0, is_all=False)


def test_what_is_timed_is_said_and_whether_it_is_all() -> None:
    psi = worker("psi", "classifier", 20, 50, 0.5)
    assert left_of(status("classifier", classifier=1), psi) == Left(15, is_all=True)
    assert left_of(status("classifier", classifier=1, users=4), psi) == Left(15, is_all=False)
    # A second classifier of which nobody has said how long it is: as long as the first.
    assert left_of(status("classifier", classifier=2), psi) == Left(15 + 25, is_all=True)


def test_nothing_is_left_where_nothing_is_ahead() -> None:
    done = worker("user 0", "attacks", 10, 10, 0.5)
    assert left_of(status("report", classifier=0, users=0, attacks=0, studies=0), done) == Left(0, is_all=True)


def test_users_that_wait_are_shared_by_the_workers() -> None:
    # Two are under way with 30 and 10 steps left, three of 40 wait: one worker has 30 + 40, the other 10 + 40 + 40.
    workers = worker("user 0", "users", 10, 40, 1), worker("user 1", "users", 30, 40, 1)
    assert left_of(status("users", users=5), *workers) == Left(90, is_all=True)


def test_users_and_attacks_of_those_that_have_trained_share_the_workers() -> None:
    # A user has 20 steps of 1 s left, an attack 60 of 0.5 s; another attack of 100 waits for whoever is free first.
    workers = worker("user 1", "users", 20, 40, 1), worker("user 0", "attacks", 40, 100, 0.5)
    workers += (worker("user 0", "users", 40, 40, 1, ago_s=60),)
    assert left_of(status("users", users=1, attacks=2), *workers) == Left(20 + 50, is_all=True)


def test_whoever_is_trained_last_is_attacked_after_it_however_many_workers_there_are() -> None:
    workers = [worker("user 1", "users", 0, 40, 1, steps=1), worker("user 0", "attacks", 90, 100, 1)]
    workers += [worker(f"user {number}", "users", 40, 40, 1, ago_s=60) for number in range(2, 9)]
    assert left_of(status("users", users=1, attacks=2), *workers) == Left(40 + 100, is_all=True)


def test_an_attack_is_as_many_trainings_as_there_are_inverse_networks() -> None:
    # 30 of 100 steps of the first of two; the control has not begun; one worker.
    attack = worker("user 0", "attacks", 30, 100, 0.1)
    assert left_of(status("attacks", itns=2, attacks=2), attack) == Left(0.1 * (70 + 3 * 100), is_all=True)


def test_of_rounds_the_steps_are_counted() -> None:
    # Half of 4 users' 40 steps is done, and 10 of the third quarter.
    of_rounds, left = status("users", users=4), TimeLeft()
    workers = [worker("user 0", "users", 10, 40, 1, steps=80)]
    left.of(of_rounds, workers, 0.0)
    workers = [worker("user 1", "users", 30, 40, 1, steps=90)]
    assert left.of(status("users", users=2), workers, 0.0) == Left(4 * 40 - 90, is_all=True)


def test_studies_are_timed_by_the_parts_that_are_done() -> None:
    left = TimeLeft()
    assert left.of(status("attacks", studies=1), [], 0.0) == Left(0, is_all=False)
    assert left.of(status("studies", studies=6), [], 100.0) == Left(0, is_all=False)
    assert left.of(status("studies", studies=4), [], 130.0) == Left(4 * 15, is_all=True)
    assert left.of(status("studies", studies=4), [], 135.0) == Left(4 * 15 - 5, is_all=True)
    assert left.of(status("report", studies=0), [], 200.0) == Left(0, is_all=True)
