"""What the exchange costs on a GPU: the limit's loops beside veilsim, by widths and numbers of users.

graphs   plain PyTorch, a whole training step one CUDA graph; several users are a process each (the limit)
eager    the same loop without graphs
direct   veilsim, each user with a replica of the provider in its process
relay    veilsim, gradients through the Flower Grid
streams  the graphs of several users in one process, each on a stream of its own
stacked  several users of one width as one network by grouped convolutions, one graph
psi, itn the training of psi and of an inverse network by a graph, and the product's

Part of ``veilsim bench exchange``, which also runs it on a CPU, without graphs: a rehearsal.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from roles.common.config.data import DataConfig
from roles.common.data import prepare
from roles.common.hardware import native_precision
from sim.config.errors import ConfigError
from sim.config.experiment import Experiment
from sim.config.places import cache_folder
from sim.run.environment import environment
from tests.bench import mps
from tests.bench.device_processes import Limit, run_product, run_users
from tests.bench.processes import BenchFailed

WAYS = ("graphs", "eager", "streams", "stacked", "psi", "itn", "direct", "relay")
_RUN_S = {"cuda": 0.7, "cpu": 0.2}
"""How long each of the runs of a loop takes."""
_MOST_S = {"cuda": 60, "cpu": 300}
"""What a single measurement may take, with the start of its processes; veilsim has more to start, and twice as long."""
_START_S = 30
"""What a run of veilsim needs to come to its training at all."""
_BATCH = {"cuda": 128, "cpu": 16}
_NOISE = {"cuda": 12_800, "cpu": 160}
"""Images that loops train with."""


@dataclass(frozen=True)
class Point:
    """One thing to measure."""

    network: str
    """``h_theta``, ``psi`` or ``itn``."""
    way: str
    """One of ``WAYS``, or ``product``: psi's and the inverse network's training by the product."""
    width: int
    users: int = 1
    shared: bool = False
    """Whether processes share the GPU by a Multi-Process Service."""


@dataclass(frozen=True)
class Result:
    """What was found at a point: steps a second of all users together."""

    point: Point
    rates: list[float] = field(default_factory=list)
    memory_mb: float | None = None
    """Of the GPU, reserved by the largest process."""
    error: str = ""

    @property
    def rate(self) -> float:
        """The median."""
        return statistics.median(self.rates)


@dataclass(frozen=True)
class Setting:
    """What all measurements have in common."""

    device: str
    precision: str
    data: str
    steps: int
    """Of each user of veilsim's, in one epoch if there are as many images."""
    batch: int


