"""Kills simulations at random moments, resumes them, and compares what they end with.

``python -m tests.faults.kills --kills 100`` takes a run after the other, kills (``kill -9``) one of its processes,
drawn at random, at a moment drawn at random, resumes it, kills again, and so on, and lets it end. Whatever was killed,
the run says so in a line, or goes on; nothing of it runs a little later; and its table is that of an unbroken run.
"""

import contextlib
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import psutil
import typer
import yaml

from sim.run.launch import processes_of
from sim.run.progress import Status, clear
from tests.sim.tiny import TINY

STRATEGIES = ("independent", "fedavg")
PHASES = ("starting", "classifier", "users", "attacks", "studies", "report", "complete", "failed")
EXCHANGES = ("direct", "endpoint", "relay")
_SILENCE_S = 120
"""For so long a run may take to notice that something of it was killed; a whole one takes less."""
_ENDING_S = 30
_WHOLE_S = 600
_PROGRAMS = (
    *("flower-superlink", "flower-superexec", "flwr-simulation"),
    *("raylet", "gcs_server", "dashboard", "log_monitor", "runtime_env"),
)


@dataclass(frozen=True)
class Kill:
    """One process killed, and what came of it."""

    victim: str
    phase: str
    """Of the run, when that was."""
    after_s: float
    """Seconds from when the run had come to the phase that was drawn."""
    noticed_s: float
    """Seconds from the kill to the end of the attempt."""
    survived: bool
    """Whether the attempt came to its end all the same."""
    said: str
    problems: list[str]


def config_in(folder: Path, strategy: str) -> Path:
    """Write a small experiment of two users under a strategy."""
    path = folder / f"{strategy}.yaml"
    users = TINY["users"] | {"count": 2}  # type: ignore[operator]
    path.write_text(yaml.safe_dump(TINY | {"users": users, "strategy": {"name": strategy, "rounds": 4}}))
    return path


