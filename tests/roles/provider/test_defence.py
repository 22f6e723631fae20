"""The terms on which a provider gives gradients away."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from roles.common.compute import Compute
from roles.common.config.provider import DefenceConfig
from roles.common.data import ImageStore
from roles.common.exchange import ExchangeError, Gradient, LossGradient, expect, guest
from roles.common.labels import load_labels
from roles.common.weights import State, load_into
from roles.provider.classifiers import Classifier
from roles.provider.defence import Defence
from roles.provider.memory import Memory
from roles.provider.provider import Provider
from roles.provider.user_classifiers import UserClassifiers

IDS = torch.tensor([7, 0, 11, 3])
IMAGES = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
EXACT = torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.5, -1.0]]).view(2, 3, 1, 1) / 2
"""The gradient of a mean loss of two images, whose own are twice as long: of norms 5 and 1.1."""

Start = Callable[..., Provider]


@pytest.fixture
def start(
    psi: State, tiny: ImageStore, compute: Compute, no_user_classifiers: UserClassifiers, tmp_path: Path
) -> Start:
    """Return a function of a defence's config that starts a provider, each time as another process would."""

    def make(memory: Memory | None = None, **terms: Any) -> Provider:
        defence = Defence(DefenceConfig(**terms), 0, tmp_path / "asked")
        own, others = torch.arange(tiny.counts["train"]), torch.arange(4)
        return Provider("resnet20", psi, tiny, compute, [own] * 4, others, no_user_classifiers, memory, defence=defence)

    return make


def asked(provider: Provider, images: Tensor = IMAGES, ids: Tensor = IDS, user: int = 0) -> Gradient:
    return expect(provider.answer(LossGradient(images, ids, user, 0)), Gradient)


def given(tmp_path: Path, **terms: Any) -> Tensor:
    """Return what is given of :data:`EXACT`, two rows of three values, of each image's own loss."""
    request = LossGradient(torch.rand(2, 3, 1, 1), torch.arange(2), 0, 0)
    return 2 * Defence(DefenceConfig(**terms), 0, tmp_path).applied(EXACT, request).flatten(1)


def test_without_terms_answers_are_bit_for_bit_those_of_a_provider_without_a_defence(
    start: Start, provider: Provider
) -> None:
    assert torch.equal(asked(start()).gradient, asked(provider).gradient)
    assert (asked(start()).loss, asked(start()).correct) == (asked(provider).loss, asked(provider).correct)


def test_clipping_shortens_the_gradient_of_an_image_that_is_too_long_and_no_other(tmp_path: Path) -> None:
    clipped = given(tmp_path, clip=2.0)
    assert clipped[0].tolist() == pytest.approx([1.2, 1.6, 0.0])
    assert clipped[1].tolist() == pytest.approx([0.0, 0.5, -1.0])


def test_the_largest_entries_are_kept(tmp_path: Path) -> None:
    assert given(tmp_path, keep=1 / 3).tolist() == [[0.0, 4.0, 0.0], [0.0, 0.0, -1.0]]


def test_signs_have_the_mean_magnitude_of_the_entries_that_are_left(tmp_path: Path) -> None:
    assert given(tmp_path, sign=True).tolist() == [[3.5, 3.5, 0.0], [0.0, 0.75, -0.75]]
    assert given(tmp_path, sign=True, keep=1 / 3).tolist() == [[0.0, 4.0, 0.0], [0.0, 0.0, -1.0]]


@pytest.mark.parametrize(("terms", "size"), [({"clip": 2.0}, 2.0), ({}, None)])
def test_noise_is_as_long_as_its_share_of_the_clip_or_of_the_gradient_says(
    start: Start, terms: dict[str, float], size: float | None
) -> None:
    exact, noisy = (4 * asked(start(**terms, **more)).gradient.flatten(1) for more in ({}, {"noise": 0.5}))
    expected = exact.norm(dim=1) if size is None else torch.full((4,), size)
    assert torch.allclose((noisy - exact).norm(dim=1), 0.5 * expected, rtol=0.2)


