"""What a step costs where each party is a node of its own: a deployment on this machine, beside a simulation.

Two users of width 16 and batch 32 on digits, side by side: direct exchange in a simulation, and the provider's endpoint
in ``docs/deployment/loopback.sh``. Run by ``veilsim bench deployment``.
"""

import json
import statistics
import tempfile
from pathlib import Path
from typing import Annotated

import typer
import yaml
from rich.console import Console
from rich.table import Table

from sim.config.errors import one_line
from sim.config.experiment import Experiment
from sim.run.environment import environment
from sim.run.folder import RunFolder
from sim.run.launch import simulation
from tests.bench.processes import BenchFailed, PrecisionName, PrecisionOption, run_command, wait_for_phase
from tests.sim.deployment import Deployment

_BATCH, _IMAGES, _USERS = 32, 640, 2


def experiment_of(steps: int, precision: str) -> Experiment:
    """Return two users of width 16, each of whom trains for so many steps."""
    return Experiment.model_validate(
        {
            "name": "bench-deployment",
            "data": {"name": "digits"},
            "classifier": {"training": {"epochs": 0.2, "lr": 0.01}},
            "users": {"count": _USERS, "partition": {"kind": "sample", "images": _IMAGES}, "validation_images": 32},
            "user": {
                "width": 16,
                "features": {"layer": "relu1_2", "weights": "random"},
                "training": {"epochs": steps * _BATCH / _IMAGES, "batch_size": _BATCH, "lr": 0.01},
            },
            "attack": {"test_images": 32, "itns": [{"name": "itn", "width": 4, "depth": 2, "training": {"epochs": 1}}]},
            "runtime": {"precision": precision, "workers": _USERS, "evaluators": 1},
        }
    ).resolved()


def steps_per_s(folder: Path) -> float:
    """Return the steps per second of all users together, as the processes that trained them have noted it."""
    noted = [json.loads(path.read_text()) for path in folder.rglob("progress/worker-*-users.json")]
    if len(noted) != _USERS:
        raise BenchFailed(f"{folder}: {len(noted)} processes trained users, expected {_USERS}")
    return sum(1 / progress["step_s"] for progress in noted)


def simulated(experiment: Experiment, folder: Path) -> float:
    """Return the steps per second of a simulation."""
    RunFolder.create(folder, experiment)
    with simulation(folder, experiment):
        wait_for_phase(folder, "complete")
    return steps_per_s(folder)


def deployed(experiment: Experiment, folder: Path) -> float:
    """Return the steps per second of a deployment."""
    folder.mkdir()
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(experiment.model_dump(mode="json")))
    try:
        Deployment(folder, config, "runtime.exchange=endpoint").run()
    except AssertionError as error:
        raise BenchFailed(f"the deployment failed: {one_line(error)[-300:]}") from error
    return steps_per_s(folder)


def bench(
    steps: Annotated[int, typer.Option(min=2, help="Training steps of each user.")] = 200,
    repeats: Annotated[int, typer.Option(min=1, help="How often each is run, in turn.")] = 5,
    precision: PrecisionOption = PrecisionName.AUTO,
    out: Annotated[Path | None, typer.Option(help="JSON file for everything measured.")] = None,
) -> None:
    """Train the same users in a simulation and in a deployment on this machine.

    Example: veilsim bench deployment --steps 200 --repeats 5
    """
    console, experiment = Console(), experiment_of(steps, precision.value)
    rates: dict[str, list[float]] = {"simulation, direct": [], "deployment, endpoint": []}
    direct, other = rates.values()
    for _ in range(repeats):
        with tempfile.TemporaryDirectory(prefix="veilbench-") as scratch:
            direct.append(simulated(experiment, Path(scratch) / "run"))
            other.append(deployed(experiment, Path(scratch) / "deployment"))
        console.print(f"{direct[-1]:.2f} and {other[-1]:.2f} steps/s")
        if out is not None:
            out.write_text(json.dumps({"environment": environment(), "steps": steps, "steps_per_s": rates}, indent=1))
    table = Table(title=f"{_USERS} users, width 16, batch {_BATCH}: medians of {repeats}")
    for column in ("", "steps/s", "spread", "of direct"):
        table.add_column(column, justify="right" if column else "left")
    for way, found in rates.items():
        of_direct = statistics.median(one / limit for one, limit in zip(found, direct, strict=True))
        median, spread = f"{statistics.median(found):.2f}", f"{min(found):.2f}-{max(found):.2f}"
        table.add_row(way, median, spread, f"{of_direct:.2f}")
    console.print(table)


if __name__ == "__main__":
    run_command(bench, "veilsim bench deployment")
