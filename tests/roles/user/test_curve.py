"""What the curve of a training holds."""

import math

import pytest
import torch
from torch import Tensor

from roles.common.config.recipe import Recipe
from roles.common.config.user import UserConfig
from roles.common.data import ImageStore
from roles.common.exchange import Answer, Gradient, Losses, LossGradient, LossValues, Request, drive
from roles.common.features import Features
from roles.common.images import to_unit
from roles.user import training as module
from roles.user.features import feature_loss
from tests.roles.user.conftest import PlainProvider, StartTraining
from tests.roles.user.trainings import network


def test_the_curve_weighs_batches_by_their_images(
    start: StartTraining, provider: PlainProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_VALIDATION_BATCH", 4)
    training = start(alpha=0.0, training=Recipe(epochs=1, batch_size=4, lr=0.05))
    steps = iter([(1.0, 4), (2.0, 1), (10.0, 0)])
    validation = iter([(1.0, 3), (4.0, 0)])

    def answer(request: Request) -> Answer:
        if isinstance(request, LossGradient):
            loss, correct = next(steps)
            return Gradient(torch.zeros_like(request.protected), loss, correct)
        if isinstance(request, Losses):
            return LossValues(*next(validation))
        return provider.ids

    drive(training.run(1, 1), answer)
    (row,) = training.curve
    assert row["train_loss"] == pytest.approx((4 * 1 + 4 * 2 + 2 * 10) / 10)
    assert row["train_accuracy"] == pytest.approx(5 / 10)
    assert row["validation_loss"] == pytest.approx((4 * 1 + 2 * 4) / 6)
    assert row["validation_accuracy"] == pytest.approx(3 / 6)
    assert (row["epoch"], row["step"]) == (1, 3)
    assert row["lr"] == pytest.approx(0.05 * 0.2**3)  # of the epoch's last step: all milestones of 3 steps are past


def test_the_validation_feature_loss_is_that_of_the_whole_set(
    config: UserConfig, start: StartTraining, provider: PlainProvider, tiny: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_VALIDATION_BATCH", 4)
    training = start(training=Recipe(epochs=1, batch_size=4, lr=0.05))
    drive(training.run(1, 1), provider.answer)
    h, phi, plain = network(config, training.theta()).eval(), Features(config.features), tiny.images("validation")[:6]
    with torch.no_grad():
        distance = feature_loss(phi(h(to_unit(plain))), phi(to_unit(plain))).item()
    assert training.curve[0]["validation_feature_loss"] == pytest.approx(distance, rel=1e-4)


def test_at_alpha_0_phi_is_only_asked_for_the_validation_report(
    start: StartTraining, provider: PlainProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    training, calls = start(alpha=0.0), []
    phi = training._phi

    def watched(images: Tensor) -> Tensor:
        calls.append((len(images), torch.is_grad_enabled()))
        features: Tensor = phi(images)
        return features

    monkeypatch.setattr(training, "_phi", watched)
    drive(training.run(1, 1), provider.answer)
    assert calls == [(6, False)] * 2 * 3  # twice an epoch: plain and protected validation images
    for row in training.curve:
        assert row["validation_feature_loss"] > 0
        assert row["validation_objective"] == row["validation_loss"]
        assert "train_feature_loss" not in row
        assert all(math.isfinite(value) for value in row.values())
