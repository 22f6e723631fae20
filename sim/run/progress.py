"""How far a run is: small files in its folder that workers and ServerApp write and anyone may read."""

import json
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from roles.common.compute import Number
from roles.common.files import read_json, write_atomically

_INTERVAL_S = 0.5
_STALE_S = 30
_ENDED_S = 10
"""For how long a worker is believed to be busy with what follows its last step."""


@dataclass(frozen=True)
class Status:
    """What is being done, and what is still ahead."""

    phase: str
    """``starting``, ``classifier``, ``users``, ``attacks``, ``studies``, ``report``, ``complete`` or ``failed``."""
    doing: str = ""
    """The same in words, such as ``training users``."""
    done: int = 0
    """Users, rounds, attacks or parts of studies of this phase that are done."""
    total: int = 0
    beside: dict[str, int] = field(default_factory=dict)
    """What is waited for beside it, such as users ``to test``, and how many there are."""
    ahead: dict[str, float] = field(default_factory=dict)
    """By phase, how many of its trainings, attacks or parts of studies are not done; an attack counts as one."""
    itns: int = 1
    """Trainings of an attack."""
    error: str = ""
    elsewhere: bool = False
    """Whether nodes are on machines of their own, and say nothing here of their steps."""

    def write(self, run: Path) -> None:
        """Make this the status of ``run``."""
        write_atomically(run / "progress" / "status.json", json.dumps(asdict(self)))

    @staticmethod
    def read(run: Path) -> "Status":
        """Return the status of ``run``, which another version may have written; ``starting`` if it has none yet."""
        path = run / "progress" / "status.json"
        known: dict[str, Any] = read_json(path) if path.is_file() else {"phase": "starting"}
        return Status(**{one.name: known[one.name] for one in fields(Status) if one.name in known})


class Board:
    """Where the phases of a run say what they do: every change makes a new status of the run.

    Args:
        run: the run's folder.
        ahead: what is known to be ahead at first; a phase that will be, of an unknown length, counts as 1.
        itns: trainings of an attack.
    """

    def __init__(self, run: Path, ahead: Mapping[str, float], itns: int) -> None:
        self._run, self._status = run, Status("starting", ahead=dict(ahead), itns=itns)

    def show(self, phase: str, doing: str, done: int = 0, total: int = 0, **ahead: float) -> None:
        """Say what is being done, how much of it is, and of the phases that are named what is ahead."""
        self._change(replace(self._status, phase=phase, doing=doing, done=done, total=total), ahead)

    def note(self, beside: Mapping[str, int] | None = None, **ahead: float) -> None:
        """Say what is waited for beside that, if it is told, and of the phases that are named what is ahead."""
        known = self._status
        self._change(known if beside is None else replace(known, beside=dict(beside)), ahead)

    def nodes_are_elsewhere(self) -> None:
        """Say that nodes tell nothing here of their steps."""
        self._change(replace(self._status, elsewhere=True), {})

    def _change(self, status: Status, ahead: Mapping[str, float]) -> None:
        self._status = replace(status, ahead={**status.ahead, **ahead})
        self._status.write(self._run)


@dataclass(frozen=True)
class WorkerProgress:
    """What one worker process was doing when it last said so."""

    label: str
    """Such as ``user 3`` or ``psi``."""
    phase: str
    done: int
    """Steps of the present training that are done."""
    total: int
    steps: int
    """Steps that this process has done in this phase, over all trainings."""
    loss: float
    """NaN where there is none yet."""
    time: float
    """Seconds since the epoch."""
    step_s: float = 0.0
    """Mean seconds of one of these steps, with what is done between them; 0 before the second."""

    @property
    def runs(self) -> bool:
        """Whether it has said so lately enough to be at it still."""
        return time.time() - self.time < (_STALE_S if self.done < self.total else _ENDED_S)


@dataclass
class _Counts:
    """What this process has done in one phase of a run."""

    steps: int = 0
    timed: int = 0
    """Steps of which it is known how long they took."""
    seconds: float = 0.0
    written: float = 0.0
    done: dict[str, int] = field(default_factory=dict)
    """By label, the step that it was at."""


_lock = threading.Lock()
_counts = dict[tuple[Path, str], _Counts]()
_latest = dict[Path, tuple[str, str, float]]()
"""By run, the phase and the label that were last reported on, and when."""


def report_step(run: Path, phase: str, label: str, done: int, total: int, loss: Number) -> None:
    """Note where a training is; any thread may, and it is written twice a second at most, and at its last step.

    Args: as in :class:`WorkerProgress`; a loss that there is none of yet is NaN, and one on a GPU is read when written.
    """
    with _lock:
        now, counts = time.time(), _counts.setdefault((run, phase), _Counts())
        # Validation is reported as well, and is no step.
        new = done > 0 and counts.done.get(label) != done
        counts.done[label] = done
        counts.steps += new
        before, of, since = _latest.get(run, ("", "", now))
        # Between two trainings a process may have had nothing to do.
        if (before, of) == (phase, label):
            counts.timed += new
            counts.seconds += now - since
        _latest[run] = (phase, label, now)
        if now - counts.written >= _INTERVAL_S or (new and done == total):
            counts.written = now
            step_s = counts.seconds / counts.timed if counts.timed else 0.0
            progress = WorkerProgress(label, phase, done, total, counts.steps, float(loss), now, step_s)
            path = run / "progress" / f"worker-{os.getpid()}-{phase}.json"
            write_atomically(path, json.dumps(asdict(progress)))


def read_progress(run: Path, phase: str = "") -> list[WorkerProgress]:
    """Return the latest of every worker that has worked on ``phase``, by default on any."""
    paths = sorted((run / "progress").glob("worker-*.json"))
    workers = [WorkerProgress(**read_json(path)) for path in paths]
    return [worker for worker in workers if phase in ("", worker.phase)]


def clear(run: Path) -> None:
    """Forget the progress of an earlier process."""
    for path in (run / "progress").glob("*.json"):
        path.unlink()
