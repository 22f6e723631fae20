"""A user whose protected images are to be alike within clusters of their own."""

import math

import pytest
import torch
from torch import Tensor

from roles.common.compute import Compute
from roles.common.config.recipe import Recipe
from roles.common.config.user import EntropyConfig, UserConfig
from roles.common.exchange import drive
from roles.user.entropy import Entropy
from tests.roles.user.conftest import PlainProvider, StartTraining

SHAPE = (3, 8, 8)


def entropy(compute: Compute, seed: int = 0, **changes: float) -> Entropy:
    config = {"kind": "entropy", "clusters": 2, "warmup": 0, "weight": 1.0} | changes
    return Entropy(EntropyConfig.model_validate(config), seed, compute)


def two_kinds(count: int, spread: float = 0.05, seed: int = 0) -> Tensor:
    """Return ``(2 * count, 3, 8, 8)``: images about 0.25, then images about 0.75."""
    stream = torch.Generator().manual_seed(seed)
    centres = torch.tensor([0.25] * count + [0.75] * count).view(-1, 1, 1, 1)
    return (centres + spread * torch.randn(2 * count, *SHAPE, generator=stream)).clamp(0, 1)


def gradient_of(loss: Entropy, protected: Tensor, step: int) -> Tensor:
    gradient, distance = loss.gradient(protected, protected, step)
    assert gradient is not None
    assert math.isnan(distance)
    assert gradient.shape == protected.shape
    return gradient


def settled(compute: Compute, spread: float = 0.05, **changes: float) -> Entropy:
    loss = entropy(compute, **changes)
    for step in range(60):
        gradient_of(loss, two_kinds(16, spread, seed=step), step)
    return loss


def test_images_are_drawn_to_the_mean_of_their_own_cluster(compute: Compute) -> None:
    loss, protected = settled(compute), two_kinds(16, seed=99)
    moved = protected - 2 * gradient_of(loss, protected, 60)
    for kind in (slice(0, 16), slice(16, 32)):
        assert moved[kind].var(0).mean() < 0.99 * protected[kind].var(0).mean()
        assert moved[kind].mean() == pytest.approx(protected[kind].mean().item(), abs=0.005)


def test_the_gradient_is_that_of_half_the_logarithm_of_the_variance_within_clusters(compute: Compute) -> None:
    loss, protected = settled(compute), two_kinds(64, seed=99)
    leaf = protected.clone().requires_grad_()
    kinds = leaf.view(2, 64, *SHAPE)
    # The mean over all values, as the images of a batch stand for their cluster.
    (wanted,) = torch.autograd.grad(0.5 * kinds.var(1, correction=0).log().mean(), leaf)
    found = gradient_of(loss, protected, 60)
    assert torch.nn.functional.cosine_similarity(found.flatten(), wanted.flatten(), dim=0) > 0.9
    assert found.norm().item() == pytest.approx(wanted.norm().item(), rel=0.2)


def test_the_less_they_differ_the_harder_what_differs_is_drawn_together(compute: Compute) -> None:
    far, near = (
        gradient_of(settled(compute, spread), two_kinds(16, spread, seed=99), 60).norm() for spread in (0.1, 0.02)
    )
    assert near > 3 * far


def test_for_its_warmup_it_asks_for_nothing_and_over_twice_as_many_steps_for_ever_more(compute: Compute) -> None:
    loss, protected = entropy(compute, warmup=10), two_kinds(16)
    assert [loss.gradient(protected, protected, step)[0] for step in range(10)] == [None] * 10
    sizes = [gradient_of(loss, protected, 10).norm()]
    for step in (20, 30, 300):
        again = entropy(compute, warmup=10)
        again.restore(loss.checkpoint())
        sizes.append(gradient_of(again, protected, step).norm())
    _, half_way, full, later = (size.item() for size in sizes)
    assert half_way / full == pytest.approx(11 / 21)
    assert later == full


