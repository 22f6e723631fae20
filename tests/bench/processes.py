"""What benchmarks share: CPU seconds and memory of a run's processes (Linux's /proc), its phases, a command line."""

import math
import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self

import click
import typer

from sim.config.errors import ConfigError
from sim.run.launch import processes_of, simulation_failed
from sim.run.progress import Status


class PrecisionName(StrEnum):
    """What ``runtime.precision`` may be."""

    FP32 = "fp32"
    BF16 = "bf16"
    AUTO = "auto"


PrecisionOption = Annotated[PrecisionName, typer.Option(help="auto: what this machine is fastest in.")]

_TICKS_A_SECOND = 100
_INTERVAL_S = 2
"""Reading what all processes use takes 20 ms: more often, it would itself be a percent of two cores."""
_PHASES = ("starting", "classifier", "users", "attacks", "report", "complete")
_KINDS = {
    "ClientAppActor": "worker",
    "flwr-simulation": "driver",
    "flower-superlink": "superlink",
    "raylet": "ray",
    "gcs_server": "ray",
    "ray": "ray",
    "tests.bench.plain": "plain",
}


@dataclass
class Usage:
    """Of one kind of process, over all processes of that kind."""

    cpu_s: float = 0.0
    peak_mb: float = 0.0
    """Largest resident memory of one process."""


@dataclass
class ProcessWatch:
    """Samples all processes that were started for a run while the context lasts.

    Args:
        run: the run's folder, which marks its processes.
    """

    run: Path
    usage: dict[str, Usage] = field(default_factory=lambda: defaultdict(Usage))

    def __post_init__(self) -> None:
        self._cpu: dict[int, tuple[str, float]] = {}
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def cpu_seconds(self) -> float:
        """Return the CPU seconds of all processes so far, of ended ones as last seen."""
        with self._lock:
            self._sample()
            return sum(seconds for _, seconds in self._cpu.values())

    def _sample(self) -> None:
        for process in processes_of(self.run):
            try:
                folder = Path(f"/proc/{process}")
                kind = _kind_of(folder)
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                status = (folder / "status").read_text()
            except OSError:
                continue
            self._cpu[process] = (kind, (int(fields[11]) + int(fields[12])) / _TICKS_A_SECOND)
            resident = next((line for line in status.splitlines() if line.startswith("VmRSS")), "VmRSS: 0 kB")
            usage = self.usage[kind]
            usage.peak_mb = max(usage.peak_mb, int(resident.split()[1]) / 1024)
            usage.cpu_s = sum(seconds for of_kind, seconds in self._cpu.values() if of_kind == kind)

    def _watch(self) -> None:
        while not self._stop.wait(_INTERVAL_S):
            with self._lock:
                self._sample()


def _kind_of(folder: Path) -> str:
    command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return next((kind for sign, kind in _KINDS.items() if sign in command), "other")


class BenchFailed(RuntimeError):
    """A benchmark that cannot go on; the message is one line."""


def wait_for_phase(run: Path, phase: str, timeout_s: float = math.inf) -> None:
    """Wait until a run has come to a phase or past it.

    Raises:
        BenchFailed: the run failed, or takes too long.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        if time.monotonic() > deadline:
            raise BenchFailed(f"the run has not come to its {phase} in {timeout_s:.0f} s")
        status = Status.read(run)
        if status.phase == "failed" or simulation_failed(run):
            raise BenchFailed(f"the run failed: {status.error or 'its simulation raised an exception'}")
        if _PHASES.index(status.phase) >= _PHASES.index(phase):
            return
        time.sleep(0.1)


def run_command(command: Callable[..., None], program: str) -> None:
    """Run the command line ``program ...`` of a benchmark; what goes wrong is one line and exit code 1."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(command)
    # As any other end: what was started is ended.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        sys.exit(app(prog_name=program, standalone_mode=False))
    except click.ClickException as error:
        sys.exit(f"veilsim: {error.format_message()}")
    except (BenchFailed, ConfigError) as error:
        sys.exit(f"veilsim: {error}")
