"""A provider of digits whose psi is untrained."""

import pytest
import torch

from roles.common.compute import Compute
from roles.common.data import ImageStore
from roles.common.weights import State, cpu_state
from roles.provider.classifiers import Classifier
from roles.provider.provider import Provider
from roles.provider.user_classifiers import UserClassifiers


@pytest.fixture(scope="session")
def psi() -> State:
    torch.manual_seed(0)
    classifier = Classifier("resnet20", classes=10)
    classifier(torch.rand(64, 3, 8, 8))  # moves the running statistics of batch norm
    return cpu_state(classifier)


@pytest.fixture(scope="session")
def provider(psi: State, tiny: ImageStore, compute: Compute, no_user_classifiers: UserClassifiers) -> Provider:
    assignment = [torch.arange(tiny.counts["train"]), torch.tensor([0, 1])]
    return Provider("resnet20", psi, tiny, compute, assignment, torch.tensor([2, 4, 6]), no_user_classifiers)
