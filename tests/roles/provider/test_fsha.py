"""Feature-space hijacking: a user's network that follows its gradients gives images away, without a pair."""

from collections.abc import Mapping

import pytest
import torch
from torch.nn import functional as F

from roles.common.compute import Compute
from roles.common.config.provider import HijackConfig
from roles.common.config.recipe import Recipe, set_lr
from roles.common.data import ImageStore
from roles.common.exchange import Gradient, LossGradient, expect
from roles.common.images import to_unit
from roles.common.unet import UNet
from roles.provider.provider import Provider
from roles.provider.steering import Fsha

SMALL = {"kind": "fsha", "width": 4, "depth": 2, "shift": 0, "flip": False}


def steering(tiny: ImageStore, compute: Compute, changes: Mapping[str, object]) -> Fsha:
    torch.manual_seed(0)
    return Fsha(HijackConfig.model_validate({**SMALL, **changes}), tiny, compute)


def test_a_critic_steers_images_towards_what_the_pilot_makes(tiny: ImageStore, compute: Compute) -> None:
    hostile = steering(tiny, compute, {"pretraining": 100, "critic_lr": 0.01})
    stream, x = torch.Generator().manual_seed(0), to_unit(tiny.images("train")[:32])
    protected = torch.full((16, 3, 8, 8), 0.05)

    def distance() -> float:
        with torch.no_grad():
            return abs(float(hostile._pilot(x).mean() - protected.mean()))

    before = distance()
    for _ in range(40):
        gradient = hostile.gradient(protected.clone(), torch.arange(16), stream)
        protected = (protected - 0.02 * gradient.sign()).clamp(0, 1)
    assert before > 0.2
    assert distance() < 0.5 * before


def test_pilot_and_inverse_are_trained_before_the_first_answer_and_then_the_pilot_stands_still(
    tiny: ImageStore, compute: Compute
) -> None:
    hostile = steering(tiny, compute, {"pretraining": 200})
    stream, x = torch.Generator().manual_seed(0), to_unit(tiny.images("train")[:200])
    hostile.gradient(torch.rand(16, 3, 8, 8), torch.arange(16), stream)
    with torch.no_grad():
        error = F.mse_loss(hostile.inverse(hostile._pilot(x)), x)
    assert error < 0.2 * (x - x.mean(0)).square().mean()
    before, other = ([value.clone() for value in each.parameters()] for each in (hostile._pilot, hostile.inverse))
    again = steering(tiny, compute, {"pretraining": 200})
    again.restore(hostile.checkpoint())
    for one in (hostile, again):
        one.gradient(torch.rand(16, 3, 8, 8), torch.arange(16), stream)
        assert all(map(torch.equal, one._pilot.parameters(), before))
        assert not all(map(torch.equal, one.inverse.parameters(), other))


@pytest.mark.parametrize("hijacked", [True, False], ids=["hijacked", "honest"])
def test_from_what_a_users_network_makes_images_are_reconstructed_if_it_has_followed_the_hijack(
    hijacked: bool, tiny: ImageStore, compute: Compute, provider: Provider
) -> None:
    hostile = steering(tiny, compute, {"width": 8, "pretraining": 120})
    h, stream = UNet(8, 2).train(), torch.Generator().manual_seed(0)
    recipe, total, size = Recipe(epochs=1, lr=0.05, schedule="one_cycle"), 180, 32
    optimiser, images = recipe.optimiser_for(h), to_unit(tiny.images("train"))
    for step in range(total):
        ids = torch.randint(len(images), (size,), generator=stream)
        protected = h(images[ids])
        gradient = hostile.gradient(protected.detach().clone(), ids, stream)
        if not hijacked:
            gradient = expect(provider.answer(LossGradient(protected.detach(), ids, 0, 0)), Gradient).gradient
        set_lr(optimiser, recipe.lr_at(step, total))
        optimiser.zero_grad()
        protected.backward(gradient)  # type: ignore[no-untyped-call]
        optimiser.step()
    x = to_unit(tiny.images("test")[:200])
    with torch.no_grad():
        estimates = hostile.inverse.eval()(h.eval()(x))
    error = float(F.mse_loss(estimates, x) / (x - x.mean(0)).square().mean())
    assert error < 0.4 if hijacked else error > 0.9
