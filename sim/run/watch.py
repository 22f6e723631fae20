"""Runs a simulation to its end, while somebody waits for it at a console."""

import os
import shlex
import shutil
import time
from pathlib import Path

from rich.console import Console

from sim.config.errors import ConfigError
from sim.config.experiment import Experiment
from sim.run.folder import RunFolder
from sim.run.launch import Pulse, log_of, simulation, simulation_failed, temporary_folder
from sim.run.ownership import claim
from sim.run.progress import Status, clear
from sim.run.progress_line import clock
from sim.run.screen import Screen

_POLL_S = 0.5
_LEAST_DISK = 2**16
"""Bytes; with fewer, nothing can be written."""


def watch(run: RunFolder, console: Console) -> str:
    """Run the simulation of a prepared folder, showing how far it is; return its summary.

    Raises:
        ConfigError: the run failed; the message says why.
    """
    console.print(f"run folder: {named(run.path)}", soft_wrap=True, markup=False)
    began, worked, experiment = time.monotonic(), run.facts().get("seconds", 0.0), run.experiment()
    with claim(run.path, "launcher"):
        clear(run.path)
        try:
            with Screen(console, run.path) as screen:
                status = _simulated(run, experiment, screen)
        except ConfigError as error:
            raise ConfigError(f"{error} (resume with: {resuming(run.path)})") from error
    taken = time.monotonic() - began
    if status.phase == "failed":
        console.print(f"failed after {clock(taken)}")
        raise ConfigError(f"{status.error} (resume with: {resuming(run.path)})")
    console.print(f"complete after {clock(taken)}: {times_in_words(taken, worked, run.facts()['seconds'])}")
    return (run.path / "summary.md").read_text()


def _simulated(run: RunFolder, experiment: Experiment, screen: Screen) -> Status:
    """Run a simulation, and return its last word; a :class:`ConfigError` if Flower does not start."""
    log = log_of(run.path)
    # What an earlier attempt has logged is not about this one.
    seen, ended = log.stat().st_size if log.is_file() else 0, False
    with simulation(run.path, experiment) as superlink:
        pulse = Pulse(run.path)
        try:
            while (status := Status.read(run.path)).phase not in ("complete", "failed"):
                # The ServerApp may have had its last word before the simulation ended.
                if ended:
                    return Status("failed", error=_unsaid(run.path))
                ended = superlink.poll() is not None or simulation_failed(run.path, seen) or pulse.has_stopped()
                time.sleep(0 if ended else _POLL_S)
            return status
        finally:
            screen.say("ending Flower and Ray")


def _unsaid(run: Path) -> str:
    """Return what is told of a simulation that has ended and left no word why."""
    for place in (run, temporary_folder()):
        if shutil.disk_usage(place).free < _LEAST_DISK:
            return f"no space is left on the disk of {place}"
    return f"the simulation ended without a word; see {log_of(run)}"


def times_in_words(taken: float, before: float, after: float) -> str:
    """Return what the time of an attempt was for.

    Args:
        taken: seconds of the attempt.
        before: seconds of work in ``run.json`` before it.
        after: the same after it; what the summary says.

    >>> times_in_words(175, 0, 164)
    "work 2:44 (the summary's 164 s); start, report and end 0:11"
    >>> times_in_words(75, 100, 164)
    "work 1:04, with earlier attempts 2:44 (the summary's 164 s); start, report and end 0:11"
    """
    work, earlier = after - before, f", with earlier attempts {clock(after)}" if before else ""
    return f"work {clock(work)}{earlier} (the summary's {after:.0f} s); start, report and end {clock(taken - work)}"


def named(path: Path) -> str:
    """Return a path as a shell takes it, relative to where this is run if that is shorter."""
    return shlex.quote(min(os.path.relpath(path), str(path), key=len))


def resuming(path: Path) -> str:
    """Return the command that goes on with a run or a sweep."""
    return f"veilsim run --resume {named(path)}"
