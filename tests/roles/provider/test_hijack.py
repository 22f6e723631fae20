"""A hostile provider: what it sends to whom, and that it loses nothing when it is interrupted."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from roles.common.compute import Compute
from roles.common.config.provider import DefenceConfig, HijackConfig, ProviderConfig
from roles.common.data import ImageStore
from roles.common.exchange import (
    ExchangeError,
    Gradient,
    Losses,
    LossGradient,
    LossValues,
    Reconstruct,
    Reconstructions,
    expect,
    guest,
)
from roles.common.images import to_bitmap, to_unit
from roles.common.weights import State
from roles.provider.defence import Defence
from roles.provider.hijack import Hijacker
from roles.provider.provider import Provider
from roles.provider.steering import Steering, nearest_move
from roles.provider.user_classifiers import UserClassifiers

SMALL = {"width": 4, "depth": 2, "shift": 1, "flip": False, "pretraining": 3}
KINDS = ("fsha", "pairs")
USER = 0


def request(number: int, user: int = USER, count: int = 8) -> LossGradient:
    stream = torch.Generator().manual_seed(number)
    images = torch.rand(count, 3, 8, 8, generator=stream)
    return LossGradient(images, torch.randint(200, (count,), generator=stream), user, number * count)


@pytest.fixture
def hostile(
    psi: State, tiny: ImageStore, compute: Compute, no_user_classifiers: UserClassifiers, tmp_path: Path
) -> Any:
    """Return a function that opens the provider of a folder: each time as another process would."""

    def opened(
        kind: str, folder: str = "one", defence: Mapping[str, object] | None = None, **changes: object
    ) -> Provider:
        config = ProviderConfig(hijack=(HijackConfig.model_validate({"kind": kind, **SMALL, **changes}),))
        hijacker = Hijacker(tmp_path / folder, config.hijack_of, 0, tiny, compute)
        assignment, validation = [torch.arange(tiny.counts["train"])] * 2, torch.arange(4)
        own = (psi, tiny, compute, assignment, validation, no_user_classifiers)
        terms = None
        if defence is not None:
            terms = Defence(DefenceConfig.model_validate(defence), 0, tmp_path / folder / "asked")
        return Provider("resnet20", *own, defence=terms, hijacker=hijacker)

    return opened


@pytest.mark.parametrize("kind", KINDS)
def test_those_who_are_not_named_get_psis_answers_bit_by_bit(kind: str, hostile: Any, provider: Provider) -> None:
    other = hostile(kind, users=[1])
    for number in range(3):
        other.answer(request(number, user=1))
        got, honest = (expect(one.answer(request(number)), Gradient) for one in (other, provider))
        assert torch.equal(got.gradient, honest.gradient)
        assert (got.loss, got.correct) == (honest.loss, honest.correct)
    asked = Losses(request(0).protected, torch.arange(8), USER)
    assert vars(other.answer(asked)) == vars(provider.answer(asked))
    assert other.digest() == provider.digest()


@pytest.mark.parametrize("kind", KINDS)
def test_a_hijacked_user_gets_another_direction(kind: str, hostile: Any, provider: Provider) -> None:
    got, honest = (expect(one.answer(request(0)), Gradient).gradient for one in (hostile(kind), provider))
    assert abs(torch.cosine_similarity(got.flatten(), honest.flatten(), dim=0).item()) < 0.5
    assert got.dtype == torch.float32


def test_gradients_by_pairs_are_as_long_as_psis_and_by_fsha_they_do_not_depend_on_it(hostile: Any) -> None:
    asked, honest = request(0), Gradient(torch.rand(8, 3, 8, 8), 1.0, 1)
    twice = Gradient(2 * honest.gradient, 1.0, 1)
    for kind, factor in (("pairs", 2.0), ("fsha", 1.0)):
        hijackers = (hostile(kind, f"{kind}-{number}")._hijacker for number in range(2))
        once, other = (
            hijacker.answer(asked, one).gradient.norm().item()
            for hijacker, one in zip(hijackers, (honest, twice), strict=True)
        )
        assert other == pytest.approx(factor * once, rel=1e-4)
        assert (once == pytest.approx(honest.gradient.norm().item(), rel=1e-4)) == (kind == "pairs")


def test_with_all_of_the_honest_gradient_mixed_in_it_is_honest(hostile: Any, provider: Provider) -> None:
    honest = expect(provider.answer(request(0)), Gradient)
    got = expect(hostile("pairs", class_share=1.0, forge=False).answer(request(0)), Gradient)
    assert torch.allclose(got.gradient, honest.gradient, atol=0, rtol=1e-6)
    assert got.loss == honest.loss


def test_whoever_asks_in_a_study_and_is_no_user_is_not_hijacked(hostile: Any, provider: Provider) -> None:
    other = hostile("pairs")
    for user in (guest(0), guest(1)):
        got, honest = (expect(one.answer(request(0, user)), Gradient) for one in (other, provider))
        assert torch.equal(got.gradient, honest.gradient)
        assert (got.loss, got.correct) == (honest.loss, honest.correct)


def test_its_gradients_keep_to_its_published_terms_also_when_they_are_asked_for_again(hostile: Any) -> None:
    hostile_one = hostile("pairs", defence={"clip": 0.01, "noise": 0.5, "keep": 0.25, "sign": True})
    answers = [expect(hostile_one.answer(request(0)), Gradient).gradient.flatten(1) for _ in range(2)]
    assert torch.equal(*answers)
    for row in answers[0]:
        magnitudes = row[row != 0].abs()
        assert len(magnitudes) == 48  # a quarter of 3 x 8 x 8
        assert torch.allclose(magnitudes, magnitudes[0].expand(48))
    clipped = hostile("pairs", "clipped", defence={"clip": 0.01})
    own = 8 * expect(clipped.answer(request(0)), Gradient).gradient.flatten(1)
    assert torch.allclose(own.norm(dim=1), torch.full((8,), 0.01))


@pytest.mark.parametrize("kind", KINDS)
def test_it_goes_on_in_another_process_as_in_one_and_answers_the_same_request_as_before(
    kind: str, hostile: Any
) -> None:
    undisturbed = hostile(kind, "undisturbed")
    for number in range(3):
        expected = expect(undisturbed.answer(request(number)), Gradient)
        for _ in range(2):  # each by a provider that has never seen the user, but for what is on disk
            got = expect(hostile(kind, "disturbed").answer(request(number)), Gradient)
            assert torch.equal(got.gradient, expected.gradient)
            assert (got.loss, got.correct) == (expected.loss, expected.correct)
    images = to_bitmap(request(9).protected)
    estimates = [one.answer(Reconstruct(USER, images)).images for one in (undisturbed, hostile(kind, "disturbed"))]
    assert torch.equal(*estimates)


def steered(provider: Provider, x: Tensor, ids: Tensor, start: Tensor, steps: int) -> Tensor:
    """Return protected images that follow the gradients they are sent, as an h_theta that can be anything would."""
    logits = start.clone()
    for step in range(steps):
        protected = logits.sigmoid()
        answer = expect(provider.answer(LossGradient(protected, ids, USER, step * len(ids))), Gradient)
        direction = answer.gradient / answer.gradient.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)
        logits = logits - direction * protected * (1 - protected) * 4
    return logits.sigmoid()


def test_images_that_follow_its_gradients_become_what_it_can_invert(hostile: Any, tiny: ImageStore) -> None:
    ids = torch.arange(32)
    x = to_unit(tiny.images("train")[ids])
    start = torch.randn(len(ids), 3, 8, 8, generator=torch.Generator().manual_seed(0))
    provider = hostile("pairs", shift=0, lr=0.01)
    protected = steered(provider, x, ids, start, 40)

    def error(images: Tensor) -> float:
        estimates = expect(provider.answer(Reconstruct(USER, to_bitmap(images))), Reconstructions).images
        return float((to_unit(estimates) - x).square().mean())

    spread = float((x - x.mean(0)).square().mean())
    assert error(protected) < 0.6 * spread
    assert error(protected) < 0.7 * error(start.sigmoid())


def test_losses_are_made_up_so_that_they_fall_as_the_hijack_succeeds(
    hostile: Any, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Losses(request(0).protected, torch.arange(8), USER)
    true = expect(provider.answer(asked), LossValues)
    forging, truthful = hostile("pairs"), hostile("pairs", "two", forge=False)
    assert expect(forging.answer(asked), LossValues).loss == true.loss  # nothing is hijacked yet
    for one in (forging, truthful):
        one.answer(request(0))
    assert expect(truthful.answer(asked), LossValues).loss == true.loss
    made_up: list[LossValues] = []
    for error in (0.8, 0.2):
        monkeypatch.setattr(Steering, "error", lambda *_, error=error: error)
        made_up.append(expect(forging.answer(asked), LossValues))
    assert [one.loss for one in made_up] == pytest.approx([0.8 * math.log(10), 0.2 * math.log(10)])
    assert [one.correct for one in made_up] == [1, 5]  # of 8, e to the power of minus the loss


def test_whoever_asks_for_reconstructions_in_vain_is_told_why(hostile: Any, provider: Provider) -> None:
    asked = Reconstruct(USER, torch.zeros(2, 3, 8, 8, dtype=torch.uint8))
    for one, reason in (
        (provider, "this provider is honest"),
        (hostile("pairs", users=[1]), "user 0 is not hijacked"),
        (hostile("pairs", "two"), "user 0 has asked for no gradient yet"),
    ):
        with pytest.raises(ExchangeError, match=reason):
            one.answer(asked)


def test_the_nearest_move_is_the_one_that_was_made(tiny: ImageStore) -> None:
    x = to_unit(tiny.images("train")[:6])
    moved = torch.nn.functional.pad(x.flip(3), (2, 0, 0, 1))[:, :, 1:, :8]
    assert torch.equal(nearest_move(moved, x, 2, flip=True), moved)
    assert not torch.equal(nearest_move(moved, x, 2, flip=False), moved)
    assert torch.equal(nearest_move(moved, x, 0, flip=False), x)


def test_of_two_entries_that_name_a_user_the_first_counts() -> None:
    config = ProviderConfig.model_validate({"hijack": [{"kind": "pairs", "users": [1]}, {"class_share": 0.5}]})
    assert [config.hijack_of(user).describe() for user in (0, 1)] == ["fsha, class share 0.5", "pairs"]  # type: ignore[union-attr]
    assert ProviderConfig().hijack_of(0) is None


def test_an_entry_about_nobody_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 item"):
        HijackConfig.model_validate({"users": []})
