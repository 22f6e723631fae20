"""The own losses of a user with the GAN-based transformation."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from roles.common.compute import Compute
from roles.common.config.user import FeaturesConfig, GanConfig
from roles.common.data import ImageStore
from roles.common.exchange import Answer, Losses, LossValues, Request, drive
from roles.common.features import shared_features
from roles.common.images import to_unit
from roles.user.features import feature_loss
from roles.user.gan import Adversary
from roles.user.training import TransformerTraining
from tests.roles.user.conftest import PlainProvider
from tests.roles.user.trainings import dropped_at_every_request

PHI = shared_features(FeaturesConfig(layer="relu1_2"))
PIXELS_ALONE = {"adversarial": 0.0, "perceptual": 0.0, "pixel": 1.0}


def gradient_of(rival: Adversary, plain: Tensor, protected: Tensor, number: int) -> Tensor:
    gradient, distance = rival.gradient(plain, protected, number)
    assert gradient is not None
    assert math.isnan(distance)
    return gradient


def adversary(compute: Compute, seed: int = 0, **changes: float) -> Adversary:
    return Adversary(GanConfig.model_validate({"kind": "gan"} | changes), PHI, seed, compute)


@pytest.fixture
def plain(tiny: ImageStore) -> Tensor:
    return to_unit(tiny.images("train")[:6])


@pytest.fixture
def protected() -> Tensor:
    return torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def target_of(gradient: Tensor, protected: Tensor) -> Tensor:
    """Return the encrypted images from the gradient of the mean squared distance to them."""
    return (255 * (protected - gradient * gradient.numel() / 2)).round()


def colours(images: Tensor) -> Tensor:
    """Return what pixel-based encryption with shuffled channels keeps of every pixel."""
    return torch.minimum(images, 255 - images).sort(dim=1).values


def test_pixels_are_drawn_to_the_image_itself_encrypted(compute: Compute, plain: Tensor, protected: Tensor) -> None:
    target = target_of(gradient_of(adversary(compute, **PIXELS_ALONE), plain, protected, 0), protected)
    bitmaps = (255 * plain).round()
    assert torch.equal(colours(target), colours(bitmaps))
    assert not torch.equal(target, bitmaps)


def test_every_image_has_a_new_key_at_every_step_and_the_same_in_the_same_step(
    compute: Compute, protected: Tensor
) -> None:
    black = torch.zeros(6, 3, 8, 8)
    steps = [
        target_of(gradient_of(adversary(compute, **PIXELS_ALONE), black, protected, number), protected)
        for number in (0, 1)
    ]
    keys = torch.cat(steps).flatten(1)
    assert len(keys.unique(dim=0)) == 12
    again = target_of(gradient_of(adversary(compute, **PIXELS_ALONE), black, protected, 1), protected)
    assert torch.equal(again, steps[1])
    other = target_of(gradient_of(adversary(compute, seed=1, **PIXELS_ALONE), black, protected, 1), protected)
    assert not torch.equal(other, steps[1])


def test_features_are_drawn_to_those_of_the_encrypted_image(compute: Compute, plain: Tensor, protected: Tensor) -> None:
    target = target_of(gradient_of(adversary(compute, **PIXELS_ALONE), plain, protected, 0), protected) / 255
    gradient = gradient_of(adversary(compute, adversarial=0, perceptual=2, pixel=0), plain, protected, 0)
    leaf = protected.clone().requires_grad_()
    (expected,) = torch.autograd.grad(2 * feature_loss(PHI(leaf), PHI(target)), leaf)
    assert torch.allclose(gradient, expected, rtol=1e-3, atol=1e-7)


def test_the_discriminator_learns_to_tell_encrypted_images_from_others_and_its_gradient_makes_them_more_alike(
    compute: Compute, plain: Tensor
) -> None:
    grey = torch.full((6, 3, 8, 8), 0.5)
    rival = adversary(compute, adversarial=1, perceptual=0, pixel=0, lr=0.005)
    for number in range(80):
        gradient = gradient_of(rival, plain, grey, number)
    encrypted = target_of(gradient_of(adversary(compute, **PIXELS_ALONE), plain, grey, 99), grey) / 255
    verdicts = rival._discriminator(encrypted) - rival._discriminator(grey)
    assert verdicts.min() > 1
    step = grey - 0.01 * gradient / gradient.abs().max()
    assert rival._discriminator(step).mean() > rival._discriminator(grey).mean()


def test_an_adversary_goes_on_from_its_state(compute: Compute, plain: Tensor, protected: Tensor) -> None:
    whole, first, second = adversary(compute), adversary(compute), adversary(compute)
    expected = [gradient_of(whole, plain, protected, number) for number in range(4)]
    for number in range(2):
        gradient_of(first, plain, protected, number)
    second.restore(first.checkpoint())
    for number in (2, 3):
        assert torch.equal(gradient_of(second, plain, protected, number), expected[number])


def test_a_training_with_an_adversary_dropped_at_every_request_ends_the_same(
    start: Callable[..., TransformerTraining], provider: object
) -> None:
    gan = GanConfig(kind="gan")
    whole = start(protection=gan)
    drive(whole.run(1, 1), provider.answer)  # type: ignore[attr-defined]
    session = dropped_at_every_request(lambda: start(protection=gan), provider.answer)  # type: ignore[attr-defined]
    for name, value in whole.theta().items():
        assert torch.equal(value, session.theta()[name])
    plain = start()
    drive(plain.run(1, 1), provider.answer)  # type: ignore[attr-defined]
    assert not torch.equal(plain.theta()["head.weight"], whole.theta()["head.weight"])


def test_alpha_is_without_effect(start: Callable[..., TransformerTraining], provider: object) -> None:
    gan, ends = GanConfig(kind="gan"), []
    for alpha in (0.0, 5.0):
        training = start(protection=gan, alpha=alpha)
        drive(training.run(1, 1), provider.answer)  # type: ignore[attr-defined]
        ends.append((training.selected_epoch, training.selected_theta()["head.weight"]))
    assert ends[0][0] == ends[1][0]
    assert torch.equal(ends[0][1], ends[1][1])


def test_the_last_epochs_network_is_published_whatever_its_losses(
    start: Callable[..., TransformerTraining], provider: PlainProvider
) -> None:
    losses = iter((1.0, 2.0, 3.0))

    def worse_and_worse(request: Request) -> Answer:
        answer = provider.answer(request)
        return LossValues(next(losses), 1) if isinstance(request, Losses) else answer

    training = start(protection=GanConfig(kind="gan"))
    drive(training.run(1, 1), worse_and_worse)
    assert training.selected_epoch == 3
    assert torch.equal(training.selected_theta()["head.weight"], training.theta()["head.weight"])