def test_an_image_has_the_same_noise_in_every_request_and_process_and_another_under_another_id(start: Start) -> None:
    first = asked(start(noise=1.0)).gradient
    again = asked(start(noise=1.0), IMAGES.flip(0), IDS.flip(0), user=3).gradient.flip(0)
    assert torch.allclose(first, again, atol=1e-6)
    # 7 and 0 have one label here, so that the noise alone tells them apart.
    labels = torch.zeros(20, dtype=torch.int64)
    provider = start(noise=1.0)
    provider._labels = labels
    assert not torch.allclose(asked(provider).gradient[0], asked(provider, ids=IDS.roll(1)).gradient[0], atol=1e-4)


def test_an_images_gradient_is_the_same_whatever_else_is_asked_with_it(start: Start) -> None:
    provider = start(clip=0.01, noise=0.5, keep=0.5)
    alone, together = asked(provider, IMAGES[:1], IDS[:1]).gradient, asked(provider).gradient
    assert torch.allclose(alone[0], 4 * together[0], atol=1e-5)


def test_gradients_are_of_the_loss_with_smoothed_labels(start: Start, psi: State, tiny: ImageStore) -> None:
    classifier, images = Classifier("resnet20", 10).eval(), IMAGES.clone().requires_grad_()
    load_into(classifier, psi, "psi")
    labels = F.one_hot(load_labels(tiny.folder, "train")[IDS], 10) * 0.7 + 0.03
    loss = -(labels * classifier(images).log_softmax(1)).sum(1).mean()
    (expected,) = torch.autograd.grad(loss, images)
    answer = asked(start(label_smoothing=0.3))
    assert torch.allclose(answer.gradient, expected, rtol=1e-3, atol=1e-6)
    assert answer.loss == pytest.approx(loss.item(), rel=1e-5)


def test_losses_that_are_withheld_do_not_depend_on_labels_and_gradients_do(start: Start) -> None:
    provider = start(withhold_losses=True)
    one, other = asked(provider), asked(provider, ids=IDS.roll(1))
    assert (one.loss, one.correct) == (other.loss, other.correct)
    assert one.correct == 4
    assert not torch.equal(one.gradient, other.gradient)
    assert torch.equal(one.gradient, asked(start()).gradient)


def test_a_request_for_too_few_images_is_refused(start: Start) -> None:
    provider = start(least_batch=3)
    with pytest.raises(ExchangeError, match=r"^2 images are too few for a gradient: ask for 3 or more$"):
        asked(provider, IMAGES[:2], IDS[:2])
    asked(provider, IMAGES[:3], IDS[:3])


def test_a_user_may_ask_about_as_many_images_as_its_budget_has_in_whatever_processes(start: Start) -> None:
    asked(start(most_images=7))
    asked(start(most_images=7), IMAGES[:2], IDS[:2])
    refusal = r"^user 0 has asked for gradients of 6 of 7 images: 2 more are too many \(provider.defence.most_images\)$"
    for _ in range(2):
        with pytest.raises(ExchangeError, match=refusal):
            asked(start(most_images=7), IMAGES[1:3], IDS[1:3])
    asked(start(most_images=7), IMAGES[3:], IDS[3:])
    asked(start(most_images=7), user=1)


def test_a_request_that_comes_again_after_an_interruption_costs_nothing_and_is_answered_as_before(start: Start) -> None:
    provider = start(most_images=4)
    first = asked(provider)
    for again in (provider, start(most_images=4)):
        assert torch.equal(asked(again).gradient, first.gradient)


def test_what_a_user_says_that_it_has_asked_counts_for_nothing(start: Start) -> None:
    provider, request = start(most_images=4), LossGradient(IMAGES, IDS, 0, 0)
    provider.answer(request)
    with pytest.raises(ExchangeError, match="of 4 of 4 images"):
        provider.answer(replace(request, protected=IMAGES.flip(0)))


def test_a_malformed_request_is_not_counted(start: Start) -> None:
    provider = start(most_images=4)
    with pytest.raises(ExchangeError, match="image id"):
        asked(provider, ids=IDS - 20)
    asked(provider)


def test_what_a_guest_asks_is_not_remembered_as_a_users(start: Start, tmp_path: Path) -> None:
    memory = Memory(tmp_path / "memory", 4, 8)
    provider = start(memory)
    asked(provider, user=guest(0))
    assert len(memory.recall(0).ids) == 0
    assert not list((tmp_path / "memory").glob("*"))
    asked(provider)
    assert len(memory.recall(0).ids) == 4