def test_a_cluster_that_loses_its_images_starts_anew_among_those_that_fit_worst(compute: Compute) -> None:
    loss = settled(compute)
    others = torch.cat([two_kinds(16, seed=7)[:16], 1 - 0.05 * torch.rand(16, *SHAPE)])
    for step in range(300):
        gradient_of(loss, others, 60 + step)
    means = sorted(loss._means.mean(1).tolist())
    assert means == pytest.approx([0.25, 0.975], abs=0.03)


def test_images_that_are_all_the_same_have_clusters_too(compute: Compute) -> None:
    same = torch.full((8, *SHAPE), 0.5)
    assert torch.isfinite(gradient_of(entropy(compute, clusters=4), same, 0)).all()


def test_where_the_first_batch_is_the_short_rest_of_an_epoch_clusters_are_drawn_from_the_next(compute: Compute) -> None:
    late, punctual = entropy(compute, clusters=5, warmup=2), entropy(compute, clusters=5, warmup=2)
    assert late.gradient(two_kinds(2), two_kinds(2), 2)[0] is None
    resumed = entropy(compute, clusters=5, warmup=2)
    resumed.restore(late.checkpoint())
    wanted = gradient_of(punctual, two_kinds(4), 3)
    for one in (late, resumed):
        assert torch.equal(gradient_of(one, two_kinds(4), 3), wanted)


def test_where_no_batch_has_as_many_images_as_there_are_clusters_it_is_refused_in_one_line(compute: Compute) -> None:
    loss = entropy(compute, clusters=5, warmup=2)
    assert loss.gradient(two_kinds(2), two_kinds(2), 2)[0] is None
    with pytest.raises(ValueError, match=r"^user.protection.clusters is 5, and a batch has only 4 images$"):
        loss.gradient(two_kinds(2), two_kinds(2), 3)


@pytest.mark.parametrize("passed", [2, 20])  # before and after clusters are drawn
def test_it_goes_on_from_its_state(compute: Compute, passed: int) -> None:
    whole, first, second = (entropy(compute, warmup=5) for _ in range(3))
    batches = [two_kinds(16, seed=step) for step in range(passed + 10)]
    expected = [whole.gradient(batch, batch, step)[0] for step, batch in enumerate(batches)]
    for step, batch in enumerate(batches[:passed]):
        first.gradient(batch, batch, step)
    second.restore(first.checkpoint())
    for step in range(passed, passed + 10):
        found, wanted = second.gradient(batches[step], batches[step], step)[0], expected[step]
        assert (found is None) == (wanted is None)
        assert wanted is None or (found is not None and torch.equal(found, wanted))


@pytest.mark.parametrize("warmup", range(3))
def test_a_training_gets_past_a_short_rest_whichever_step_it_is(
    start: StartTraining, provider: PlainProvider, warmup: int
) -> None:
    protection = EntropyConfig(kind="entropy", clusters=3, warmup=warmup)  # of an epoch's 4, 4 and 2 images
    training = start(protection=protection, noise=0.05)
    drive(training.run(1, 1), provider.answer)
    assert isinstance(training._own, Entropy)
    assert len(training._own._means) == 3


def test_without_noise_it_is_refused() -> None:
    with pytest.raises(ValueError, match=r"protection entropy needs noise, such as noise: 0.3, or dfil"):
        UserConfig(protection=EntropyConfig(kind="entropy"))


def test_a_user_that_trains_by_it_leaves_less_variance_within_clusters(
    start: StartTraining, provider: PlainProvider
) -> None:
    recipe = Recipe(epochs=10, batch_size=4, lr=0.05)

    def spread_of(weight: float) -> float:
        protection = EntropyConfig(kind="entropy", weight=weight, clusters=2, warmup=5)
        training = start(protection=protection, noise=0.05, training=recipe, crop_padding=0, flip=False)
        drive(training.run(1, 1), provider.answer)
        assert isinstance(training._own, Entropy)
        return training._own._variances.log().mean().item()

    assert spread_of(10) < spread_of(1e-6) - 0.1
