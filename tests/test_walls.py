"""Walls between rooms: each import contract of pyproject.toml breaks when an import goes through its wall."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SIDES = "The user's and the relay's side reach neither labels nor the provider"
ROOMS = "Rooms of sim import one way"
RAY = "Ray is known to the exchange alone"
BREACHES = {
    "Roles are plain PyTorch": ("roles.common.unet", "ray"),
    "Parties do not import each other": ("roles.user.training", "roles.provider.memory"),
    "What parties share knows none of them": ("roles.common.batches", "roles.evaluator.baselines"),
    "Evaluators are given labels and do not take them": ("roles.evaluator.itn", "roles.common.labels"),
    SIDES: ("sim.exchange.batcher", "roles.common.labels"),
    "Nodes do not import each other": ("sim.nodes.user.state", "sim.nodes.evaluator.sessions"),
    ROOMS: ("sim.run.progress", "sim.report.text"),
    RAY: ("sim.run.launch", "ray"),
    "Strategies know no role, no message and no exchange": ("strategies.independent", "sim.exchange.messages"),
}
"""By contract: a module, and what it may not import."""
MORE = {
    "a user's node that reads labels": (SIDES, "sim.nodes.user.sessions", "roles.common.labels"),
    "a user's node that imports the provider": (SIDES, "sim.nodes.user.sessions", "roles.provider.provider"),
    "an exchange that imports the provider's node": (SIDES, "sim.exchange.sessions", "sim.nodes.provider.serving"),
    "a phase that reads labels": (SIDES, "sim.phases.evaluation", "roles.common.labels"),
    "a run folder that reads labels": (SIDES, "sim.run.folder", "roles.common.labels"),
    "a user's node that imports Ray": (RAY, "sim.nodes.user.state", "ray"),
    "a node of a deployment that reaches Ray": (RAY, "sim.nodes.evaluator.sessions", "sim.exchange.actors"),
    "a ClientApp that imports Ray": (RAY, "sim.client_app", "ray"),
}
"""Further ways through walls that stand before many modules."""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the product that may be spoiled."""
    house = tmp_path_factory.mktemp("house")
    for name in ("roles", "sim", "strategies"):
        shutil.copytree(ROOT / name, house / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", house)
    return house


def lint(house: Path) -> tuple[int, str]:
    """Return the exit code of import-linter and what it prints, without line breaks."""
    command = [Path(sys.executable).parent / "lint-imports", "--no-cache"]
    done = subprocess.run(
        command,
        cwd=house,
        env=os.environ | {"PYTHONPATH": str(house), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def breach(house: Path, module: str, imported: str) -> None:
    path = house / f"{module.replace('.', '/')}.py"
    path.write_text(path.read_text() + f"\nimport {imported}\n")


@pytest.fixture(scope="module")
def spoiled(house: Path) -> dict[str, str]:
    """What is said of each contract where every wall is broken, and a room is added."""
    kept = house.parent / "spoiled"
    shutil.copytree(house, kept)
    for module, imported in (*BREACHES.values(), *(way[1:] for way in MORE.values())):
        breach(kept, module, imported)
    (kept / "sim" / "attic.py").write_text("")
    code, said = lint(kept)
    assert code == 1
    _, found = said.split("Broken contracts", 1)
    places = {contract: found.find(f"{contract} ---") for contract in BREACHES}
    return {
        contract: found[place : min((other for other in places.values() if other > place), default=None)]
        for contract, place in places.items()
        if place >= 0
    }


def test_every_contract_has_a_breach_here() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    assert [contract["name"] for contract in contracts] == list(BREACHES)


def test_no_wall_is_broken(house: Path) -> None:
    code, said = lint(house)
    assert code == 0, said
    assert all(f"{contract} KEPT" in said for contract in BREACHES)


@pytest.mark.parametrize("contract", BREACHES)
def test_an_import_through_a_wall_breaks_its_contract(spoiled: dict[str, str], contract: str) -> None:
    assert " -> ".join(BREACHES[contract]) in spoiled[contract]


@pytest.mark.parametrize("way", MORE)
def test_no_other_way_leads_through_a_wall(spoiled: dict[str, str], way: str) -> None:
    contract, *way_through = MORE[way]
    assert " -> ".join(way_through) in spoiled[contract]


def test_a_new_room_needs_a_place_among_the_others(spoiled: dict[str, str]) -> None:
    assert "sim.attic" in spoiled[ROOMS]
