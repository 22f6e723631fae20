"""How far a run is: small files in its folder that workers and ServerApp write and anyone may read."""

import json
import os
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

_INTERVAL_S = 0.5
_STALE_S = 30


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write ``content`` so that ``path`` holds either the old content or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_bytes(content.encode() if isinstance(content, str) else content)
    partial.replace(path)


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
class Beat:
    """What one worker process is doing."""

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
    """Seconds since the epoch, when this was written."""


class Heart:
    """A worker's side: told of every step, from any thread; writes at most twice a second."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: dict[str, float] = {}
        self._steps: Counter[str] = Counter()

    def beat(self, run: Path, phase: str, label: str, done: int, total: int, loss: float) -> None:
        """Note that one more step is done."""
        with self._lock:
            self._steps[phase] += 1
            now = time.time()
            if now - self._last.get(phase, 0.0) >= _INTERVAL_S:
                self._last[phase] = now
                beat = Beat(label, phase, done, total, self._steps[phase], loss, now)
                write_atomically(run / "progress" / f"worker-{os.getpid()}-{phase}.json", json.dumps(asdict(beat)))


def read_beats(run: Path, phase: str) -> list[Beat]:
    """Return the latest beat of every worker that has worked on ``phase``."""
    beats = [Beat(**json.loads(path.read_text())) for path in sorted((run / "progress").glob("worker-*.json"))]
    return [beat for beat in beats if beat.phase == phase]


def clear(run: Path) -> None:
    """Forget the progress of an earlier process."""
    for path in (run / "progress").glob("*.json"):
        path.unlink()


class ProgressLine:
    """One line that says where a run is: phase, users or rounds done, steps a second, loss, time left."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._phase = ""
        self._began = time.monotonic()
        self._done_at_start = 0
        self._steps_at_start = 0

    def of(self, status: Status) -> str:
        """Return the line for the present ``status``."""
        beats = read_beats(self._run, status.phase)
        if status.phase != self._phase:
            self._phase, self._began, self._done_at_start = status.phase, time.monotonic(), status.done
            # Users that are trained early are attacked while others still train.
            self._steps_at_start = sum(beat.steps for beat in beats)
        elapsed = time.monotonic() - self._began
        parts = [f"{status.phase:<14}"]
        if status.total:
            parts.append(f"{status.done}/{status.total} {status.unit}")
        running = [beat for beat in beats if time.time() - beat.time < _STALE_S and beat.total]
        steps = sum(beat.steps for beat in beats) - self._steps_at_start
        if beats and elapsed > 0:
            parts.append(f"{steps / elapsed:.1f} steps/s")
        for beat in running[:4]:
            parts.append(f"{beat.label} {beat.done}/{beat.total} loss {beat.loss:.3f}")
        left = self._seconds_left(status, beats, steps, elapsed)
        parts.append(
            f"{timedelta(seconds=round(elapsed))}" + (f", {timedelta(seconds=round(left))} left" if left else "")
        )
        return "  ".join(parts)

    def _seconds_left(self, status: Status, beats: list[Beat], steps: int, elapsed: float) -> float | None:
        if not status.total:
            return None
        if status.users and beats:
            # Rounds are long: steps say more. A beat's total is of a user's whole training.
            share = 1 - self._done_at_start / status.total
            needed = status.users * share * sum(beat.total for beat in beats) / len(beats)
            return elapsed * max(0.0, needed - steps) / steps if steps else None
        done = status.done + sum(beat.done / beat.total for beat in beats if time.time() - beat.time < _STALE_S)
        fresh = done - self._done_at_start
        return None if fresh <= 0 else elapsed * max(0.0, status.total - done) / fresh
