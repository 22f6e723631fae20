"""What the evaluator's tests share: a prepared image store, a small inverse network, one thread."""

from collections.abc import Iterator

import pytest
import torch

from roles.common.compute import Compute
from roles.common.data import DataConfig, ImageStore, prepare
from roles.common.recipes import Recipe
from roles.evaluator.itn import ItnConfig


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> ImageStore:
    return prepare(DataConfig(name="digits", size=None), tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="session")
def compute() -> Compute:
    return Compute("fp32", "cpu")


@pytest.fixture(scope="session")
def small_itn() -> ItnConfig:
    recipe = Recipe(epochs=2, batch_size=16, optimiser="adam", lr=0.01, weight_decay=0, schedule="cosine")
    return ItnConfig(name="small", training=recipe, width=4, depth=3)
