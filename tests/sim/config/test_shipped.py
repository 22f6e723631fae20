"""The configs that are shipped."""

import io
import zipfile
from pathlib import Path

import pytest
import yaml
from flwr.cli.build import build_fab_from_disk

from sim.config.experiment import Experiment
from sim.config.files import load_experiment, read_config
from sim.run.launch import app_folder
from sim.run.sweep import Cell, is_sweep, load_cells

CONFIGS = sorted((Path(__file__).parents[3] / "configs").rglob("*.yaml"))
EXPERIMENTS = {
    f"{path.stem} {cell.name}": cell.experiment
    for path in CONFIGS
    for cell in (load_cells(path) if is_sweep(path, []) else [Cell("", {}, load_experiment(path))])
}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_that_is_shipped_loads_and_is_named_after_its_file(path: Path) -> None:
    assert read_config(path)["name"] == path.stem


def test_every_config_that_is_shipped_travels_with_the_flower_app() -> None:
    with zipfile.ZipFile(io.BytesIO(build_fab_from_disk(app_folder()))) as bundle:
        assert {str(path.relative_to(app_folder())) for path in CONFIGS} <= set(bundle.namelist())


@pytest.mark.parametrize("experiment", EXPERIMENTS.values(), ids=EXPERIMENTS.keys())
def test_the_dump_of_a_resolved_experiment_is_that_experiment(experiment: Experiment, tmp_path: Path) -> None:
    resolved = experiment.resolved()
    dumped = tmp_path / "config.yaml"
    dumped.write_text(yaml.safe_dump(resolved.model_dump(mode="json"), sort_keys=False))
    assert load_experiment(dumped) == resolved
    assert load_experiment(dumped).resolved() == resolved
    assert Experiment.model_validate_json(resolved.model_dump_json()) == resolved
