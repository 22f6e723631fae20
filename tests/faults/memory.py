"""Whether memory grows with the users that have been served: the size of every process over a run of many users.

``python -m tests.faults.memory --users 40`` prints, for each process of a run, its resident memory when a quarter of
the users have published and when all have.
"""

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
from sim.run.launch import processes_of, simulation
from sim.run.progress import Status
from tests.faults.kills import kind_of
from tests.sim.tiny import TINY


def sizes(run: Path) -> dict[tuple[str, int], float]:
    """Return the resident memory in MB of each process of a run, by what it is and its number."""
    found = {}
    for number in processes_of(run):
        try:
            process = psutil.Process(number)
            found[kind_of(process), number] = process.memory_info().rss / 2**20
        except psutil.Error:
            continue
    return {process: size for process, size in found.items() if size > 1}


def main(
    users: Annotated[int, typer.Option(min=8, help="How many, one after the other on two workers.")] = 40,
    exchange: Annotated[str, typer.Option(help="direct, endpoint or relay.")] = "direct",
) -> None:
    """Measure what each process of a run holds, early and late."""
    with tempfile.TemporaryDirectory(prefix="veilmemory-") as scratch:
        config = Path(scratch) / "config.yaml"
        config.write_text(yaml.safe_dump(TINY | {"users": TINY["users"] | {"count": users}}))  # type: ignore[operator]
        experiment = load_experiment(config, [f"runtime.exchange={exchange}"]).resolved()
        check(experiment, config)
        run = RunFolder.create(Path(scratch) / "run", experiment)
        early, late = dict[tuple[str, int], float](), dict[tuple[str, int], float]()
        with simulation(run.path, experiment):
            while (phase := Status.read(run.path).phase) not in ("complete", "failed"):
                if published := len(run.published()):
                    late = sizes(run.path)
                    early = early if published > users / 4 else late
                time.sleep(0.5)
    table = Table(title=f"{users} users, {exchange}: {phase}")
    for column in ("process", "MB, a quarter", "MB, at the end", "MB a user"):
        table.add_column(column, justify="left" if column == "process" else "right")
    for (kind, number), size in sorted(late.items()):
        if before := early.get((kind, number)):
            table.add_row(kind, f"{before:.0f}", f"{size:.0f}", f"{(size - before) / (users * 0.75):.2f}")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