def plan(ways: Sequence[str], widths: Sequence[int], users: Sequence[int], services: Sequence[bool]) -> list[Point]:
    """Return what is measured, the most important first; ``services`` says whether with MPS, without, or both.

    What comes second is only what several processes do. What takes a start of veilsim, at the ends alone.
    """
    ends, few, most = sorted({min(widths), max(widths)}, reverse=True), min(users), max(users)
    trained = {"psi": 16, "itn": sorted(widths)[len(widths) // 2]}
    points: list[Point] = []
    for shared in services:
        # The most users first: what each process must find out about its GPU for a width, all find out at once.
        counts = sorted(users, reverse=True)
        points += [Point("h_theta", "graphs", w, n, shared) for w in widths for n in counts if "graphs" in ways]
        points += [Point("h_theta", way, min(ends), most, shared) for way in ("stacked", "streams") if way in ways]
        points += [Point(name, "graphs", w, shared=shared) for name, w in trained.items() if name in ways]
        points += [Point("h_theta", "eager", w, few, shared) for w in ends if "eager" in ways]
        points += [Point("h_theta", "direct", w, few, shared) for w in ends if "direct" in ways]
        points += [Point(name, "product", w, shared=shared) for name, w in trained.items() if name in ways]
        points += [Point("h_theta", "direct", w, most, shared) for w in reversed(ends) if "direct" in ways]
        points += [Point("h_theta", "relay", min(ends), few, shared)] if "relay" in ways else []
    if len(set(services)) > 1:
        at_ends = {point for point in points if point.way == "graphs" and point.users > 1 and point.width in ends}
        points = [point for point in points if point.shared == services[0] or point in at_ends]
    return list(dict.fromkeys(points))


def experiment_of(point: Point, setting: Setting) -> Experiment:
    """Return the users' training as an experiment; nothing else in it has a size."""
    store = prepare(DataConfig(name=setting.data), cache_folder() / "data")
    images = min(store.counts["train"], setting.steps * setting.batch)
    return Experiment.model_validate(
        {
            "name": "bench",
            "data": {"name": setting.data},
            "classifier": {"training": {"epochs": 0.1, "lr": 0.01}},
            "users": {"count": point.users, "partition": {"kind": "sample", "images": images}, "validation_images": 2},
            "user": {
                "width": point.width,
                "upsampling": "transposed",
                "features": {"layer": "relu2_2", "weights": "random"},
                "training": {
                    "epochs": setting.steps * setting.batch / images,
                    "batch_size": setting.batch,
                    "lr": 0.01,
                },
            },
            "attack": {
                "pairs": 2,
                "test_images": 2,
                "pictures": 1,
                "itns": [{"name": "itn", "width": 1, "depth": 2, "training": {"epochs": 1}}],
            },
            "runtime": {
                "exchange": "relay" if point.way == "relay" else "direct",
                "precision": setting.precision,
                "evaluators": 0,
                "workers": point.users,
                "gpu_fraction": 100 // point.users / 100 if setting.device == "cuda" else 0,
            },
        }
    ).resolved()


def measured(point: Point, setting: Setting, limit: Limit, folder: Path, seconds: float) -> Result:
    """Measure one point, in so many seconds at most; what goes wrong is part of the result."""
    most = _MOST_S[setting.device]
    try:
        if point.way in ("direct", "relay"):
            limit.close()
            # A process that holds a context would take its share of the GPU.
            found = run_users(experiment_of(point, setting), folder, min(seconds, 2 * most))
        elif point.way == "product":
            epochs = 3 if setting.device == "cuda" else 1
            given = asdict(setting) | asdict(point) | {"epochs": epochs}
            found = run_product(given, min(seconds, most))
        else:
            asked = asdict(point) | {"seconds": _RUN_S[setting.device]}
            count = 1 if point.way in ("streams", "stacked") else point.users
            found = limit.measure(asked, count, min(seconds, most))
    except (BenchFailed, ConfigError) as error:
        return Result(point, error=str(error))
    return Result(point, found["rates"], found.get("memory_mb"))


def run(setting: Setting, points: Sequence[Point], ends: float, out: Path | None) -> list[Result]:
    """Measure all points that there is time for, and print a table."""
    console = Console()
    report: dict[str, Any] = {"environment": environment(), **asdict(setting), "results": []}
    results: list[Result] = []
    given = {"device": setting.device, "precision": setting.precision, "batch": setting.batch}
    given |= {"images": _NOISE[setting.device]}
    with tempfile.TemporaryDirectory(prefix="veilbench-") as scratch:
        for shared in dict.fromkeys(point.shared for point in points):
            chosen = [point for point in points if point.shared == shared]
            most = max(point.users for point in chosen)
            with ExitStack() as stack:
                on_gpu = setting.device == "cuda"
                runs = stack.enter_context(mps.service(on=shared)) if on_gpu else False
                limit = stack.enter_context(Limit(most, given))
                for point in chosen:
                    point, left = replace(point, shared=runs), ends - time.monotonic()
                    folder = Path(scratch) / str(len(results))
                    late = Result(point, error="no time was left")
                    enough = left > (_START_S if point.way in ("direct", "relay") else 0)
                    results.append(measured(point, setting, limit, folder, left) if enough else late)
                    console.print(line_of(results[-1]), soft_wrap=True, highlight=False)
                    report["results"] = [asdict(result) for result in results]
                    if out is not None:
                        out.write_text(json.dumps(report, indent=1))
    console.print(table_of(results))
    return results


def line_of(result: Result) -> str:
    """Return a result in a line."""
    point = result.point
    found = f"{result.rate:.1f} steps/s" if result.rates else f"not measured: {result.error}"
    return f"{point.network} {point.way}, width {point.width}, users {point.users}, MPS {_on(point.shared)}: {found}"


def _on(shared: bool) -> str:
    return "on" if shared else "off"


def table_of(results: Sequence[Result]) -> Table:
    """Return medians and spread, and their ratio to what graphs do at the same point (a process each user).

    MB are of the GPU, of the largest process.
    """
    table = Table(title="steps a second, of all users together")
    for column in ("", "width", "users", "MPS", "way", "steps/s", "spread", "of limit", "MB"):
        table.add_column(column, justify="left" if column in ("", "way", "MPS") else "right")
    limits = {replace(r.point, way=""): r.rate for r in results if r.point.way == "graphs" and r.rates}
    for result in results:
        point, rates = result.point, result.rates
        limit = limits.get(replace(point, way=""))
        table.add_row(
            *(point.network, str(point.width), str(point.users), _on(point.shared), point.way),
            f"{result.rate:.1f}" if rates else "-",
            f"{min(rates):.1f}-{max(rates):.1f}" if len(rates) > 1 else "-",
            f"{result.rate / limit:.2f}" if rates and limit else "-",
            "-" if result.memory_mb is None else f"{result.memory_mb:.0f}",
        )
    return table


def bench_device(
    device: str,
    ways: Sequence[str],
    widths: Sequence[int],
    users: Sequence[int],
    *,
    use_mps: bool | None,
    data: str,
    steps: int,
    precision: str,
    minutes: float,
    out: Path | None,
) -> None:
    """Measure what was asked for.

    Args:
        use_mps: whether processes share the GPU; None for both where it can be had.
        minutes: after so many nothing more is begun.
    """
    ends = time.monotonic() + 60 * minutes
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("bench exchange: --device cuda: PyTorch sees no GPU here")
    if use_mps and not (device == "cuda" and mps.is_installed()):
        raise ConfigError("bench exchange: --mps: there is no nvidia-cuda-mps-control here, or no GPU")
    if precision == "auto":
        # Asking CUDA would put this process on the GPU.
        precision = "bf16" if device == "cuda" else native_precision(gpu=False)
    services = [use_mps] if use_mps is not None else [True, False]
    if device == "cpu" or not mps.is_installed():
        services = [False]
    try:
        prepare(DataConfig(name=data), cache_folder() / "data")
    except ValueError as error:
        raise ConfigError(f"bench exchange: {error}") from error
    setting = Setting(device, precision, data, steps, _BATCH[device])
    results = run(setting, plan(ways, widths, users, services), ends, out)
    if not any(result.rates for result in results):
        raise BenchFailed(f"nothing could be measured; the first said: {results[0].error}")
