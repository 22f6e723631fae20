"""What the exchange costs: the same users trained five ways, in alternation, with medians and spread.

limit   one plain PyTorch process a core, each training its share of the users in turn, psi in the same process
direct  veilsim, each worker with a replica of the provider
relay   veilsim, gradients through the Flower Grid
naive   Flower as it is first written: a blocking send_and_receive a hop, a user's state in its Context
whole   one plain PyTorch process on all cores

Run by ``veilsim bench exchange``; ``device.py`` has what it does on a GPU.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from roles.common.hardware import available_cpus
from roles.common.weights import digest
from sim.config.errors import ConfigError
from sim.config.experiment import Experiment
from sim.exchange.job import Job
from sim.nodes.provider.classifier import trained_classifier
from sim.run.environment import environment
from sim.run.folder import RunFolder
from sim.run.launch import simulation, simulation_environment
from tests.bench.device import WAYS as DEVICE_WAYS
from tests.bench.device import bench_device
from tests.bench.processes import (
    BenchFailed,
    PrecisionName,
    PrecisionOption,
    ProcessWatch,
    run_command,
    wait_for_phase,
)
from tests.bench.results import Result, table_of

WAYS = ("limit", "direct", "relay", "naive", "whole")
_BENCH = Path(__file__).parent
_IMAGES = 1280
"""In each user's X'; an epoch of batches of 128 is 10 steps."""


@dataclass(frozen=True)
class Point:
    """One size of the work."""

    width: int
    depth: int
    batch: int


POINTS = {
    "small": Point(width=8, depth=3, batch=32),
    "width16": Point(width=16, depth=5, batch=128),
    "wide": Point(width=64, depth=5, batch=128),
}


def experiment_of(point: Point, users: int, steps: int, exchange: str, precision: str) -> Experiment:
    """Return the work as an experiment: digits at 3x32x32, ResNet-20, phi relu1_2; nothing but training has a size."""
    images = min(_IMAGES, point.batch * steps)
    return Experiment.model_validate(
        {
            "name": "bench",
            "classifier": {"training": {"epochs": 0.1, "lr": 0.01}},
            "users": {"count": users, "partition": {"kind": "sample", "images": images}, "validation_images": 2},
            "user": {
                "width": point.width,
                "depth": point.depth,
                "features": {"layer": "relu1_2", "weights": "random"},
                "training": {"epochs": steps * point.batch / images, "batch_size": point.batch, "lr": 0.01},
            },
            "attack": {
                "pairs": 2,
                "test_images": 2,
                "pictures": 1,
                "itns": [{"name": "itn", "width": 1, "depth": 2, "training": {"epochs": 1}}],
            },
            # With no evaluator of their own, attacks wait until all users are trained.
            "runtime": {"exchange": exchange, "precision": precision, "evaluators": 0},
        }
    ).resolved()


def run_plain(experiment: Experiment, folder: Path, processes: int, threads: int) -> Result:
    """Train by the reference loop in ``processes`` processes of ``threads`` threads each, which start together."""
    RunFolder.create(folder, experiment)
    users, psi = range(experiment.user_count), str(_psi_of(experiment, folder.parent))
    variables = simulation_environment(folder, folder, 0, experiment) | {"OMP_NUM_THREADS": str(threads)}
    started = []
    for process in range(processes):
        given = {
            "run": str(folder),
            "psi": psi,
            "threads": threads,
            "users": [user for user in users if user % processes == process],
        }
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "tests.bench.plain", json.dumps(given)],
                env=variables,
                text=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        )
    for process in started:
        assert process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            raise BenchFailed("a plain process did not start")
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    found = [json.loads(process.communicate()[0]) for process in started]
    steps = sum(one["steps"] for one in found)
    return Result(
        # From the first start to the last end; that a process exits is not work.
        steps_per_s=steps / (max(one["ended"] for one in found) - min(one["began"] for one in found)),
        cpu_s_per_step=sum(one["cpu_s"] for one in found) / steps,
        peak_mb={"plain": max(one["peak_mb"] for one in found)},
        digests={user: value for one in found for user, value in one["digests"].items()},
    )


def run_veilsim(experiment: Experiment, folder: Path) -> Result:
    """Run veilsim and take the time of the users' phase.

    Users that are trained first are published and tested on two images in it as well, which counts against veilsim.
    """
    run = RunFolder.create(folder, experiment)
    with ProcessWatch(folder) as watch, simulation(folder, experiment, _BENCH / "timed"):
        wait_for_phase(folder, "users")
        before = watch.cpu_seconds()
        wait_for_phase(folder, "attacks")
        after = watch.cpu_seconds()
        wait_for_phase(folder, "complete")
    users = run.published()
    known = [one for user in users if (one := run.user(user)) is not None]
    steps = sum(one.facts["steps"] for one in known)
    latencies = sorted(float(line) * 1000 for line in (folder / "latencies.jsonl").read_text().split())
    return Result(
        steps_per_s=steps / run.facts()["users_seconds"],
        cpu_s_per_step=(after - before) / steps,
        bytes_per_step=sum(one.facts["sent-bytes"] + one.facts["received-bytes"] for one in known) / steps,
        request_p50_ms=latencies[len(latencies) // 2],
        request_p95_ms=latencies[len(latencies) * 95 // 100],
        peak_mb={kind: usage.peak_mb for kind, usage in watch.usage.items()},
        digests={str(user): digest(run.theta(user)) for user in users},
    )


def run_naive(experiment: Experiment, folder: Path) -> Result:
    """Run the naive app, which takes its own time; psi is the one that was trained for the others."""
    RunFolder.create(folder, experiment)
    (folder / "provider").mkdir()
    (folder / "provider" / "psi.safetensors").write_bytes(_psi_of(experiment, folder.parent).read_bytes())
    with ProcessWatch(folder) as watch, simulation(folder, experiment, _BENCH / "naive"):
        wait_for_phase(folder, "users")
        before = watch.cpu_seconds()
        wait_for_phase(folder, "complete")
        after = watch.cpu_seconds()
    found = json.loads((folder / "naive.json").read_text())
    one_epoch = experiment.user.training.epochs <= 1
    return Result(
        steps_per_s=found["steps"] / found["seconds"],
        cpu_s_per_step=(after - before) / found["steps"],
        bytes_per_step=found["bytes"] / found["steps"],
        peak_mb={kind: usage.peak_mb for kind, usage in watch.usage.items()},
        # It selects no epoch: after several, its last theta is not what the others publish.
        digests=found["digests"] if one_epoch else None,
    )


def _psi_of(experiment: Experiment, base: Path) -> Path:
    """Return the weights of psi, trained as veilsim trains it, or found where it keeps them."""
    path = base / "psi" / "provider" / "psi.safetensors"
    if not path.is_file():
        trained_classifier(Job(experiment, base / "psi"))
    return path


class DeviceName(StrEnum):
    """Where users train."""

    CPU = "cpu"
    CUDA = "cuda"


def bench(
    device: Annotated[DeviceName, typer.Option(help="What is said of a GPU below is for cuda.")] = DeviceName.CPU,
    points: Annotated[str, typer.Option(help=f"CPU: which of {', '.join(POINTS)}, comma-separated.")] = "width16",
    widths: Annotated[str, typer.Option(help="GPU: of U-Nets, by default 16,32,64; on a CPU, a rehearsal of it.")] = "",
    ways: Annotated[
        str, typer.Option(help=f"CPU: {', '.join(WAYS)}; GPU: {', '.join(DEVICE_WAYS)}; by default all.")
    ] = "",
    repeats: Annotated[int, typer.Option(min=1, help="CPU: how often each way is run, in alternation.")] = 5,
    users: Annotated[str, typer.Option(help="How many, by default 8; on a GPU 1,4,8.")] = "",
    steps: Annotated[int | None, typer.Option(min=1, help="Of each user, by default 40; on a GPU 200.")] = None,
    precision: PrecisionOption = PrecisionName.AUTO,
    data: Annotated[
        str, typer.Option(help="GPU: of veilsim's users, by default uoft-cs/cifar10; on a CPU digits.")
    ] = "",
    mps: Annotated[
        bool | None, typer.Option(help="GPU: whether by a Multi-Process Service of its own; by default both.")
    ] = None,
    minutes: Annotated[float, typer.Option(min=0, help="GPU: after which nothing more is begun.")] = 4,
    out: Annotated[Path | None, typer.Option(help="JSON file for everything measured.")] = None,
) -> None:
    """Train the same users in every way, and compare.

    Example: veilsim bench exchange --ways limit,direct,relay --users 4 --steps 10

    On a GPU, the default measures plain loops (graphs) at all widths and numbers of users, which is the limit, and
    what takes a start of veilsim at fewer: direct at the least and the greatest width with the fewest and the most
    users, relay at the least of both. Loops without graphs, on streams or stacked, psi and an inverse network are
    measured at a point or two each; and once more without MPS, graphs of several users at the least and the greatest
    width. Batches are of 128 images of 32x32 pixels, phi is relu2_2 with random weights, U-Nets have transposed
    convolutions, and a rate is of steps after graphs are captured.
    """
    on_gpu = device == DeviceName.CUDA
    if not on_gpu and not widths:
        _bench_cpu(
            points, ways or ",".join(WAYS), repeats, _numbers(users or "8", "--users")[0], steps or 40, precision, out
        )
        return
    _check_names(ways, DEVICE_WAYS)
    bench_device(
        device.value,
        ways.split(",") if ways else DEVICE_WAYS,
        _numbers(widths or "16,32,64", "--widths"),
        _numbers(users or "1,4,8", "--users"),
        use_mps=mps,
        data=data or ("uoft-cs/cifar10" if on_gpu else "digits"),
        steps=steps or 200,
        precision=precision.value,
        minutes=minutes,
        out=out,
    )


def _check_names(chosen: str, known: Iterable[str]) -> None:
    if unknown := [name for name in chosen.split(",") if chosen and name not in known]:
        raise ConfigError(f"bench exchange: {unknown[0]!r}: must be one of {', '.join(known)}")


def _numbers(text: str, option: str) -> list[int]:
    numbers = [int(number) for number in text.split(",") if number.isdecimal() and int(number)]
    if len(numbers) < len(text.split(",")):
        raise ConfigError(f"bench exchange: {option} {text!r}: must be numbers from 1, with commas")
    return numbers


def _bench_cpu(
    points: str, ways: str, repeats: int, users: int, steps: int, precision: PrecisionName, out: Path | None
) -> None:
    """Train the same users in every way, in alternation, and compare."""
    _check_names(points, POINTS)
    _check_names(ways, WAYS)
    console = Console()
    report: dict[str, Any] = {"environment": environment(), "users": users, "steps": steps, "points": {}}
    for point in points.split(","):
        results: dict[str, list[Result]] = {way: [] for way in ways.split(",")}
        with tempfile.TemporaryDirectory(prefix="veilbench-") as scratch:
            for repeat in range(repeats):
                for way in results:
                    exchange = "relay" if way == "relay" else "direct"
                    experiment = experiment_of(POINTS[point], users, steps, exchange, precision.value)
                    folder = Path(scratch) / f"{way}-{repeat}"
                    if way == "limit":
                        result = run_plain(experiment, folder, available_cpus(), 1)
                    elif way == "whole":
                        result = run_plain(experiment, folder, 1, available_cpus())
                    elif way == "naive":
                        result = run_naive(experiment, folder)
                    else:
                        result = run_veilsim(experiment, folder)
                    results[way].append(result)
                    console.print(f"{point} {repeat + 1}/{repeats} {way}: {result.steps_per_s:.2f} steps/s")
        report["points"][point] = {way: [asdict(result) for result in found] for way, found in results.items()}
        report["precision"] = experiment.runtime.precision
        console.print(table_of(point, results))
        if out is not None:
            out.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    run_command(bench, "veilsim bench exchange")
