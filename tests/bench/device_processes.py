"""The processes of a benchmark on a GPU: the limit's, which wait for each other, and veilsim's."""

import itertools
import json
import math
import subprocess
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sim.config.experiment import Experiment
from sim.run.folder import RunFolder
from sim.run.launch import simulation
from tests.bench.processes import BenchFailed, wait_for_phase

_TIMED = Path(__file__).parent / "timed"


class Limit:
    """Processes of ``device_limit.py``, started when they are needed, and anew after one has died.

    Args:
        count: how many.
        given: what each of them is told at its start.
    """

    def __init__(self, count: int, given: dict[str, Any]) -> None:
        self._count, self._given = count, given
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all processes."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.communicate()
        self._processes = []

    def measure(self, asked: dict[str, Any], count: int, timeout_s: float) -> dict[str, Any]:
        """Have ``count`` processes do the same at once: steps a second of all together, and the memory of the largest.

        Raises:
            BenchFailed: a process could not, or there is no answer in time.
        """
        # A process that hangs is one that dies: its line never comes, and the next measurement starts all anew.
        watch = threading.Timer(timeout_s, self._kill)
        watch.start()
        try:
            return self._measured(asked, count)
        except OSError as error:
            self.close()
            raise BenchFailed(f"a process of the limit is gone ({error})") from error
        finally:
            watch.cancel()

    def _kill(self) -> None:
        for process in self._processes:
            process.kill()

    def _measured(self, asked: dict[str, Any], count: int) -> dict[str, Any]:
        if not self._processes:
            command = [sys.executable, "-m", "tests.bench.device_limit", json.dumps(self._given)]
            for _ in range(self._count):
                process = subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
                self._processes.append(process)
            for process in self._processes:
                self._answer(process)
        chosen = self._processes[:count]
        for process in chosen:
            _tell(process, asked)
        answers = [self._answer(process) for process in chosen]
        ready = [process for process, answer in zip(chosen, answers, strict=True) if "ready" in answer]
        for process in ready:
            _tell(process, "go")
        answers = [answer for answer in answers if "error" in answer] + [self._answer(process) for process in ready]
        if reason := next((answer["error"] for answer in answers if "error" in answer), ""):
            raise BenchFailed(reason)
        memory = [answer["memory_mb"] for answer in answers]
        rates = [sum(run) for run in zip(*(answer["rates"] for answer in answers), strict=True)]
        return {"rates": rates, "memory_mb": None if None in memory else max(memory)}

    def _answer(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            self.close()
            raise BenchFailed("a process of the limit has died, or did not answer in time")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _tell(process: subprocess.Popen[str], what: Any) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(what) + "\n")
    process.stdin.flush()


def run_product(given: dict[str, Any], timeout_s: float) -> dict[str, Any]:
    """Have ``device_product.py`` train psi or an inverse network; return what it says.

    Raises:
        BenchFailed: it failed, or took too long.
    """
    command = [sys.executable, "-m", "tests.bench.device_product", json.dumps(given)]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=timeout_s, check=True)
    except subprocess.SubprocessError as error:
        raise BenchFailed(f"the product's {given['network']} {type(error).__name__}: {error}") from error
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def run_users(experiment: Experiment, folder: Path, timeout_s: float) -> dict[str, Any]:
    """Run veilsim until its users are trained; return their steps a second, all together, while all train.

    Raises:
        BenchFailed: it failed, or took too long.
    """
    RunFolder.create(folder, experiment)
    if experiment.runtime.exchange == "direct":
        (folder / "together").write_text(str(experiment.user_count))
    began = time.monotonic()
    with simulation(folder, experiment, _TIMED):
        wait_for_phase(folder, "attacks", timeout_s)
    return {"rates": [rate_while_all_train(folder, experiment.user_count)], "seconds": time.monotonic() - began}


def rate_while_all_train(folder: Path, users: int) -> float:
    """Return steps a second of all users from when the last has begun until the first is done, by the app's stamps.

    Raises:
        BenchFailed: they did not train at once, or one was never seen.
    """
    stamps: dict[int, list[tuple[float, int]]] = defaultdict(list)
    path = folder / "stamps.jsonl"
    for line in path.read_text().splitlines() if path.is_file() else ():
        row = json.loads(line)
        stamps[row["user"]].append((row["time"], row["done"]))
    if len(stamps) < users:
        raise BenchFailed(f"{len(stamps)} of {users} users have trained; {folder.name} has no more stamps")
    began, ended = (max(rows[0][0] for rows in stamps.values()), min(rows[-1][0] for rows in stamps.values()))
    if ended <= began:
        raise BenchFailed("users did not train at the same time: give them more --steps")
    return sum(_done_at(rows, ended) - _done_at(rows, began) for rows in stamps.values()) / (ended - began)


def _done_at(rows: list[tuple[float, int]], when: float) -> float:
    """Return the steps done at a time between two stamps, as if steps took equally long."""
    for (before, done), (after, more) in itertools.pairwise(rows):
        if before <= when <= after:
            return done + (more - done) * (when - before) / max(after - before, 1e-9)
    return math.nan