def veilsim(*arguments: str | Path) -> "subprocess.Popen[str]":
    """Start ``veilsim run``."""
    command = [sys.executable, "-m", "sim.cli", "run", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def kind_of(process: psutil.Process) -> str:
    """Return what a process of a run is for; empty if it is gone."""
    with contextlib.suppress(psutil.Error):
        command = " ".join(process.cmdline())
        if command.startswith("ray::"):
            return command.split()[0]
        if program := next((name for name in _PROGRAMS if name in command), ""):
            return program
        words = [word for word in command.split()[1:] if not word.startswith("-")]
        return Path(words[0]).name if words else ""
    return ""


def victims(run: Path, launcher: int) -> dict[str, list[psutil.Process]]:
    """Return the processes of a run by what they are for, with the one that a person has started."""
    found: dict[str, list[psutil.Process]] = {"veilsim": [psutil.Process(launcher)]}
    for number in processes_of(run):
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(number)
            if process.status() != psutil.STATUS_ZOMBIE and (kind := kind_of(process)):
                found.setdefault(kind, []).append(process)
    return found


def comes_to(run: Path, phase: str, attempt: "subprocess.Popen[str]", after_s: float) -> bool:
    """Wait until an attempt has come to a phase or past it, and for some seconds more; False if it ends before."""
    while PHASES.index(Status.read(run).phase) < PHASES.index(phase):
        if attempt.poll() is not None:
            return False
        time.sleep(0.1)
    with contextlib.suppress(subprocess.TimeoutExpired):
        attempt.wait(after_s)
        return False
    return True


def kill_one(run: Path, attempt: "subprocess.Popen[str]", longest_s: float, draw: random.Random) -> Kill | None:
    """Let an attempt at a run come to a phase and work there, kill one of its processes and wait for its end.

    Args:
        longest_s: how long the start of a run takes at most; of later phases, a third of it.

    Returns:
        What came of it; None if the attempt ended before.
    """
    # Most of the time of so small a run is its start: were moments drawn from all of it, few would be later.
    after_phase = draw.choice(("starting", "classifier", "users", "attacks"))
    after_s = draw.uniform(0, longest_s if after_phase == "starting" else longest_s / 3)
    if not comes_to(run, after_phase, attempt, after_s):
        return None
    kinds = victims(run, attempt.pid)
    victim = draw.choice(sorted(kinds))
    phase, began, problems = Status.read(run).phase, time.monotonic(), []
    with contextlib.suppress(psutil.Error):
        draw.choice(kinds[victim]).kill()
    try:
        said = attempt.communicate(timeout=_SILENCE_S)[1].strip()
    except subprocess.TimeoutExpired:
        problems.append(f"went on for {_SILENCE_S} s")
        attempt.kill()
        said = attempt.communicate()[1].strip()
    noticed = time.monotonic() - began
    if victim != "veilsim" and attempt.returncode not in (0, 1):
        problems.append(f"exit code {attempt.returncode}")
    if len(said.splitlines()) > 1 or "Traceback" in said:
        problems.append("said more than a line")
    if attempt.returncode == 1 and "(resume with: veilsim run --resume" not in said:
        problems.append("does not say how to go on")
    deadline = time.monotonic() + _ENDING_S
    while (left := processes_of(run)) and time.monotonic() < deadline:
        time.sleep(0.2)
    if left:
        problems.append(f"{len(left)} processes left")
    return Kill(victim, phase, after_s, noticed, attempt.returncode == 0, said, problems)


def whole(config: Path, run: Path, *overrides: str) -> float:
    """Run an experiment unbroken, and return the seconds that it takes."""
    began, attempt = time.monotonic(), veilsim(config, *overrides, "--out", run)
    said = attempt.communicate()[1]
    if attempt.returncode:
        raise RuntimeError(said)
    return time.monotonic() - began


def killed(config: Path, run: Path, exchange: str, kills: int, most_s: float, draw: random.Random) -> list[Kill]:
    """Run an experiment, killing so many processes at most on the way, to its end."""
    found: list[Kill] = []
    attempt = veilsim(config, f"runtime.exchange={exchange}", "--out", run)
    for _ in range(kills):
        kill = kill_one(run, attempt, most_s / 2, draw)
        if kill is None:
            break
        found.append(kill)
        if kill.survived:
            return found
        clear(run)  # else the next attempt would seem to have come as far as this one
        created = (run / "config.yaml").is_file()
        arguments = ("--resume", run) if created else (config, f"runtime.exchange={exchange}", "--out", run)
        attempt = veilsim(*arguments)
    try:
        said, problem = attempt.communicate(timeout=_WHOLE_S)[1], "the last attempt failed"
    except subprocess.TimeoutExpired:
        attempt.kill()
        said, problem = attempt.communicate()[1], f"the last attempt went on for {_WHOLE_S} s"
    if attempt.returncode:
        found.append(Kill("nothing", Status.read(run).phase, 0, 0, False, said, [problem]))
    return found


def main(
    kills: Annotated[int, typer.Option(min=1, help="How many in all.")] = 100,
    each: Annotated[int, typer.Option(min=1, help="How many in a run, at most.")] = 4,
    seed: int = 0,
    out: Annotated[Path, typer.Option(help="JSON file for what was found.")] = Path("kills.json"),
    keep: Annotated[Path | None, typer.Option(help="Folder for the runs; by default they are removed.")] = None,
) -> None:
    """Kill runs at random moments and compare their tables."""
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="veilkills-") as scratch:
        folder = (keep or Path(scratch)).resolve()
        folder.mkdir(exist_ok=True, parents=True)
        tables, seconds = dict[str, bytes](), dict[str, float]()
        for strategy in STRATEGIES:
            run = folder / f"whole-{strategy}"
            seconds[strategy] = whole(config_in(folder, strategy), run)
            tables[strategy] = (run / "table.csv").read_bytes()
        found, equal, number = list[Kill](), Counter[str](), 0
        while len(found) < kills:
            strategy, exchange = draw.choice(STRATEGIES), draw.choice(EXCHANGES)
            run = folder / f"run-{number}"
            some = killed(config_in(folder, strategy), run, exchange, each, seconds[strategy], draw)
            number += 1
            found += some
            same = (run / "table.csv").is_file() and (run / "table.csv").read_bytes() == tables[strategy]
            equal["equal" if same else f"differs: {run.name}"] += 1
            for kill in some:
                print(strategy, exchange, kill, flush=True)
            print(f"{len(found)} kills, tables {dict(equal)}", flush=True)
            out.write_text(json.dumps({"tables": equal, "kills": [asdict(kill) for kill in found]}, indent=1))


if __name__ == "__main__":
    typer.run(main)
