"""Noise that is set so that a protected image may tell so much and no more (dFIL)."""

import pytest
import torch

from roles.common.compute import Compute
from roles.common.config.user import UserConfig
from roles.common.data import ImageStore
from roles.common.exchange import drive
from roles.common.fisher import jacobian_energy, leakage
from roles.common.images import to_unit
from roles.common.protection import NOISE, Noisy, network_of, protection_of
from roles.common.seeds import generator
from tests.roles.user.conftest import PlainProvider, StartTraining
from tests.roles.user.trainings import dropped_at_every_request


def test_what_is_published_leaks_as_much_as_was_asked_for(
    start: StartTraining, provider: PlainProvider, config: UserConfig, tiny: ImageStore, compute: Compute
) -> None:
    training = start(dfil=2.0)
    drive(training.run(1, 1), provider.answer)
    theta = training.selected_theta()
    h = network_of(config.model_copy(update={"dfil": 2.0}), 1, theta, compute)
    assert h is not None
    plain = compute.batch(to_unit(tiny.images("validation")[provider.ids.validation]))
    energies = [jacobian_energy(h.eval(), plain, compute, generator(0, "look", number)) for number in range(20)]
    assert leakage(torch.stack(energies).mean(), theta[NOISE]).item() == pytest.approx(2.0, rel=0.2)
    row = training.curve[training.selected_epoch - 1]
    assert row["validation_dfil"] == pytest.approx(2.0, rel=0.01)


def test_the_noise_that_is_published_is_that_of_the_epoch_that_is(
    start: StartTraining, provider: PlainProvider
) -> None:
    training = start(dfil=2.0)
    drive(training.run(1, 1), provider.answer)
    training._best, noise = training.theta(), training.theta()[NOISE].clone()
    training._scale.mul_(2)  # as a later epoch does
    assert training.selected_theta()[NOISE] == noise


def test_every_network_has_a_column_of_what_it_leaks(start: StartTraining, provider: PlainProvider) -> None:
    quiet, loud = start(), start(noise=0.5)
    for training in (quiet, loud):
        drive(training.run(1, 1), provider.answer)
    assert quiet.curve[0]["validation_dfil"] > 1000 * loud.curve[0]["validation_dfil"] > 0
    # Only dfil has noise of its own to publish.
    assert NOISE not in quiet.theta()
    assert NOISE not in loud.theta()


def test_a_training_dropped_at_every_request_ends_with_the_same_noise(
    start: StartTraining, provider: PlainProvider
) -> None:
    whole = start(dfil=5.0)
    drive(whole.run(1, 1), provider.answer)
    session = dropped_at_every_request(lambda: start(dfil=5.0), provider.answer)
    for name, value in whole.theta().items():
        assert torch.equal(value, session.theta()[name])


def test_whoever_protects_adds_the_noise_that_is_published(
    start: StartTraining, config: UserConfig, tiny: ImageStore, compute: Compute
) -> None:
    leaking = config.model_copy(update={"dfil": 5.0})
    theta = start().theta()
    protect = protection_of(leaking, 1, 0, theta | {NOISE: torch.tensor(0.25)}, compute)
    assert isinstance(protect, Noisy)
    images, ids = tiny.images("test")[:6], torch.arange(6)
    silent, noisy = protect.transform(images, "test", ids), protect(images, "test", ids)
    inside = (noisy > 0) & (noisy < 255)
    assert ((noisy.float() - silent.float())[inside] / 255).std().item() == pytest.approx(0.25, rel=0.25)
    with pytest.raises(ValueError, match="theta of a user with dfil 5 has no 'noise' beside the network's weights"):
        protection_of(leaking, 1, 0, theta, compute)


def test_noise_and_a_leakage_cannot_both_be_asked_for() -> None:
    with pytest.raises(ValueError, match=r"dfil sets the noise itself: leave noise out, got noise 0.1"):
        UserConfig(dfil=1.0, noise=0.1)
