"""What the roles' tests share: one thread, small digits, plain arithmetic on the CPU."""

import gc
import warnings
from collections.abc import Iterator

import pytest
import torch

from roles.common import data, features, graphs, images
from roles.common.compute import Compute
from roles.common.config.classifier import ClassifierConfig
from roles.common.config.data import DataConfig
from roles.common.data import ImageStore, prepare
from roles.evaluator import measures
from roles.provider.user_classifiers import UserClassifiers
from tests.roles.made_up_gpu import MadeUpGpu, made_up_gpu


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> ImageStore:
    return prepare(DataConfig(name="digits", size=16), tmp_path_factory.mktemp("digits16"))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> ImageStore:
    """The digits at their own 8 pixels."""
    return prepare(DataConfig(name="digits", size=8), tmp_path_factory.mktemp("digits8"))


@pytest.fixture(scope="session")
def compute() -> Compute:
    return Compute("fp32", "cpu")


@pytest.fixture(scope="session")
def no_user_classifiers(compute: Compute, tmp_path_factory: pytest.TempPathFactory) -> UserClassifiers:
    """What a provider has whose users all rely on psi."""
    return UserClassifiers(tmp_path_factory.mktemp("user-classifiers"), ClassifierConfig(), 10, 8, [], [], compute)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[MadeUpGpu]:
    """A GPU on any machine; nothing that was put there outlives it."""
    for switch in ("allow_tf32", "benchmark"):
        monkeypatch.setattr(torch.backends.cudnn, switch, getattr(torch.backends.cudnn, switch))
    kept = (graphs._side_stream, images._moments, data._on_gpu, features.shared_features, measures._local_mean_matrix)
    for each in kept:
        each.cache_clear()
    gc.freeze()  # a recording collects garbage, and what the tests have imported is much to go through
    with made_up_gpu() as gpu, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "User provided device_type of 'cuda'")
        yield gpu
    gc.unfreeze()
    for each in kept:
        each.cache_clear()
