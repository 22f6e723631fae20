"""What all tests share: a cache of their own, one thread, an identity for Flower, and scikit-learn's digits."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from flwr.supercore.task_identity import TaskIdentity

from roles.common.config.data import DataConfig
from roles.common.data import ImageStore, prepare

collect_ignore = ["bench/naive", "bench/timed"]
"""Flower apps of the benchmarks: importing them changes veilsim's own app."""


_ALONE = ("bench/", "sim/test_deployment.py", "sim/test_simulation.py", "sim/exchange/test_session_actors.py")
"""Tests that start Flower, which takes all cores, or that compare times."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep a file's tests in one process, which shares its fixtures, and those that would disturb each other too."""
    for item in items:
        path = item.path.as_posix()
        alone = any(f"/tests/{name}" in path for name in _ALONE)
        item.add_marker(pytest.mark.xdist_group("alone" if alone else path))


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VEILSIM_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session", autouse=True)
def one_torch_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", autouse=True)
def flower_identity() -> Iterator[None]:
    """Flower sets these in the process of a ServerApp; without them it makes no messages."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("_task_id", "_run_id", "_node_id"):
            patch.setattr(TaskIdentity, name, 1)
        yield


@pytest.fixture(scope="session")
def digits_store(cache: Path) -> ImageStore:
    return prepare(DataConfig(), cache / "data")
