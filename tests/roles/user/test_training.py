import contextlib
import json
import math
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, Protocol, get_args

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
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
from roles.common.images import to_unit
from roles.common.unet import UNet
from roles.common.weights import State, digest, load, save, without_statistics
from roles.user import training as module
from roles.user.features import Features, feature_loss
from roles.user.training import TransformerTraining

StartTraining = Callable[..., TransformerTraining]
PLAIN_SGD = Recipe(epochs=3, batch_size=4, lr=0.5, momentum=0, weight_decay=0)
Kept = tuple[State, dict[str, Any]]


class Provider(Protocol):
    psi: nn.Module
    labels: Tensor
    ids: ImageIds
    requests: list[Request]
    answers: list[Answer]

    def answer(self, request: Request) -> Answer: ...

    def loss(self, protected: Tensor, ids: Tensor) -> Tensor: ...


def through_disk(training: TransformerTraining, folder: Path) -> Kept:
    tensors, numbers = training.checkpoint()
    save(folder / "state", tensors, {"numbers": json.dumps(numbers)})
    kept, metadata = load(folder / "state")
    return kept, json.loads(metadata["numbers"])


def network(config: UserConfig, theta: State) -> UNet:
    h = UNet(config.width, config.depth)
    h.load_state_dict(theta)
    return h.train()


def assert_same(request: Request, expected: Request) -> None:
    assert type(request) is type(expected)
    for name, value in vars(expected).items():
        got = getattr(request, name)
        assert torch.equal(got, value) if isinstance(value, Tensor) else got == value


def test_the_defaults_are_the_papers() -> None:
    config = UserConfig()
    assert config.training == Recipe(epochs=200)
    assert (config.alpha, config.width, config.depth, config.crop_padding, config.flip) == (0.005, 64, 5, 4, True)


@pytest.mark.parametrize("alpha", [-0.1, math.nan, math.inf])
def test_alpha_is_a_number_from_0_up(alpha: float) -> None:
    with pytest.raises(ValidationError):
        UserConfig(alpha=alpha)


