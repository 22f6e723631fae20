"""Trainings of a few steps, one of each kind that runs on a GPU: every batch full, one epoch at most."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from roles.common.compute import Compute, Number
from roles.common.config.attack import ItnConfig
from roles.common.config.classifier import ClassifierConfig, ClassifierName
from roles.common.config.recipe import Recipe
from roles.common.config.user import FeaturesConfig, UserConfig
from roles.common.data import ImageStore
from roles.common.exchange import Gradient, LossGradient
from roles.common.weights import State, cpu_state
from roles.evaluator.itn import Pairs, train_itn
from roles.provider.classifiers import Classifier
from roles.provider.provider import Provider
from roles.provider.training import train_classifier
from roles.provider.user_classifiers import UserClassifiers
from roles.user.training import TransformerTraining
from tests.roles.made_up_gpu import MadeUpGpu

STEPS, BATCH = 12, 10


@dataclass
class Observer:
    """Has a made-up GPU watched after some steps, until the last but one.

    In a first step libraries and optimisers set themselves up, after the first and the last one it may be read, and
    whoever records has to wait.
    """

    gpu: MadeUpGpu | None = None
    after: int = 5
    losses: list[Number] = field(default_factory=list)

    def __call__(self, step: int, total: int, loss: Number) -> None:
        assert total == STEPS
        self.losses.append(loss)
        if self.gpu is not None and step == self.after:
            self.gpu.watch()
        if self.gpu is not None and step == STEPS - 1:
            self.gpu.look_away()


Steps = Callable[[ImageStore, Compute, Observer], State]
"""Trains, and returns the weights."""


def a_user(alpha: float, upsampling: str = "nearest", psi: ClassifierName = "resnet20") -> Steps:
    def train(store: ImageStore, compute: Compute, observer: Observer) -> State:
        config = UserConfig.model_validate(
            {
                "alpha": alpha,
                "width": 2,
                "depth": 2,
                "upsampling": upsampling,
                "features": FeaturesConfig(layer="relu1_2"),
                "training": Recipe(epochs=1, batch_size=BATCH, lr=0.05),
                "crop_padding": 1,
            }
        )
        torch.manual_seed(0)
        weights, own = cpu_state(Classifier(psi, 10, store.side)), torch.arange(BATCH * STEPS)
        others = UserClassifiers(Path("nowhere"), ClassifierConfig(), 10, store.side, [], [], compute)
        provider = Provider(psi, weights, store, compute, [own], torch.arange(20), others)
        training = TransformerTraining(config, 0, 0, store, compute)
        work = training.run(1, 1)
        request = next(work)
        while True:
            answer = provider.answer(request)
            if isinstance(request, LossGradient):
                assert isinstance(answer, Gradient)
                observer(training.step + 1, training.total_steps, answer.loss)
            try:
                request = work.send(answer)
            except StopIteration:
                return training.theta()

    return train


def a_psi() -> Steps:
    def train(store: ImageStore, compute: Compute, observer: Observer) -> State:
        recipe = Recipe(epochs=STEPS / -(-store.counts["train"] // BATCH), batch_size=BATCH, lr=0.01)
        config = ClassifierConfig(name="resnet20", training=recipe, crop_padding=1, flip=True)
        return train_classifier(config, store, compute, observer).state

    return train


def an_itn(mirrors: str, loss: str) -> Steps:
    def train(store: ImageStore, compute: Compute, observer: Observer) -> State:
        recipe = Recipe(epochs=1, batch_size=BATCH, optimiser="adam", lr=0.01)
        features = FeaturesConfig(layer="relu1_2") if loss == "perceptual" else None
        named = {"name": "itn", "width": 2, "depth": 2, "loss": loss, "features": features, "training": recipe}
        config = ItnConfig.model_validate(named)
        plain = store.images("train")[: BATCH * STEPS]
        pairs = Pairs(255 - plain, plain, 255 - plain[:4], plain[:4])
        mirrored = 255 - plain.flip(3) if mirrors == "image" else None
        return cpu_state(train_itn(config, pairs, compute, 0, flip=True, mirrored=mirrored, progress=observer)[0])

    return train


KINDS: dict[str, Steps] = {
    "a user": a_user(0.1),
    "a user with transposed convolutions": a_user(0.1, "transposed"),
    "a user without a loss of its own": a_user(0.0),
    "a user whose psi is a ViT": a_user(0.0, psi="vit"),
    "psi": a_psi(),
    "an ITN on mirrored pairs, for similarity": an_itn("pair", "ssim"),
    "an ITN on mirrored images, for features": an_itn("image", "perceptual"),
}
