"""Whether memory grows with the users that have been served: the size of every process over a run of many users.

``python -m tests.faults.memory --users 40`` prints, for each process of a run, its resident memory when a quarter of
the users have been attacked, when half have, and so on.
"""

import contextlib
import tempfile
import time
from pathlib import Path
from typing import Annotated

import psutil
import typer
import yaml
from rich.console import Console
from rich.table import Table

from sim.config.checks import check
from sim.config.files import load_experiment
from sim.run.folder import RunFolder
from sim.run.launch import Pulse, processes_of, simulation
from sim.run.progress import Status
from tests.faults.kills import kind_of
from tests.sim.tiny import TINY

SHARES = (0.25, 0.5, 0.75, 0.9)
"""Of the users, attacked when sizes are taken."""


def sizes(run: Path) -> dict[int, tuple[str, float]]:
    """Return what each process of a run is and its resident memory in MB, by its number."""
    found = {}
    for number in processes_of(run):
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(number)
            found[number] = kind_of(process), process.memory_info().rss / 2**20
    return {number: (kind, size) for number, (kind, size) in found.items() if size > 1}


def main(
    users: Annotated[int, typer.Option(min=8, help="How many, one after the other on two workers.")] = 40,
    exchange: Annotated[str, typer.Option(help="direct, endpoint or relay.")] = "direct",
) -> None:
    """Measure what each process of a run holds, early and late."""
    with tempfile.TemporaryDirectory(prefix="veilmemory-") as scratch:
        config = Path(scratch) / "config.yaml"
        config.write_text(yaml.safe_dump(TINY | {"users": TINY["users"] | {"count": users}}))  # type: ignore[operator]
        experiment = load_experiment(config, [f"runtime.exchange={exchange}", "studies=[]"]).resolved()
        check(experiment, config)
        run = RunFolder.create(Path(scratch) / "run", experiment)
        seen = dict[float, dict[int, tuple[str, float]]]()
        with simulation(run.path, experiment):
            pulse = Pulse(run.path)
            while (phase := Status.read(run.path).phase) not in ("complete", "failed") and not pulse.has_stopped():
                attacked = len(list((run.path / "attacks").glob("user-*/*")))
                for share in SHARES:
                    if attacked >= share * users and phase in ("users", "attacks"):
                        seen.setdefault(share, sizes(run.path))
                time.sleep(0.2)
    table = Table(title=f"{users} users, {exchange}: {phase}")
    for column in ("process", *(f"MB, {share:.0%}" for share in SHARES), "MB a user"):
        table.add_column(column, justify="left" if column == "process" else "right")
    for number, (kind, _) in sorted(seen[SHARES[-1]].items(), key=lambda entry: entry[1][0]):
        if all(number in found for found in seen.values()):
            held = [seen[share][number][1] for share in SHARES]
            grown = (held[-1] - held[0]) / (users * (SHARES[-1] - SHARES[0]))
            table.add_row(kind, *(f"{size:.0f}" for size in held), f"{grown:.2f}")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
