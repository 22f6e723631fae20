"""What the parts of ``gpu.py`` share: commands with a time limit, and results that are on disk as soon as they are."""

import contextlib
import csv
import json
import os
import signal
import subprocess
import threading
import time
import uuid
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import safetensors.torch

from roles.common.files import write_atomically
from roles.common.weights import load
from sim.run.progress import Status
from sim.run.progress_line import ProgressLine

_LARGEST = 16 * 2**20
_SMALL = 4 * 2**20
_MARK = "VEIL_GPU_SESSION"
_POLL_S, _TELL_S, _KEEP_S = 0.2, 10, 60
END_S = 30
"""What a command is given to end what it has started, once it is told to stop."""


@dataclass
class Session:
    """A stretch of time on a GPU."""

    out: Path
    scratch: Path
    """Where runs are: large, and gone in the end."""
    data: str
    features: str
    smoke: bool
    ends: float
    """By the monotonic clock."""
    loading: threading.Thread
    """Prepares the data meanwhile."""
    results: dict[str, Any] = field(default_factory=dict)
    _mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    def left(self) -> float:
        """Return the seconds left."""
        return self.ends - time.monotonic()

    def wait_for_data(self) -> None:
        """Wait until the data are prepared; whoever needs them says what is wrong with them."""
        self.loading.join(max(0, self.left()))

    def say(self, line: str) -> None:
        """Print a line, and add it to the log."""
        print(line, flush=True)
        with (self.out / "log.txt").open("a") as log:
            log.write(line + "\n")

    def do(self, name: str, part: Callable[["Session"], dict[str, Any]]) -> None:
        """Do a part, and keep what it finds, or why it has found nothing."""
        self.say(f"== {name}: {self.left():.0f} s are left")
        began = time.monotonic()
        try:
            found = part(self)
        except Exception as error:
            # The next part may do better, and there may be no other time.
            found = {"error": f"{type(error).__name__}: {error}"}
        self.results[name] = {**found, "seconds": round(time.monotonic() - began, 1)}
        write_atomically(self.out / "results.json", json.dumps(self.results, indent=1))
        shown = {key: value for key, value in self.results[name].items() if key not in ("table", "run", "published")}
        self.say(json.dumps(shown))

    def run(
        self, command: Sequence[str], seconds: float, run: Path | None = None, keep: Callable[[], None] = lambda: None
    ) -> int:
        """Run a command, all that it prints in the log, and end it and all that it has started after ``seconds``.

        Args:
            run: the folder of the run that it is, whose progress is told.
            keep: called now and then.

        Returns:
            Its exit code; 124 if it was ended.
        """
        deadline = min(time.monotonic() + seconds, self.ends)
        self.say("$ " + " ".join(command))
        with (self.out / "log.txt").open("ab") as log:
            process = subprocess.Popen(
                command,
                env=os.environ | {_MARK: self._mark},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            ended = self._watch(process, deadline, run, keep)
            if not ended:
                process.send_signal(signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(END_S)
        finally:
            _kill_marked(self._mark)
        code = process.wait()
        return code if ended else 124

    def _watch(
        self, process: subprocess.Popen[bytes], deadline: float, run: Path | None, keep: Callable[[], None]
    ) -> bool:
        line = None if run is None else ProgressLine(run)
        told = kept = time.monotonic()
        while process.poll() is None:
            now = time.monotonic()
            if now > deadline:
                return False
            if line is not None and run is not None and now - told > _TELL_S:
                told = now
                # Files of a run come and go.
                with contextlib.suppress(OSError):
                    self.say(line.of(Status.read(run)))
            if now - kept > _KEEP_S:
                kept = now
                keep()
            time.sleep(_POLL_S)
        return True

    def last_json(self) -> Any:
        """Return the last line of the log that is JSON, or None."""
        for line in reversed((self.out / "log.txt").read_text(errors="replace").splitlines()):
            with contextlib.suppress(json.JSONDecodeError):
                return json.loads(line)
        return None


def _kill_marked(mark: str) -> None:
    deadline = time.monotonic() + END_S
    while (left := _marked(mark)) and time.monotonic() < deadline:
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        time.sleep(_POLL_S)


def _marked(mark: str) -> list[psutil.Process]:
    """Return all processes that a command has started and that are there, whatever has become of the command."""
    # One that has ended and waits to be noticed has no environment any more.
    processes = psutil.process_iter(["environ"])
    return [process for process in processes if (process.info["environ"] or {}).get(_MARK) == mark]


def keep_small_files(run: Path, path: Path) -> None:
    """Write all small files of a run so far into a zip file, in place of an earlier one."""
    if not run.is_dir():
        return
    partial = path.with_suffix(".partial")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as kept:
        for file in sorted(run.rglob("*")):
            # Files come and go while a run is under way.
            with contextlib.suppress(OSError):
                if file.is_file() and file.stat().st_size < _SMALL and "progress" not in file.parts:
                    kept.write(file, file.relative_to(run))
    partial.replace(path)


def keep_theta(run: Path, path: Path) -> str:
    """Keep the first user's theta in half precision, if it is not too large; return what was done."""
    with contextlib.suppress(ValueError):
        theta = load(run / "users" / "user-0000" / "theta.safetensors")[0]
        half = {name: value.half() if value.is_floating_point() else value for name, value in theta.items()}
        size = sum(value.nbytes for value in half.values())
        if size < _LARGEST:
            safetensors.torch.save_file(half, path)
        return f"{size / 2**20:.1f} MiB in half precision, {'kept' if size < _LARGEST else 'not kept'}"
    return "there is none"


def facts_of(run: Path) -> dict[str, Any]:
    """Return what a run has found: its table, times, and steps a second of its training with all that belongs to it."""
    found: dict[str, Any] = {"status": Status.read(run).phase, "error": Status.read(run).error}
    for name in ("run", "users/user-0000/published"):
        path = run / f"{name}.json"
        found[Path(name).name] = json.loads(path.read_text()) if path.is_file() else None
    if found["published"] and found["run"]:
        found["steps_per_s"] = found["published"]["facts"]["steps"] / found["run"]["users_seconds"]
    table = run / "table.csv"
    found["table"] = list(csv.DictReader(table.open())) if table.is_file() else None
    return found
