"""A user that trains against an inverse network of its own, and noise that only the user can draw."""

import itertools
import math
import threading

import pytest
import torch
from torch import Tensor

from roles.common.compute import Compute
from roles.common.config.recipe import Recipe
from roles.common.config.user import AdversarialConfig, UserConfig
from roles.common.data import ImageStore
from roles.common.exchange import LossGradient, drive
from roles.common.images import to_unit
from roles.common.protection import protection_of
from roles.common.seeds import DRAWING
from roles.user.adversarial import InverseAdversary
from tests.roles.user.conftest import PlainProvider, StartTraining
from tests.roles.user.trainings import dropped_at_every_request

SIDE = 8


def adversary(compute: Compute, seed: int = 0, **changes: float) -> InverseAdversary:
    config = AdversarialConfig.model_validate({"kind": "adversarial"} | changes)
    return InverseAdversary(config, width=4, depth=2, seed=seed, compute=compute)


@pytest.fixture
def plain(tiny: ImageStore) -> Tensor:
    return to_unit(tiny.images("train")[:16])


def gradient_of(rival: InverseAdversary, plain: Tensor, protected: Tensor) -> Tensor:
    gradient, distance = rival.gradient(plain, protected, 0)
    assert gradient is not None
    assert math.isnan(distance)
    return gradient


def test_while_a_reconstruction_is_too_good_the_gradient_makes_it_worse(compute: Compute, plain: Tensor) -> None:
    rival = adversary(compute, steps=200, lr=0.01, cap=1.0)
    protected = 1 - plain
    gradient = gradient_of(rival, plain, protected)
    error = rival._rivals[0].error(protected, plain)
    assert error < 0.05  # a negative is undone within 200 steps
    # Down the gradient, as h_theta is to go: g errs by more.
    assert rival._rivals[0].error(protected - 0.5 * gradient / gradient.abs().max(), plain) > error


def test_from_the_cap_on_nothing_more_is_asked_for(compute: Compute, plain: Tensor) -> None:
    assert gradient_of(adversary(compute, cap=1e-9), plain, 1 - plain).abs().max() == 0
    assert gradient_of(adversary(compute, cap=1.0), plain, 1 - plain).abs().max() > 0


def test_the_weight_is_that_of_the_gradient(compute: Compute, plain: Tensor) -> None:
    once, twice = (gradient_of(adversary(compute, cap=1.0, weight=weight), plain, 1 - plain) for weight in (3, 6))
    assert torch.allclose(2 * once, twice)


def test_an_inverse_adversary_goes_on_from_its_state(compute: Compute, plain: Tensor) -> None:
    whole, first, second = (adversary(compute, cap=1.0) for _ in range(3))
    expected = [gradient_of(whole, plain, 1 - plain) for _ in range(4)]
    for _ in range(2):
        gradient_of(first, plain, 1 - plain)
    second.restore(first.checkpoint())
    for number in (2, 3):
        assert torch.equal(gradient_of(second, plain, 1 - plain), expected[number])


@pytest.mark.parametrize("changes", [{"protection": AdversarialConfig(kind="adversarial")}, {"noise": 0.3}])
def test_a_training_dropped_at_every_request_ends_the_same(
    start: StartTraining, provider: PlainProvider, changes: dict[str, object]
) -> None:
    whole = start(**changes)
    drive(whole.run(1, 1), provider.answer)
    session = dropped_at_every_request(lambda: start(**changes), provider.answer)
    plain = start()
    drive(plain.run(1, 1), provider.answer)
    for name, value in whole.theta().items():
        assert torch.equal(value, session.theta()[name])
    assert not torch.equal(plain.theta()["head.weight"], whole.theta()["head.weight"])


