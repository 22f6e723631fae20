"""Kills deployments at random moments: SuperNodes, what they start, the provider's endpoint, the SuperLink.

``python -m tests.faults.deployments --kills 20`` starts the deployment of docs/DEPLOYMENT.md on this machine, kills
(``kill -9``) one of its processes after the other, starts SuperNodes again, and goes on with runs whose SuperLink or
ServerApp was killed. The table in the end is that of a simulation that nothing happened to.
"""

import json
import random
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

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


def one_run(folder: Path, kills: int, draw: random.Random, found: list[dict[str, Any]]) -> bytes:
    """Run a deployment to its end, with so many kills at most, which ``found`` is told; return its table."""
    config = config_in(folder.parent, _EPOCHS)
    deployment, run = Deployment(folder, config, _OVERRIDES), None
    while True:
        began = time.monotonic()
        moment = began + draw.uniform(5, 60)
        if kills:
            while time.monotonic() < moment and deployment.script.poll() is None:
                time.sleep(0.2)
        run = run_of(deployment) or run
        if kills and run and deployment.script.poll() is None:
            kinds = victims(deployment)
            victim, kills = draw.choice(sorted(kinds)), kills - 1
            phase = Status.read(run).phase
            print(f"{victim} in {phase} after {time.monotonic() - began:.0f} s", flush=True)
            found.append({"victim": victim, "phase": phase})
            if victim in NODES:
                deployment.kill_and_start(victim)
            else:
                draw.choice(kinds[victim]).kill()
            continue
        code = deployment.script.wait(_MOST_S) if not kills else deployment.script.poll()
        if code is None:
            continue
        deployment.end_restarted()
        found.append({"problem": "processes left"}) if not deployment.ends() else None
        if code == 0:
            return (deployment.run() / "table.csv").read_bytes()
        print(f"goes on after: {deployment.said().strip().splitlines()[-1][:200]}", flush=True)
        deployment = Deployment(folder, config, _OVERRIDES, run)


def main(
    kills: Annotated[int, typer.Option(min=1, help="How many in all.")] = 20,
    each: Annotated[int, typer.Option(min=1, help="How many in a run, at most.")] = 5,
    seed: int = 0,
    out: Annotated[Path, typer.Option(help="JSON file for what was found.")] = Path("deployment-kills.json"),
    keep: Annotated[Path | None, typer.Option(help="Folder for the runs; by default they are removed.")] = None,
) -> None:
    """Kill deployments at random moments and compare their tables."""
    draw, found, tables = random.Random(seed), list[dict[str, Any]](), Counter[str]()
    with tempfile.TemporaryDirectory(prefix="veilkills-") as scratch:
        place = keep or Path(scratch)
        expected = simulated(config_in(place, _EPOCHS), _OVERRIDES, place / "simulated")
        number = 0
        while sum("victim" in one for one in found) < kills:
            folder = place / f"deployment-{number}" / "nodes"
            folder.mkdir(parents=True)
            try:
                same = one_run(folder, each, draw, found) == expected
                tables["equal" if same else f"differs: {number}"] += 1
            except (AssertionError, psutil.TimeoutExpired) as error:
                tables[f"failed: {number}"] += 1
                print(f"failed: {error}", flush=True)
            number += 1
            out.write_text(json.dumps({"tables": tables, "found": found}, indent=1))
            print(f"{len(found)} kills, tables {dict(tables)}", flush=True)


if __name__ == "__main__":
    typer.run(main)