@pytest.mark.parametrize("alpha", [0.0, 0.02, 0.5])
def test_a_step_goes_down_the_gradient_of_the_whole_objective(
    alpha: float, config: UserConfig, start: StartTraining, provider: Provider, tiny: ImageStore
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


def test_the_feature_term_pulls_away_from_the_plain_image(start: StartTraining, provider: Provider) -> None:
    def feature_loss_after_training(alpha: float) -> float:
        training = start(alpha=alpha, training=PLAIN_SGD)
        drive(training.run(1, 1), provider.answer)
        return training.curve[-1]["validation_feature_loss"]

    assert feature_loss_after_training(1.0) > feature_loss_after_training(0.0)


def test_requests_are_bitmaps_of_the_users_images_and_validation_comes_once_an_epoch(
    start: StartTraining, provider: Provider
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
            assert request.protected.is_contiguous()
            assert not request.protected.requires_grad
            assert bool(((request.protected >= 0) & (request.protected <= 1)).all())
    assert (training.step, training.total_steps, training.images) == (9, 9, 10)


def test_nothing_a_user_sends_or_gets_has_room_for_labels_of_its_images(
    start: StartTraining, provider: Provider
) -> None:
    training = start()
    drive(training.run(1, 1), provider.answer)
    drive(training.validation(), provider.answer)
    exchanged = {type(message) for message in (*provider.requests, *provider.answers)}
    allowed = {
        TrainingImages: {"user"},
        LossGradient: {"protected", "ids", "user", "asked"},
        Losses: {"protected", "ids"},
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


RECIPES = {
    "momentum": Recipe(epochs=3, batch_size=4, lr=0.05),
    "plain": PLAIN_SGD,
    "nesterov": Recipe(epochs=2.5, batch_size=4, lr=0.05, nesterov=True, schedule="one_cycle"),
    "adam": Recipe(epochs=3, batch_size=4, lr=0.01, optimiser="adam", schedule="cosine"),
}


@pytest.mark.parametrize("alpha", [0.0, 0.02])
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("parts", [3, 4])
def test_training_in_parts_through_json_and_disk_is_training_at_once(
    alpha: float, recipe: str, parts: int, start: StartTraining, provider: Provider, tmp_path: Path
) -> None:
    changes = {"alpha": alpha, "training": RECIPES[recipe]}
    whole = start(**changes)
    drive(whole.run(1, 1), provider.answer)
    steps = [0]
    kept = through_disk(start(**changes), tmp_path)
    for part in range(1, parts + 1):
        training = start(**changes)
        training.restore(*kept)
        drive(training.run(part, parts), provider.answer)
        steps.append(training.step)
        kept = through_disk(training, tmp_path)
    assert steps == [whole.total_steps * part // parts for part in range(parts + 1)]
    assert digest(training.theta()) == digest(whole.theta())
    assert digest(training.selected_theta()) == digest(whole.selected_theta())
    assert training.curve == whole.curve
    assert training.selected_epoch == whole.selected_epoch
    assert kept[0].keys() == whole.checkpoint()[0].keys()


@pytest.mark.parametrize("elsewhere", [True, False])
def test_dropped_at_any_yield_it_yields_the_same_request_again_and_ends_with_the_same_theta(
    elsewhere: bool, start: StartTraining, provider: Provider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_VALIDATION_BATCH", 4)  # so that a validation is two requests
    undisturbed = start()
    drive(undisturbed.run(1, 1), provider.answer)
    expected = list(provider.requests)
    assert len(expected) == 1 + 3 * (3 + 2)

    training = start()
    for request in expected:
        for _ in range(2):
            if elsewhere:
                kept = through_disk(training, tmp_path)
                training = start()
                training.restore(*kept)
            work = training.run(1, 1)
            assert_same(next(work), request)  # the first time it gets no answer
        with contextlib.suppress(StopIteration):
            work.send(provider.answer(request))
        work.close()
    assert digest(training.theta()) == digest(undisturbed.theta())
    assert digest(training.selected_theta()) == digest(undisturbed.selected_theta())
    assert training.curve == undisturbed.curve
    assert training.step == training.total_steps == 9


def test_a_training_that_has_ended_asks_for_nothing(start: StartTraining, provider: Provider) -> None:
    training = start()
    drive(training.run(1, 1), provider.answer)
    theta, asked = digest(training.theta()), len(provider.requests)
    drive(training.run(1, 1), provider.answer)
    assert (digest(training.theta()), len(provider.requests)) == (theta, asked)


def test_user_and_seed_decide_the_result_and_nothing_else(start: StartTraining, provider: Provider) -> None:
    def theta(**who: int) -> str:
        torch.rand(1)  # whatever else the process draws
        training = start(training=Recipe(epochs=0.5, batch_size=4), **who)
        drive(training.run(1, 1), provider.answer)
        return digest(training.theta())

    assert theta() == theta(user=1, seed=0)
    assert len({theta(), theta(user=0), theta(seed=1)}) == 3


def test_users_of_one_own_seed_train_alike_whatever_their_numbers(
    config: UserConfig, tiny: ImageStore, compute: Compute, provider: Provider
) -> None:
    alike = config.model_copy(update={"seed": 5, "training": Recipe(epochs=0.5, batch_size=4)})

    def theta(user: int, seed: int = 0, config: UserConfig = alike) -> str:
        training = TransformerTraining(config, user, seed, tiny, compute)
        drive(training.run(1, 1), provider.answer)
        return digest(training.theta())

    assert theta(1) == theta(2)
    assert len({theta(1), theta(1, seed=1), theta(1, config=alike.model_copy(update={"seed": 6}))}) == 3


def scripted(provider: Provider, *losses: float) -> Callable[[Request], Answer]:
    script = iter(losses)

    def answer(request: Request) -> Answer:
        if isinstance(request, Losses):
            return LossValues(loss=next(script), correct=2)
        return provider.answer(request)

    return answer


def test_the_epoch_with_the_lowest_validation_loss_is_selected_at_alpha_0(
    start: StartTraining, provider: Provider
) -> None:
    training, answer, thetas = start(alpha=0.0), scripted(provider, 3.0, 1.0, 2.0), []
    assert training.selected_epoch == 0
    assert digest(training.selected_theta()) == digest(training.theta())

    def watch(request: Request) -> Answer:
        if isinstance(request, Losses):
            thetas.append(digest(training.theta()))
        return answer(request)

    drive(training.run(1, 1), watch)
    assert training.selected_epoch == 2
    assert digest(training.selected_theta()) == thetas[1]
    assert digest(training.theta()) == thetas[2] != thetas[1]
    assert [row["validation_objective"] for row in training.curve] == [3.0, 1.0, 2.0]


def test_of_two_epochs_with_the_same_loss_the_one_with_the_larger_feature_loss_is_selected(
    start: StartTraining, provider: Provider
) -> None:
    training = start(alpha=0.02)
    drive(training.run(1, 1), scripted(provider, 2.0, 2.0, 2.0))
    distances = [row["validation_feature_loss"] for row in training.curve]
    assert len(set(distances)) == 3
    assert training.selected_epoch == distances.index(max(distances)) + 1
    objectives = [row["validation_objective"] for row in training.curve]
    assert objectives == pytest.approx([2 - 0.02 * distance for distance in distances])


def test_the_selected_theta_outlives_the_process_it_was_selected_in(
    start: StartTraining, provider: Provider, tmp_path: Path
) -> None:
    training, answer = start(alpha=0.0), scripted(provider, 1.0, 2.0, 3.0)
    drive(training.run(1, 3), answer)
    selected = digest(training.theta())
    for part in (2, 3):
        kept = through_disk(training, tmp_path)
        training = start(alpha=0.0)
        training.restore(*kept)
        drive(training.run(part, 3), answer)
        assert digest(training.selected_theta()) == selected != digest(training.theta())
        assert training.selected_epoch == 1


def test_a_first_epoch_is_selected_until_a_better_one_comes(start: StartTraining, provider: Provider) -> None:
    training = start(alpha=0.0)
    drive(training.run(1, 1), scripted(provider, 1.0, 1.0, 1.0))
    assert training.selected_epoch == 1


def test_the_curve_weighs_batches_by_their_images(
    start: StartTraining, provider: Provider, monkeypatch: pytest.MonkeyPatch
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
    config: UserConfig, start: StartTraining, provider: Provider, tiny: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_VALIDATION_BATCH", 4)
    training = start(training=Recipe(epochs=1, batch_size=4, lr=0.05))
    drive(training.run(1, 1), provider.answer)
    h, phi, plain = network(config, training.theta()).eval(), Features(config.features), tiny.images("validation")[:6]
    with torch.no_grad():
        distance = feature_loss(phi(h(to_unit(plain))), phi(to_unit(plain))).item()
    assert training.curve[0]["validation_feature_loss"] == pytest.approx(distance, rel=1e-4)


def test_at_alpha_0_phi_is_only_asked_for_the_validation_report(
    start: StartTraining, provider: Provider, monkeypatch: pytest.MonkeyPatch
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


def test_adopting_another_theta_starts_the_optimiser_afresh(start: StartTraining, provider: Provider) -> None:
    training, other = start(), start(user=2)
    drive(training.run(1, 3), provider.answer)
    assert any(name.startswith("optimiser/") for name in training.checkpoint()[0])
    training.adopt(other.theta())
    assert digest(training.theta()) == digest(other.theta())
    tensors, numbers = training.checkpoint()
    assert not any(name.startswith("optimiser/") for name in tensors)
    assert (numbers["step"], training.step) == (3, 3)

    drive(training.run(2, 3), provider.answer)
    fresh = start()
    fresh.restore(tensors, numbers)  # the same step with an optimiser that has never stepped
    drive(fresh.run(2, 3), provider.answer)
    assert digest(fresh.theta()) == digest(training.theta())


def test_weights_may_be_adopted_without_the_statistics_of_batch_normalisation(
    start: StartTraining, provider: Provider
) -> None:
    training, weights = start(), without_statistics(start(user=2).theta())
    drive(training.run(1, 3), provider.answer)
    own = training.theta()
    with pytest.raises(ValueError, match=r"^theta sent to user 1: .*missing \['down.0.1.num_batches_tracked"):
        training.adopt(weights)
    assert digest(training.theta()) == digest(own)
    training.adopt(weights, own_statistics=True)
    assert len(weights) < len(own)
    assert digest(training.theta()) == digest(own | weights)
    # They are those of a checkpoint and of the next step as well.
    other = start()
    other.restore(*training.checkpoint())
    for each in (training, other):
        drive(each.run(2, 3), provider.answer)
    assert digest(training.theta()) == digest(other.theta())


def test_a_theta_of_another_network_is_refused_and_changes_nothing(start: StartTraining) -> None:
    training = start()
    before = digest(training.theta())
    with pytest.raises(ValueError, match=r"^theta sent to user 1: .*has shape"):
        training.adopt(start(width=3).theta())
    with pytest.raises(ValueError, match=r"^theta sent to user 1: .*unexpected"):
        training.adopt(start(depth=3).theta())
    assert digest(training.theta()) == before


def test_a_checkpoint_of_another_network_is_refused(start: StartTraining) -> None:
    with pytest.raises(ValueError, match=r"^checkpoint of user 1: "):
        start().restore(*start(width=3).checkpoint())


def test_traffic_is_kept_with_the_state(start: StartTraining, tmp_path: Path) -> None:
    training, other = start(), start()
    training.traffic.queries, training.traffic.sent_bytes = 3, 2**40
    other.restore(*through_disk(training, tmp_path))
    assert other.traffic == training.traffic


def test_validation_asks_for_the_validation_images_and_moves_nothing(start: StartTraining, provider: Provider) -> None:
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
    spoil: Callable[[Tensor], Answer], reason: str, start: StartTraining, provider: Provider
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


def test_a_training_that_diverges_names_its_user_and_its_step(start: StartTraining, provider: Provider) -> None:
    def huge(request: Request) -> Answer:
        if isinstance(request, LossGradient):
            return Gradient(torch.full_like(request.protected, 1e38), 1.0, 0)
        return provider.answer(request)

    training = start(training=Recipe(epochs=3, batch_size=4, lr=1e6))
    with pytest.raises(ValueError, match=r"^user 1 diverged at step \d+: lower user.training.lr$"):
        drive(training.run(1, 1), huge)


def test_the_running_loss_is_that_of_the_present_epoch(start: StartTraining, provider: Provider) -> None:
    training = start()
    assert math.isnan(training.loss)
    work = training.run(1, 1)
    request = work.send(provider.answer(next(work)))
    answer = provider.answer(request)
    work.send(answer)
    assert isinstance(answer, Gradient)
    assert training.loss == pytest.approx(answer.loss)
