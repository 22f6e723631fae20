"""What a user costs: the same total number of training and attack steps, shared by 10, 100 or 1,000 users.

The whole pipeline: training, publication, classification of test images, an inverse network for every user. Run by
``veilsim bench users``.
"""

import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from sim.config.checks import check
from sim.config.errors import ConfigError
from sim.config.experiment import Experiment
from sim.run.environment import environment
from sim.run.folder import RunFolder
from sim.run.launch import simulation
from sim.run.subject import Subject
from tests.bench.processes import (
    BenchFailed,
    PrecisionName,
    PrecisionOption,
    ProcessWatch,
    run_command,
    wait_for_phase,
)

_BATCH = 32


@dataclass(frozen=True)
class Result:
    """One number of users."""

    users: int
    seconds: float
    """From the first message to the last result, psi's training and the report left out."""
    users_seconds: float
    attacks_seconds: float
    """What was left to do when the last user was trained."""
    peak_mb: dict[str, float]
    """Largest resident memory of a process, by what it is for."""
    cpu_s: dict[str, float]


def experiment_of(users: int, steps: int, data: str, precision: str) -> Experiment:
    """Return ``steps`` steps of training and as many of attacks, each shared by ``users`` users."""
    each = steps // users
    per_epoch, attack_per_epoch = min(each, 20), min(each, 4)
    attack = {
        "epochs": each / attack_per_epoch,
        "batch_size": _BATCH,
        "optimiser": "adam",
        "lr": 0.003,
        "weight_decay": 0,
    }
    return Experiment.model_validate(
        {
            "name": "bench-users",
            "data": {"name": data},
            "classifier": {"training": {"epochs": 0.2, "lr": 0.01}},
            "users": {
                "count": users,
                "partition": {"kind": "sample", "images": _BATCH * per_epoch},
                "validation_images": 32,
            },
            "user": {
                "alpha": 0.03,
                "width": 8,
                "depth": 3,
                "features": {"layer": "relu1_2", "weights": "random"},
                "training": {"epochs": each / per_epoch, "batch_size": _BATCH, "lr": 0.01},
            },
            "attack": {
                "pairs": _BATCH * attack_per_epoch,
                "test_images": 32,
                "itns": [{"name": "strong", "width": 8, "depth": 3, "training": attack}],
            },
            "runtime": {"precision": precision},
        }
    ).resolved()


def run_users(experiment: Experiment, folder: Path) -> Result:
    """Run the whole pipeline once."""
    run = RunFolder.create(folder, experiment)
    with ProcessWatch(folder) as watch, simulation(folder, experiment):
        wait_for_phase(folder, "complete")
    facts = run.facts()
    missing = [user for user in range(experiment.user_count) if not run.attack_path(Subject("user", user)).is_file()]
    if missing:
        raise BenchFailed(f"{len(missing)} users have no result, the first is user {missing[0]}")
    return Result(
        users=experiment.user_count,
        seconds=facts["seconds"] - facts["psi"]["seconds"],
        users_seconds=facts["users_seconds"],
        attacks_seconds=facts["attacks_seconds"],
        peak_mb={kind: usage.peak_mb for kind, usage in watch.usage.items()},
        cpu_s={kind: usage.cpu_s for kind, usage in watch.usage.items()},
    )


def bench(
    users: Annotated[str, typer.Option(help="Numbers of users, comma-separated.")] = "10,100,1000",
    steps: Annotated[
        int, typer.Option(min=1, help="Training steps of all users together; as many of all attacks.")
    ] = 20_000,
    data: Annotated[str, typer.Option(help="Data set: digits, a name on the Hub, or a folder.")] = "digits",
    precision: PrecisionOption = PrecisionName.AUTO,
    out: Annotated[Path | None, typer.Option(help="JSON file for everything measured.")] = None,
) -> None:
    """Share the same work among ever more users.

    Example: veilsim bench users --users 10,100 --steps 2000
    """
    console = Console()
    counts = [int(count) for count in users.split(",") if count.isdecimal() and int(count)]
    if not counts or len(counts) < len(users.split(",")) or max(counts) > steps:
        raise ConfigError(f"bench users: --users {users!r}: must be numbers from 1 to --steps ({steps}), with commas")
    experiments = {count: experiment_of(count, steps, data, precision.value) for count in counts}
    check(experiments[counts[0]], Path("bench users"))
    results: list[Result] = []
    report: dict[str, Any] = {"environment": environment(), "steps": steps, "data": data}
    for count, experiment in experiments.items():
        with tempfile.TemporaryDirectory(prefix="veilbench-") as scratch:
            results.append(run_users(experiment, Path(scratch) / "run"))
        console.print(f"{count} users: {results[-1].seconds:.0f} s")
        report["results"] = [asdict(result) for result in results]
        if out is not None:
            out.write_text(json.dumps(report, indent=1))
    console.print(table_of(results, steps))


def table_of(results: list[Result], steps: int) -> Table:
    """Return times and memory, against the first number of users."""
    table = Table(title=f"{steps} training steps and as many attack steps, shared")
    for column in (
        "users",
        "s",
        "ratio",
        "training s",
        "rest s",
        "driver MB",
        "MB a user",
        "worker MB",
        "driver CPU s",
    ):
        table.add_column(column, justify="right")
    first = results[0]
    for result in results:
        driver, more = result.peak_mb["driver"], result.users - first.users
        grown = f"{(driver - first.peak_mb['driver']) / more:.2f}" if more else "-"
        table.add_row(
            str(result.users),
            f"{result.seconds:.0f}",
            f"{result.seconds / first.seconds:.2f}",
            f"{result.users_seconds:.0f}",
            f"{result.attacks_seconds:.0f}",
            f"{driver:.0f}",
            grown,
            f"{result.peak_mb['worker']:.0f}",
            f"{result.cpu_s['driver']:.0f}",
        )
    return table


if __name__ == "__main__":
    run_command(bench, "veilsim bench users")
