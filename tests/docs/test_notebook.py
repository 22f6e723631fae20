"""docs/results.ipynb runs from its first cell to its last."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from roles.common.unet import UNet
from roles.common.weights import cpu_state, save
from tests.sim import made_up_run

NOTEBOOK = Path(__file__).parents[2] / "docs" / "results.ipynb"


def test_the_notebook_shows_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    more = {"data": {"name": "digits", "size": 16}, "user": {"width": 2, "depth": 2, "features": {"weights": "random"}}}
    attack = {"itns": made_up_run.experiment_of(1).attack.model_dump()["itns"], "pairs": 40, "test_images": 12}
    run = made_up_run.make(tmp_path / "run", made_up_run.experiment_of(3, attack=attack, **more))
    save(run.path / "users" / "user-0000" / "theta.safetensors", cpu_state(UNet(2, 2)))
    monkeypatch.setenv("VEILSIM_RUN", str(run.path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert "made-up: User 0 is hidden from these attacks;" in outputs[0]["data"]["text/plain"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 4


def test_the_notebook_is_kept_without_results() -> None:
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    assert [cell.get("outputs") for cell in cells if cell.get("outputs")] == []
