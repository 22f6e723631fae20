"""Walls between rooms: each import contract of pyproject.toml breaks when an import goes through its wall."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BREACHES = {
    "Roles are plain PyTorch": ("roles.common.unet", "ray"),
    "Parties do not import each other": ("roles.user.training", "roles.provider.memory"),
    "What parties share knows none of them": ("roles.common.batches", "roles.evaluator.baselines"),
    "Evaluators are given labels and do not take them": ("roles.evaluator.itn", "roles.common.labels"),
    "The user's and the relay's side reach neither labels nor the provider": (
        "sim.exchange.batcher",
        "roles.common.labels",
    ),
    "Nodes do not import each other": ("sim.nodes.user.state", "sim.nodes.evaluator.sessions"),
    "Rooms of sim import one way": ("sim.run.progress", "sim.report.text"),
    "Ray is known to the exchange alone": ("sim.run.launch", "ray"),
    "Strategies know no role, no message and no exchange": ("strategies.independent", "sim.exchange.messages"),
}
"""By contract: a module, and what it may not import."""
MORE = {
    "a user's node that reads labels": ("sim.nodes.user.sessions", "roles.common.labels"),
    "a user's node that imports the provider": ("sim.nodes.user.sessions", "roles.provider.provider"),
    "a user's role that imports the provider's node": ("sim.exchange.direct", "sim.nodes.provider.serving"),
}
"""Further ways through the wall of the user's and the relay's side."""


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A copy of the product that may be spoiled."""
    for name in ("roles", "sim", "strategies"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


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


def test_every_contract_has_a_breach_here() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    assert [contract["name"] for contract in contracts] == list(BREACHES)


def test_no_wall_is_broken(house: Path) -> None:
    code, said = lint(house)
    assert code == 0, said
    assert all(f"{contract} KEPT" in said for contract in BREACHES)


@pytest.mark.parametrize("contract", BREACHES)
def test_an_import_through_a_wall_breaks_its_contract(house: Path, contract: str) -> None:
    breach(house, *BREACHES[contract])
    code, said = lint(house)
    assert code == 1
    assert f"{contract} BROKEN" in said
    assert " -> ".join(BREACHES[contract]) in said


@pytest.mark.parametrize("way", MORE)
def test_no_way_leads_from_the_users_side_to_labels_or_the_provider(house: Path, way: str) -> None:
    breach(house, *MORE[way])
    code, said = lint(house)
    assert code == 1
    assert "The user's and the relay's side reach neither labels nor the provider BROKEN" in said
    assert " -> ".join(MORE[way]) in said
