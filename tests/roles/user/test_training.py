"""What a user trains by, what it asks for and what it does with the answers."""

import math
from collections.abc import Callable
from dataclasses import fields
from typing import get_args

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from roles.common.compute import Compute
from roles.common.config.recipe import Recipe
from roles.common.config.user import UserConfig
from roles.common.data import ImageStore
from roles.common.exchange import (
    Answer,
    ExchangeError,
    Gradient,
    ImageIds,
    Losses,
    LossGradient,
    LossValues,
    Predictions,
    Request,
    TrainingImages,
    drive,
)
from roles.common.features import Features
from roles.common.images import to_unit
from roles.common.weights import digest
from roles.user.training import TransformerTraining
from tests.roles.user.conftest import PlainProvider, StartTraining
from tests.roles.user.trainings import PLAIN_SGD, network


def test_a_rest_that_is_smaller_than_the_provider_answers_joins_the_batch_before(
    config: UserConfig, provider: PlainProvider, tiny: ImageStore, compute: Compute
) -> None:
    drive(TransformerTraining(config, 1, 0, tiny, compute, least_batch=3).run(1, 1), provider.answer)
    asked = [len(request.ids) for request in provider.requests if isinstance(request, LossGradient)]
    assert asked == [4, 6] * 3


@pytest.mark.parametrize("alpha", [0.0, 0.02, 0.5])
def test_a_step_goes_down_the_gradient_of_the_whole_objective(
    alpha: float, config: UserConfig, start: StartTraining, provider: PlainProvider, tiny: ImageStore
) -> None:
    # One graph from theta through psi and phi, as if one party held everything: Eq. 4.
    training = start(alpha=alpha, training=PLAIN_SGD, crop_padding=0, flip=False)
    before = training.theta()
    work = training.run(1, 1)
    request = work.send(provider.answer(next(work)))
    assert isinstance(request, LossGradient)

    h, phi = network(config, before), Features(config.features)
    plain = to_unit(tiny.images("train")[request.ids])
    protected = h(plain)
    assert torch.allclose(request.protected, protected, atol=1e-6)
    loss = provider.loss(protected, request.ids) - alpha * F.mse_loss(phi(protected), phi(plain))
    loss.backward()

    work.send(provider.answer(request))
    after, largest = training.checkpoint()[0], 0.0  # what a theta is between steps, whatever the next forward pass did
    for name, value in h.named_parameters():
        assert value.grad is not None
        step = after[f"theta/{name}"] - before[name]
        assert torch.allclose(step, -0.5 * value.grad, rtol=1e-3, atol=1e-6)
        largest = max(largest, step.abs().max().item())
    assert largest > 1e-3
    for name, buffer in h.named_buffers():
        assert torch.allclose(after[f"theta/{name}"], buffer, atol=1e-5)


def test_the_feature_term_pulls_away_from_the_plain_image(start: StartTraining, provider: PlainProvider) -> None:
    def feature_loss_after_training(alpha: float) -> float:
        training = start(alpha=alpha, training=PLAIN_SGD)
        drive(training.run(1, 1), provider.answer)
        return training.curve[-1]["validation_feature_loss"]

    assert feature_loss_after_training(1.0) > feature_loss_after_training(0.0)


def test_requests_are_bitmaps_of_the_users_images_and_validation_comes_once_an_epoch(
    start: StartTraining, provider: PlainProvider
) -> None:
    training = start()
    assert (training.total_steps, training.images) == (0, 0)
    drive(training.run(1, 1), provider.answer)
    kinds = [type(request) for request in provider.requests]
    assert kinds == [TrainingImages, *3 * [*3 * [LossGradient], Losses]]
    ids = [request.ids for request in provider.requests if isinstance(request, LossGradient)]
    assert [len(batch) for batch in ids] == [4, 4, 2] * 3
    for epoch in range(3):
        assert sorted(torch.cat(ids[3 * epoch : 3 * epoch + 3]).tolist()) == list(range(5, 15))
    for request in provider.requests:
        if isinstance(request, LossGradient | Losses):
            assert request.protected.dtype == torch.float32
            assert not request.protected.requires_grad
            assert bool(((request.protected >= 0) & (request.protected <= 1)).all())
    assert (training.step, training.total_steps, training.images) == (9, 9, 10)


