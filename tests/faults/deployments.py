"""Kills deployments at random moments: SuperNodes, what they start, the provider's endpoint, the SuperLink.

``python -m tests.faults.deployments --kills 20`` starts the deployment of docs/DEPLOYMENT.md on this machine, kills
(``kill -9``) one of its processes after the other, starts SuperNodes again, and goes on with runs whose SuperLink or
ServerApp was killed. The table in the end is that of a simulation that nothing happened to.
"""

import contextlib
import json
import random
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import psutil
import typer

from sim.run.progress import Status
from tests.sim.deployment import NODES, Deployment, command_of, config_in, simulated

_OVERRIDES = "strategy.rounds=8"
_EPOCHS = 800
_PROGRAMS = ("flower-superlink", "flower-superexec", "flwr-serverapp", "flwr-clientapp", "provider.endpoint")
_MOST_S = 1200


def victims(deployment: Deployment) -> dict[str, list[psutil.Process]]:
    """Return what can be killed of a deployment, by what it is."""
    found: dict[str, list[psutil.Process]] = {}
    for process in deployment.processes():
        command = command_of(process)
        if "flower-supernode" in command and "bash" not in command:
            (node,) = [node for node in NODES if f"{node}.key" in command]
            found.setdefault(node, []).append(process)
        elif program := next((name for name in _PROGRAMS if name in command), ""):
            found.setdefault(program, []).append(process)
    return found


def run_of(deployment: Deployment) -> Path | None:
    """Return the run of a deployment, once there is one."""
    folders = sorted((deployment.folder / "superlink").glob("runs/*/config.yaml"))
    return folders[-1].parent if folders else None


def strike(deployment: Deployment, draw: random.Random, phase: str) -> dict[str, str]:
    """Kill one process of a deployment, drawn by what it is; a SuperNode is started again."""
    kinds = victims(deployment)
    victim = draw.choice(sorted(kinds) or ["nothing"])
    with contextlib.suppress(psutil.Error, IndexError):  # it has just ended by itself
        if victim in NODES:
            deployment.kill_and_start(victim)
        else:
            draw.choice(kinds.get(victim, [])).kill()
    print(f"{victim} in {phase}", flush=True)
    return {"victim": victim, "phase": phase}


def one_run(folder: Path, kills: int, draw: random.Random, found: list[dict[str, str]]) -> bytes:
    """Run a deployment to its end, with so many kills at most, which ``found`` is told; return its table."""
    config, run = config_in(folder.parent, _EPOCHS), None
    for _ in range(kills + 1):
        deployment = Deployment(folder, config, _OVERRIDES, run)
        try:
            while kills and deployment.script.poll() is None:
                moment = time.monotonic() + draw.uniform(5, 60)
                while time.monotonic() < moment and deployment.script.poll() is None:
                    time.sleep(0.2)
                run = run_of(deployment) or run
                if run and deployment.script.poll() is None:
                    found.append(strike(deployment, draw, Status.read(run).phase))
                    kills -= 1
            code = deployment.script.wait(_MOST_S)
            run = run_of(deployment) or run
            deployment.end_restarted()
            if not deployment.ends():
                found.append({"problem": "processes left"})
            if code == 0:
                return (deployment.run() / "table.csv").read_bytes()
            print(f"goes on after: {deployment.said().strip().splitlines()[-1][:200]}", flush=True)
        finally:
            deployment.kill()
    raise AssertionError("it failed more often than something of it was killed")


def main(
    kills: Annotated[int, typer.Option(min=1, help="How many in all.")] = 20,
    each: Annotated[int, typer.Option(min=1, help="How many in a run, at most.")] = 5,
    seed: int = 0,
    out: Annotated[Path, typer.Option(help="JSON file for what was found.")] = Path("deployment-kills.json"),
    keep: Annotated[Path | None, typer.Option(help="Folder for the runs; by default they are removed.")] = None,
) -> None:
    """Kill deployments at random moments and compare their tables."""
    draw, found, tables = random.Random(seed), list[dict[str, str]](), Counter[str]()
    with tempfile.TemporaryDirectory(prefix="veilkills-") as scratch:
        place = (keep or Path(scratch)).resolve()
        expected = simulated(config_in(place, _EPOCHS), _OVERRIDES, place / "simulated")
        number = 0
        while sum("victim" in one for one in found) < kills:
            folder = place / f"deployment-{number}" / "nodes"
            folder.mkdir(parents=True)
            try:
                same = one_run(folder, each, draw, found) == expected
                tables["equal" if same else f"differs: {number}"] += 1
            except (AssertionError, psutil.TimeoutExpired, subprocess.TimeoutExpired) as error:
                tables[f"failed: {number}"] += 1
                print(f"failed: {error}", flush=True)
            number += 1
            out.write_text(json.dumps({"tables": tables, "found": found}, indent=1))
            print(f"{len(found)} kills, tables {dict(tables)}", flush=True)


if __name__ == "__main__":
    typer.run(main)