def test_noise_is_drawn_anew_at_every_step_of_the_training_and_is_as_strong_as_asked_for(
    start: StartTraining, provider: PlainProvider
) -> None:
    def steps_of(**changes: object) -> list[Tensor]:
        provider.requests.clear()
        drive(start(crop_padding=0, flip=False, **changes).run(1, 1), provider.answer)
        return [request.protected for request in provider.requests if isinstance(request, LossGradient)]

    # With steps too small to change anything, two trainings differ by their noise alone.
    still = Recipe(epochs=3, batch_size=4, lr=1e-12)
    noises = [
        noisy - quiet
        for noisy, quiet in zip(steps_of(training=still, noise=0.1), steps_of(training=still), strict=True)
    ]
    inside = [noise[noise.abs() > 1e-6] for noise in noises]
    assert torch.cat(inside).std().item() == pytest.approx(0.1, rel=0.2)
    assert [len(noise) for noise in noises[:3]] == [4, 4, 2]
    for one, other in itertools.combinations(noises, 2):
        assert not torch.equal(one[:2], other[:2])


def test_the_noise_of_an_image_is_the_same_however_often_it_is_protected_and_nobody_elses(
    start: StartTraining, tiny: ImageStore, config: UserConfig, compute: Compute
) -> None:
    noisy, theta = config.model_copy(update={"noise": 0.2}), start().theta()
    images, ids = tiny.images("test")[:6], torch.arange(6)
    silent = protection_of(config, 1, 0, theta, compute)(images, "test", ids)
    protect = protection_of(noisy, 1, 0, theta, compute)
    once = protect(images, "test", ids)
    assert torch.equal(once, protect(images, "test", ids))
    assert torch.equal(once[2:4], protect(images[2:4], "test", ids[2:4]))
    distance = (once.float() - silent.float())[(once > 0) & (once < 255)] / 255
    assert distance.std().item() == pytest.approx(0.2, rel=0.2)
    others = (
        protection_of(noisy, 2, 0, theta, compute)(images, "test", ids),  # another user
        protection_of(noisy, 1, 1, theta, compute)(images, "test", ids),  # another run
        protect(images, "train", ids),
        protect(images, "test", ids + 1),
    )
    for other in others:
        assert not torch.equal(once, other)


def test_of_several_networks_the_one_that_errs_least_counts(compute: Compute, plain: Tensor) -> None:
    rival = adversary(compute, cap=1.0, networks=3, weight=1.0)
    for _ in range(20):
        gradient_of(rival, plain, 1 - plain)
    gradient = gradient_of(rival, plain, 1 - plain)
    errors, gradients = [], []
    for each in rival._rivals:
        leaf = (1 - plain).requires_grad_()
        errors.append(each.error(leaf, plain))
        gradients.append(-torch.autograd.grad(errors[-1], leaf)[0])
    best = min(range(3), key=lambda number: errors[number].item())
    assert torch.allclose(gradient, gradients[best])
    assert not any(torch.allclose(gradient, other) for number, other in enumerate(gradients) if number != best)


def test_networks_start_anew_in_turn(compute: Compute, plain: Tensor) -> None:
    rival = adversary(compute, cap=1.0, networks=2, restart=3)
    first = list(rival._rivals)
    replaced: list[list[bool]] = []
    for step in range(7):
        rival.gradient(plain, 1 - plain, step)
        replaced.append([now is not before for now, before in zip(rival._rivals, first, strict=True)])
    assert replaced == [[False, False]] * 3 + [[True, False]] * 3 + [[True, True]]


def test_a_network_that_starts_anew_waits_for_whoever_draws_meanwhile(compute: Compute, plain: Tensor) -> None:
    rival = adversary(compute, cap=1.0, restart=1)
    first, thread = rival._rivals[0], threading.Thread(target=rival.gradient, args=(plain, 1 - plain, 1))
    with DRAWING:
        before = torch.get_rng_state()
        thread.start()
        thread.join(0.5)
        assert thread.is_alive()
        assert torch.equal(torch.get_rng_state(), before)
    thread.join()
    assert rival._rivals[0] is not first
