"""What minutes on a GPU are for, in one command: checks, the benchmark, the paper's cell and, in what is left, another.

python -m tests.bench.gpu --out DIR --data FOLDER --features FILE --minutes 14

The paper's cell is ``configs/paper_resnet20.yaml`` through Flower, with as many epochs of h_theta as there is time for
by the rates that the benchmark has found. Everything is written to DIR as it comes: ``results.json``, ``log.txt``,
``bench.json``, and a zip of each run's small files; a part that fails or takes too long does not stop the next.
With ``--smoke`` all of it is done on a CPU in minutes, with tiny sizes and scikit-learn's digits.
"""

import json
import math
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from roles.common.config.data import DataConfig
from roles.common.data import prepare
from sim.config.places import cache_folder
from tests.bench.gpu_session import END_S, Session, facts_of, keep_small_files, keep_theta
from tests.bench.processes import run_command

_CONFIG = "configs/paper_resnet20.yaml"
_CHECKS = "tests/roles/common/test_graphs.py"
_EPOCH = 352
"""Steps of CIFAR-10's 45,000 images in batches of 128."""
_PSI_EPOCHS, _ITN_EPOCHS, _MOST_EPOCHS, _LEAST_EPOCHS = 100, 15, 200, 10
_WIDTH, _ITN_WIDTH, _SMOKE_WIDTH = 64, 32, 4
_OF_BENCH = 0.8
"""What a whole training, with its validation and checkpoints, does of the rate that the benchmark finds within it."""
_IF_UNKNOWN = {"h_theta": 100.0, "psi": 300.0, "itn": 180.0}
"""Steps a second, where the benchmark has found none."""
_REST_S = 90
"""Flower's start, protecting, measuring and drawing 10,000 test images, and the end."""


def check(session: Session) -> dict[str, Any]:
    """Say what this machine has, and whether steps from graphs agree with eager ones."""
    script = "import json; from sim.run.environment import environment; print(json.dumps(environment()))"
    session.run([sys.executable, "-c", script], 60)
    environment = session.last_json()
    code = session.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", _CHECKS], 120)
    return {"environment": environment, "graphs_agree": code == 0, "pytest": code}


def bench(session: Session) -> dict[str, Any]:
    """Run ``veilsim bench exchange`` for a GPU."""
    session.wait_for_data()
    minutes = 1.5 if session.smoke else 3.4
    command = [sys.executable, "-m", "tests.bench.exchange", "--out", str(session.out / "bench.json")]
    command += ["--minutes", str(minutes), "--data", session.data]
    command += _SMOKE_BENCH if session.smoke else ["--device", "cuda"]
    code = session.run(command, 60 * minutes + 45)
    return {"exit": code, "rates": rates_of(session.out / "bench.json", _SMOKE_WIDTH if session.smoke else _WIDTH)}


_SMOKE_BENCH = ["--widths", str(_SMOKE_WIDTH), "--users", "1", "--ways", "graphs,psi,itn,direct", "--steps", "12"]


def rates_of(path: Path, width: int) -> dict[str, float]:
    """Return the product's steps a second in the benchmark's report, by network; h_theta's of one user at ``width``."""
    found: dict[str, float] = {}
    for result in json.loads(path.read_text())["results"] if path.is_file() else ():
        point, rates = result["point"], result["rates"]
        at_width = point["way"] == "direct" and (point["width"], point["users"]) == (width, 1)
        if rates and (point["way"] == "product" or at_width):
            found[point["network"]] = statistics.median(rates)
    return found


def epochs_for(seconds: float, rates: dict[str, float], *, with_psi: bool) -> int:
    """Return how many epochs of h_theta fit into ``seconds`` beside everything else; less than 1 if none do."""
    taken = {name: _EPOCH / _OF_BENCH / rates.get(name, rate) for name, rate in _IF_UNKNOWN.items()}
    # The user's network and the positive control are attacked by an inverse network each.
    others = 2 * _ITN_EPOCHS * taken["itn"] + _REST_S + (_PSI_EPOCHS * taken["psi"] if with_psi else 0)
    return min(_MOST_EPOCHS, math.floor((seconds - others) / taken["h_theta"]))


