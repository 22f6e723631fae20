"""How far a run is: small files in its folder that workers and ServerApp write and anyone may read."""

import json
import os
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from statistics import fmean

from roles.common.compute import Number
from roles.common.files import write_atomically

_INTERVAL_S = 0.5
_STALE_S = 30


@dataclass(frozen=True)
class Status:
    """What the ServerApp is doing."""

    phase: str
    """``starting``, ``classifier``, ``users``, ``attacks``, ``studies``, ``report``, ``complete`` or ``failed``."""
    done: int = 0
    """Rounds, users or attacks of this phase that are done (see ``unit``)."""
    total: int = 0
    unit: str = ""
    users: int = 0
    """How many users are trained; 0 in other phases."""
    error: str = ""

    def write(self, run: Path) -> None:
        """Make this the status of ``run``."""
        write_atomically(run / "progress" / "status.json", json.dumps(asdict(self)))

    @staticmethod
    def read(run: Path) -> "Status":
        """Return the status of ``run``; ``starting`` if it has none yet."""
        path = run / "progress" / "status.json"
        return Status(**json.loads(path.read_text())) if path.is_file() else Status("starting")


@dataclass(frozen=True)
class WorkerProgress:
    """What one worker process was doing when it last said so."""

    label: str
    """Such as ``user 3`` or ``psi``."""
    phase: str
    done: int
    """Steps of the present job that are done."""
    total: int
    steps: int
    """Steps that this process has done in this phase, over all jobs."""
    loss: float
    time: float
    """Seconds since the epoch."""


_lock = threading.Lock()
_written = dict[tuple[Path, str], float]()
_steps = Counter[tuple[Path, str]]()


def report_step(run: Path, phase: str, label: str, done: int, total: int, loss: Number) -> None:
    """Note that this process has done one more step; any thread may, and it is written at most twice a second.

    Args: as in :class:`WorkerProgress`; a loss that there is none of yet is NaN, and one on a GPU is read when written.
    """
    with _lock:
        _steps[run, phase] += 1
        now = time.time()
        if now - _written.get((run, phase), 0.0) >= _INTERVAL_S:
            _written[run, phase] = now
            progress = WorkerProgress(label, phase, done, total, _steps[run, phase], float(loss), now)
            path = run / "progress" / f"worker-{os.getpid()}-{phase}.json"
            write_atomically(path, json.dumps(asdict(progress)))


def read_progress(run: Path, phase: str) -> list[WorkerProgress]:
    """Return the latest of every worker that has worked on ``phase``."""
    paths = sorted((run / "progress").glob("worker-*.json"))
    workers = [WorkerProgress(**json.loads(path.read_text())) for path in paths]
    return [worker for worker in workers if worker.phase == phase]


def clear(run: Path) -> None:
    """Forget the progress of an earlier process."""
    for path in (run / "progress").glob("*.json"):
        path.unlink()


class ProgressLine:
    """One line that says where a run is: phase, users or rounds done, steps a second, loss, time left."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._phase, self._began, self._done_before, self._steps_before = "", 0.0, 0, 0

    def of(self, status: Status) -> str:
        """Return the line for the present ``status``."""
        now, workers = time.monotonic(), read_progress(self._run, status.phase)
        steps = sum(worker.steps for worker in workers)
        if status.phase != self._phase:
            # Users that are trained early are attacked while others still train.
            self._phase, self._began, self._done_before, self._steps_before = status.phase, now, status.done, steps
        elapsed, steps = now - self._began, steps - self._steps_before
        parts = [f"{status.phase:<14}"]
        if status.total:
            parts.append(f"{status.done}/{status.total} {status.unit}")
        if workers and elapsed > 0:
            parts.append(f"{steps / elapsed:.1f} steps/s")
        running = [worker for worker in workers if worker.total and time.time() - worker.time < _STALE_S]
        parts += [f"{worker.label} {worker.done}/{worker.total} loss {worker.loss:.3f}" for worker in running[:4]]
        if status.users and workers:
            # Rounds are long: steps say more. A worker's total is of a user's whole training.
            needed = status.users * fmean(worker.total for worker in workers)
            done, left = float(steps), needed * (1 - self._done_before / max(1, status.total)) - steps
        else:
            under_way = sum(worker.done / worker.total for worker in running)
            done, left = status.done + under_way - self._done_before, status.total - status.done - under_way
        time_left = elapsed * left / done if status.total and done > 0 else 0.0
        rest = f", {timedelta(seconds=round(time_left))} left" if time_left > 0 else ""
        return "  ".join([*parts, f"{timedelta(seconds=round(elapsed))}{rest}"])
