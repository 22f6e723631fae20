"""A user of 8-pixel digits with a tiny U-Net, and a provider of a few lines that the tests see through."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from roles.common.compute import Compute
from roles.common.config.recipe import Recipe
from roles.common.config.user import FeaturesConfig, UserConfig
from roles.common.data import ImageStore
from roles.common.exchange import (
    Answer,
    Gradient,
    ImageIds,
    Losses,
    LossGradient,
    LossValues,
    Request,
    TrainingImages,
)
from roles.user.training import TransformerTraining

StartTraining = Callable[..., TransformerTraining]


class PlainProvider:
    """psi is a linear layer; X' are the images 5 to 14 of the train set, so an epoch of batches of 4 is 4, 4 and 2."""

    def __init__(self) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            self.psi = nn.Sequential(nn.Flatten(), nn.Linear(192, 10))
        self.labels = torch.arange(100) % 10
        self.ids = ImageIds(train=torch.arange(5, 15), validation=torch.arange(6))
        self.requests: list[Request] = []
        self.answers: list[Answer] = []

    def loss(self, protected: Tensor, ids: Tensor) -> Tensor:
        return F.cross_entropy(self.psi(protected), self.labels[ids])

    def answer(self, request: Request) -> Answer:
        self.requests.append(request)
        self.answers.append(self._answer(request))
        return self.answers[-1]

    def _answer(self, request: Request) -> Answer:
        if isinstance(request, TrainingImages):
            return self.ids
        assert isinstance(request, LossGradient | Losses)
        protected = request.protected.clone().requires_grad_()
        loss = self.loss(protected, request.ids)
        if isinstance(request, Losses):
            return LossValues(loss=loss.item(), correct=1)
        (gradient,) = torch.autograd.grad(loss, protected)
        return Gradient(gradient=gradient, loss=loss.item(), correct=1)


@pytest.fixture
def provider() -> PlainProvider:
    return PlainProvider()


@pytest.fixture
def config() -> UserConfig:
    return UserConfig(
        alpha=0.02,
        width=2,
        depth=2,
        features=FeaturesConfig(layer="relu1_2"),
        training=Recipe(epochs=3, batch_size=4, lr=0.05),
        crop_padding=1,
    )


@pytest.fixture
def start(config: UserConfig, tiny: ImageStore, compute: Compute) -> StartTraining:
    """Return a function that makes a training: of user 1 with seed 0, unless told otherwise."""

    def make(*, user: int = 1, seed: int = 0, **changes: object) -> TransformerTraining:
        return TransformerTraining(config.model_copy(update=changes), user, seed, tiny, compute)

    return make
