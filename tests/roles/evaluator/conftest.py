"""What the evaluator's tests share: a prepared image store, a small inverse network, an attacker, one thread."""

from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch

from roles.common.compute import Compute
from roles.common.config.attack import AttackConfig, ItnConfig
from roles.common.config.data import DataConfig
from roles.common.config.recipe import Recipe
from roles.common.data import ImageStore, prepare
from roles.common.labels import load_labels
from roles.evaluator.attacker import Attacker


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> ImageStore:
    return prepare(DataConfig(name="digits", size=16), tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="session")
def compute() -> Compute:
    return Compute("fp32", "cpu")


@pytest.fixture(scope="session")
def small_itn() -> ItnConfig:
    recipe = Recipe(epochs=2, batch_size=16, optimiser="adam", lr=0.01, weight_decay=0, schedule="cosine")
    return ItnConfig(name="small", training=recipe, width=4, depth=3)


@pytest.fixture(scope="session")
def attacker_with(store: ImageStore, compute: Compute) -> Callable[[AttackConfig], Attacker]:
    """Return a function that makes the attacker of a run with seed 0: with labels, if its config gives it any."""

    labels = partial(load_labels, store.folder)

    def make(config: AttackConfig, progress: Callable[[int, int, float], None] = lambda *_: None) -> Attacker:
        return Attacker(store, labels if config.labels else None, config, compute, 0, progress)

    return make