def test_nothing_a_user_sends_or_gets_has_room_for_labels_of_its_images(
    start: StartTraining, provider: PlainProvider
) -> None:
    training = start()
    drive(training.run(1, 1), provider.answer)
    drive(training.validation(), provider.answer)
    exchanged = {type(message) for message in (*provider.requests, *provider.answers)}
    allowed = {
        TrainingImages: {"user"},
        LossGradient: {"protected", "ids", "user", "asked"},
        Losses: {"protected", "ids", "user"},
        ImageIds: {"train", "validation"},
        Gradient: {"gradient", "loss", "correct"},
        LossValues: {"loss", "correct"},
    }
    assert {kind: {field.name for field in fields(kind)} for kind in exchanged} == allowed
    holders = {kind for kind in get_args(Request) + get_args(Answer) if "labels" in {f.name for f in fields(kind)}}
    assert holders == {Predictions}  # of the service: what psi says, not what Y holds
    for answer in provider.answers:
        if isinstance(answer, Gradient | LossValues):
            assert isinstance(answer.loss, float)
            assert isinstance(answer.correct, int)


def test_user_and_seed_decide_the_result_and_nothing_else(start: StartTraining, provider: PlainProvider) -> None:
    def theta(**who: int) -> str:
        torch.rand(1)  # whatever else the process draws
        training = start(training=Recipe(epochs=0.5, batch_size=4), **who)
        drive(training.run(1, 1), provider.answer)
        return digest(training.theta())

    assert theta() == theta(user=1, seed=0)
    assert len({theta(), theta(user=0), theta(seed=1)}) == 3


def test_users_of_one_own_seed_train_alike_whatever_their_numbers(
    config: UserConfig, tiny: ImageStore, compute: Compute, provider: PlainProvider
) -> None:
    alike = config.model_copy(update={"seed": 5, "training": Recipe(epochs=0.5, batch_size=4)})

    def theta(user: int, seed: int = 0, config: UserConfig = alike) -> str:
        training = TransformerTraining(config, user, seed, tiny, compute)
        drive(training.run(1, 1), provider.answer)
        return digest(training.theta())

    assert theta(1) == theta(2)
    assert len({theta(1), theta(1, seed=1), theta(1, config=alike.model_copy(update={"seed": 6}))}) == 3


def test_validation_asks_for_the_validation_images_and_moves_nothing(
    start: StartTraining, provider: PlainProvider
) -> None:
    training = start()
    before = digest(training.checkpoint()[0] | {"ids/train": torch.zeros(0), "ids/validation": torch.zeros(0)})
    loss, accuracy, images = drive(training.validation(), provider.answer)
    assert [type(request) for request in provider.requests] == [TrainingImages, Losses]
    answer = provider.answers[-1]
    assert isinstance(answer, LossValues)
    assert (loss, accuracy, images) == (pytest.approx(answer.loss), 1 / 6, 6)
    assert digest(training.checkpoint()[0] | {"ids/train": torch.zeros(0), "ids/validation": torch.zeros(0)}) == before


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda good: Gradient(good * torch.nan, 1.0, 0), "not finite"),
        (lambda good: Gradient(good[1:], 1.0, 0), "expected torch.float32"),
        (lambda good: Gradient(good.double(), 1.0, 0), "gradient is torch.float64"),
        (lambda good: LossValues(1.0, 0), "answered with LossValues, expected Gradient"),
    ],
)
def test_an_unusable_answer_is_refused_and_the_training_can_go_on(
    spoil: Callable[[Tensor], Answer], reason: str, start: StartTraining, provider: PlainProvider
) -> None:
    undisturbed, training = start(), start()
    drive(undisturbed.run(1, 1), provider.answer)
    drive(training.run(1, 3), provider.answer)
    work = training.run(2, 3)
    request = next(work)
    assert isinstance(request, LossGradient)
    with pytest.raises(ExchangeError, match=reason) as caught:
        work.send(spoil(torch.ones_like(request.protected)))
    assert "\n" not in str(caught.value)
    drive(training.run(3, 3), provider.answer)
    assert digest(training.theta()) == digest(undisturbed.theta())


def test_a_training_that_diverges_names_its_user_and_its_step(start: StartTraining, provider: PlainProvider) -> None:
    def huge(request: Request) -> Answer:
        if isinstance(request, LossGradient):
            return Gradient(torch.full_like(request.protected, 1e38), 1.0, 0)
        return provider.answer(request)

    training = start(training=Recipe(epochs=3, batch_size=4, lr=1e6))
    with pytest.raises(ValueError, match=r"^user 1 diverged at step \d+: lower user.training.lr$"):
        drive(training.run(1, 1), huge)


def test_the_running_loss_is_that_of_the_present_epoch(start: StartTraining, provider: PlainProvider) -> None:
    training = start()
    assert math.isnan(training.loss)
    work = training.run(1, 1)
    request = work.send(provider.answer(next(work)))
    answer = provider.answer(request)
    work.send(answer)
    assert isinstance(answer, Gradient)
    assert training.loss == pytest.approx(answer.loss)