def cell(upsampling: str) -> Callable[[Session], dict[str, Any]]:
    """Return the part that runs the paper's cell (alpha 0.005) with U-Nets that go up by ``upsampling``."""

    def part(session: Session) -> dict[str, Any]:
        session.wait_for_data()
        rates, left = rates_of(session.out / "bench.json", _SMOKE_WIDTH if session.smoke else _WIDTH), session.left()
        # Once trained, psi is in the cache.
        known = any((found.get("run") or {}).get("psi") for found in session.results.values())
        epochs = 2 if session.smoke else epochs_for(left, rates, with_psi=not known)
        if epochs < _LEAST_EPOCHS and not session.smoke:
            return {"skipped": f"{left:.0f} s are left: enough for {max(0, epochs)} epochs"}
        session.say(f"{upsampling}: {epochs} epochs of h_theta in the {left:.0f} s that are left, by {rates}")
        run = session.scratch / upsampling
        command = [sys.executable, "-m", "sim.cli", "run", _CONFIG, "--out", str(run)]
        command += overrides(upsampling, epochs, session)

        def keep() -> None:
            keep_small_files(run, session.out / f"paper-{upsampling}.zip")

        try:
            code = session.run(command, session.left() - END_S, run, keep)
        finally:
            keep()
        kept = keep_theta(run, session.out / f"theta-{upsampling}.safetensors")
        return {"exit": code, "epochs": epochs, "theta": kept, "overrides": command[7:], **facts_of(run)}

    return part


def overrides(upsampling: str, epochs: int, session: Session) -> list[str]:
    """Return what the config is changed by: time, and one inverse network in place of two by the full recipe."""
    itn: dict[str, Any] = {"name": "strong", "width": _ITN_WIDTH, "upsampling": upsampling, "mirrors": "image"}
    recipe = {"epochs": _ITN_EPOCHS, "optimiser": "adam", "lr": 0.001, "weight_decay": 0, "schedule": "cosine"}
    changes: dict[str, Any] = {
        "data.name": session.data,
        "user.features.weights": session.features,
        "user.upsampling": upsampling,
        "user.width": _WIDTH,
        "user.training.epochs": epochs,
        "classifier.training.epochs": _PSI_EPOCHS,
        # Checkpoints of 30 million parameters take seconds each.
        "strategy.rounds": 4,
        "attack.itns": [itn | {"training": recipe}],
        # The user's network and the control are attacked at the same time.
        "runtime.workers": 2,
        "runtime.evaluators": 2,
        "runtime.gpu_fraction": 0.5,
        "runtime.threads": 4,
    }
    if session.smoke:
        changes |= {"user.width": _SMOKE_WIDTH, "users.images": 128, "classifier.training.epochs": 1}
        changes |= {"attack.itns": [itn | {"width": _SMOKE_WIDTH, "training": recipe | {"epochs": 1}}]}
        changes |= {"attack.pairs": 128, "attack.test_images": 20, "users.validation_images": 20}
        changes |= {"runtime.workers": 1, "runtime.gpu_fraction": 0, "runtime.threads": 1}
    return [f"{key}={json.dumps(value)}" for key, value in changes.items()]


PARTS: dict[str, Callable[[Session], dict[str, Any]]] = {
    "check": check,
    "bench": bench,
    "paper, transposed": cell("transposed"),
    "paper, nearest": cell("nearest"),
}


def spend(
    out: Annotated[Path, typer.Option(help="Folder for everything found.")],
    data: Annotated[str, typer.Option(help="CIFAR-10: a folder or a name on the Hub.")] = "uoft-cs/cifar10",
    features: Annotated[str, typer.Option(help="phi's weights: imagenet, or a safetensors file.")] = "imagenet",
    minutes: Annotated[float, typer.Option(min=1, help="In which all must be done.")] = 14,
    smoke: Annotated[bool, typer.Option(help="Rehearse on a CPU, with tiny sizes.")] = False,
) -> None:
    """Spend minutes on a GPU well; see the module's first lines."""
    began = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    if smoke:
        data, features = "digits", "random"
    with tempfile.TemporaryDirectory(prefix="veil-gpu-") as scratch:
        loading = threading.Thread(target=prepare, args=(DataConfig(name=data), cache_folder() / "data"), daemon=True)
        loading.start()
        session = Session(out.resolve(), Path(scratch), data, features, smoke, began + 60 * minutes, loading)
        for name, part in PARTS.items():
            session.do(name, part)


if __name__ == "__main__":
    run_command(spend, "python -m tests.bench.gpu")
