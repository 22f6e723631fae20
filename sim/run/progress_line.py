"""Where a run is, in one line of a terminal."""

import math
import time
from pathlib import Path

from sim.run.progress import Status, WorkerProgress, read_progress
from sim.run.time_left import TimeLeft

WIDTH = 80
"""Columns of a line at most."""
_BEFORE = {"classifier": "loading data", "users": "loading psi and phi", "attacks": "loading images"}
"""What workers do before the first step of a phase."""
_AFTER = {"classifier": "testing", "users": "validating", "attacks": "measuring", "studies": "measuring"}
"""What follows the last step of a training."""
_LOSS = " loss "
"""Before a loss, for which there is not always room."""


def clock(seconds: float) -> str:
    """Return a time in minutes and seconds, from an hour on with hours.

    >>> clock(62.4), clock(3600)
    ('1:02', '1:00:00')
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class ProgressLine:
    """One line that says what a run does: how much of it is done, steps a second, losses, the time and what is left.

    Times are of the whole run, since this object was made; what is left is told as far as it has been measured.

    Args:
        run: the run's folder.
    """

    def __init__(self, run: Path) -> None:
        self._run, self._began, self._left = run, time.monotonic(), TimeLeft()

    def of(self, status: Status, width: int = WIDTH) -> str:
        """Return the line for the present ``status``, of ``width`` columns at most."""
        now, workers = time.monotonic(), read_progress(self._run)
        present = [worker for worker in workers if worker.phase == status.phase]
        head = status.doing or status.phase
        if status.total:
            head += f" {status.done}/{status.total}"
        if status.phase in _BEFORE and not (present or status.beside or status.elsewhere):
            head += f": {_BEFORE[status.phase]}"
        parts: list[str] = []
        if rate := sum(1 / worker.step_s for worker in present if worker.runs and worker.step_s):
            parts.append(f"{rate:.{1 if rate >= 1 else 2}f} steps/s")
        # Users that are trained early are attacked while others still train.
        early = [worker for worker in workers if worker.phase == "attacks" and status.phase == "users"]
        told = [_told(worker, status) for worker in (*present, *early) if worker.runs]
        beside = [f"{what} {count}" for what, count in status.beside.items() if count]
        parts += [*told[:1], *beside, *told[1:]]
        return _fitted(head, parts, self._times(status, workers, now), width)

    def _times(self, status: Status, workers: list[WorkerProgress], now: float) -> str:
        left, elapsed = self._left.of(status, workers, now), clock(now - self._began)
        if round(left.seconds) == 0:
            return elapsed
        return f"{elapsed}, {'' if left.is_all else 'at least '}{clock(left.seconds)} left"


def _told(worker: WorkerProgress, status: Status) -> str:
    """Return where a worker is, with the loss of its last step."""
    label = f"{worker.label} "
    if status.doing.endswith(worker.label):
        label = ""
    elif worker.phase != status.phase:
        label = f"attack on {label}"
    if worker.done == worker.total:
        return f"{label}{_AFTER[worker.phase]}"
    loss = f"{_LOSS}{worker.loss:.3g}" if worker.done and math.isfinite(worker.loss) else ""
    return f"{label}{worker.done}/{worker.total}{loss}"


def _fitted(head: str, parts: list[str], times: str, width: int) -> str:
    """Return head, as many parts as there is room for, and times."""
    room = width - len(head) - len(times) - 2
    shown: list[str] = []
    for part in parts:
        if len(part) + 2 > room:
            part = part.partition(_LOSS)[0]
        room -= len(part) + 2
        if room < 0:
            break
        shown.append(part)
    line = "  ".join([head, *shown, times])
    return line if len(line) <= width else f"{line[: width - 3]}..."[:width]
