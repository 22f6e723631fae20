"""What the tests of sim/ share: an experiment that trains in a fraction of a second, and a run whose psi is there."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import sim.client_app
import sim.nodes.provider.serving
import sim.report.studies
import sim.report.write
from roles.common.weights import cpu_state, save
from roles.provider.classifiers import Classifier
from roles.provider.provider import Provider
from sim.config.experiment import Experiment
from sim.exchange.job import Job
from sim.exchange.sessions import SessionStore
from tests.sim.in_memory_grid import PROVIDER, USERS, InMemoryGrid


@pytest.fixture(autouse=True)
def fresh_process() -> Iterator[None]:
    """No test sees what another left in the memory of this process."""
    yield
    sim.client_app._store.forget()
    sim.nodes.provider.serving._replicas.clear()


@pytest.fixture
def without_figures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """They take longer than all the rest of a run, and a test or two that draw them are enough."""
    if "with_figures" not in request.keywords:
        monkeypatch.setattr(sim.report.write, "draw_run", lambda run, experiment, table, shown: None)
        monkeypatch.setattr(sim.report.studies, "draw_study", lambda path, form, table: None)


@pytest.fixture(scope="session")
def experiment() -> Experiment:
    """Two users with 24 and 36 images: 2 and 3 steps an epoch, 2 epochs."""
    return Experiment.model_validate(
        {
            "name": "small",
            "seed": 3,
            "data": {"size": 8},
            "users": {"count": 2, "partition": {"kind": "sizes", "sizes": [24, 36]}, "validation_images": 20},
            "user": {
                "alpha": 0.1,
                "width": 2,
                "depth": 2,
                "crop_padding": 1,
                "flip": False,
                "features": {"layer": "relu1_2", "weights": "random"},
                "training": {"epochs": 2, "batch_size": 12, "lr": 0.05},
            },
            "attack": {"test_images": 30},
            "runtime": {"exchange": "relay", "evaluators": 0, "workers": 1, "precision": "fp32"},
        }
    )


@pytest.fixture
def job(experiment: Experiment, tmp_path: Path) -> Job:
    """The first round of a run whose psi has its initial weights."""
    torch.manual_seed(0)
    run = tmp_path / "run"
    save(run / "provider" / "psi.safetensors", cpu_state(Classifier("resnet20", 10)))
    return Job(experiment, run, server_round=1)


@pytest.fixture
def provider(job: Job) -> Provider:
    return sim.nodes.provider.serving.build_provider(job)


@pytest.fixture
def store() -> SessionStore:
    return SessionStore(sim.client_app.SESSIONS, on_disk=True)


@pytest.fixture
def grid() -> InMemoryGrid:
    return InMemoryGrid([PROVIDER, *USERS])


@pytest.fixture(scope="session")
def small(experiment: Experiment) -> Experiment:
    """Three rounds of users, one evaluator, a psi of a few steps, attacks of one."""
    return Experiment.model_validate(
        experiment.model_dump()
        | {
            "classifier": {"crop_padding": 0, "training": {"epochs": 0.2, "lr": 0.01}},
            "strategy": {"rounds": 3},
            "attack": {
                "pairs": 8,
                "test_images": 6,
                "pictures": 2,
                "blur_sigma": 0.5,
                "itns": [{"name": "itn", "width": 1, "depth": 2, "training": {"epochs": 1}}],
            },
            "runtime": experiment.runtime.model_dump() | {"evaluators": 1},
        }
    )
