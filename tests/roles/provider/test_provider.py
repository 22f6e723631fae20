import copy
import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from roles.common.compute import Compute
from roles.common.data import ImageStore
from roles.common.exchange import (
    Classify,
    ExchangeError,
    FitClassifier,
    Gradient,
    ImageIds,
    Losses,
    LossGradient,
    LossValues,
    Predictions,
    Published,
    Recall,
    Reconstruct,
    Request,
    TrainingImages,
    expect,
    guest,
    other_classifier,
)
from roles.common.images import to_unit
from roles.common.labels import load_labels
from roles.common.weights import State, cpu_state, digest, load_into
from roles.provider.classifiers import Classifier
from roles.provider.provider import Provider
from roles.provider.user_classifiers import UserClassifiers

IDS = torch.tensor([7, 0, 11, 7])
USER = 0


def protected(seed: int = 0, count: int = 4) -> Tensor:
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def own_psi(state: State) -> Classifier:
    classifier = Classifier("resnet20", 10).eval()
    load_into(classifier, state, "psi")
    return classifier


class Linear(nn.Module):
    """Logits (s, 0, ..., 0), where s is twice the sum of an image: everything about it can be worked out by hand."""

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.pad(2 * images.sum(dim=(1, 2, 3)).unsqueeze(1), (0, 9))


@pytest.fixture
def by_hand(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> Provider:
    monkeypatch.setattr(provider, "_psi", Linear())
    monkeypatch.setattr(provider, "_labels", torch.tensor([1, 0]))
    return provider


def test_a_user_is_told_its_images_and_the_validation_images(provider: Provider) -> None:
    answer = expect(provider.answer(TrainingImages(1)), ImageIds)
    assert answer.train.tolist() == [0, 1]
    assert answer.validation.tolist() == [2, 4, 6]
    assert len(expect(provider.answer(TrainingImages(0)), ImageIds).train) > 2


def test_only_images_of_its_own_are_a_users_to_ask_about_and_any_are_a_guests(provider: Provider) -> None:
    own, others = torch.tensor([1, 0]), torch.tensor([0, 2])
    images = protected(count=2)
    for request in (LossGradient(images, own, 1, 0), LossGradient(images, others, guest(0), 0)):
        expect(provider.answer(request), Gradient)
    refused: list[tuple[Request, str]] = [
        (LossGradient(images, others, 1, 0), "image id 2 is not of user 1's X'"),
        (LossGradient(images, own, 2, 0), "user 2 is unknown"),
        (FitClassifier(1, 0, (255 * images).byte(), others), "image id 2 is not of user 1's X'"),
    ]
    for asked, reason in refused:
        with pytest.raises(ExchangeError, match=reason):
            provider.answer(asked)


def test_the_gradient_of_black_images_is_what_the_formula_gives_by_hand(by_hand: Provider) -> None:
    # All logits are 0: every class has p = 1/10, L = ln 10, dL/ds = p - [y = 0], ds/dx = 2, and a mean over 2 images.
    answer = expect(by_hand.answer(LossGradient(torch.zeros(2, 3, 8, 8), torch.tensor([0, 1]), USER, 0)), Gradient)
    assert answer.loss == pytest.approx(math.log(10))
    assert answer.gradient[0].unique().tolist() == pytest.approx([0.1 * 2 / 2])
    assert answer.gradient[1].unique().tolist() == pytest.approx([(0.1 - 1) * 2 / 2])
    assert answer.correct == 1  # of the labels 1 and 0 against the predictions 0 and 0


def test_the_gradient_is_that_of_the_mean_so_a_batch_twice_over_halves_it(provider: Provider) -> None:
    once = expect(provider.answer(LossGradient(protected(), IDS, USER, 0)), Gradient)
    twice = expect(provider.answer(LossGradient(protected().repeat(2, 1, 1, 1), IDS.repeat(2), USER, 0)), Gradient)
    assert twice.loss == pytest.approx(once.loss)
    assert twice.correct == 2 * once.correct
    assert torch.allclose(2 * twice.gradient[:4], once.gradient, rtol=1e-3, atol=1e-7)


def test_the_gradient_is_that_of_autograd_through_psi(provider: Provider, psi: State, tiny: ImageStore) -> None:
    answer = expect(provider.answer(LossGradient(protected(), IDS, USER, 0)), Gradient)
    classifier, images = own_psi(psi), protected().requires_grad_()
    chances = classifier(images).softmax(1)
    labels = load_labels(tiny.folder, "train")[IDS]
    loss = -chances[torch.arange(4), labels].log().sum() / 4
    loss.backward()
    assert images.grad is not None
    assert torch.allclose(answer.gradient, images.grad, rtol=1e-3, atol=1e-6)
    assert answer.loss == pytest.approx(loss.item(), rel=1e-5)
    assert answer.correct == int((chances.argmax(1) == labels).sum())
    assert answer.gradient.dtype == torch.float32
    assert not answer.gradient.requires_grad


def test_a_small_step_against_the_gradient_lowers_the_loss(provider: Provider) -> None:
    images = 0.25 + protected() / 2
    answer = expect(provider.answer(LossGradient(images, IDS, USER, 0)), Gradient)
    step = 0.01 * answer.gradient / answer.gradient.abs().max()
    assert expect(provider.answer(LossGradient(images - step, IDS, USER, 0)), Gradient).loss < answer.loss


def test_validation_ids_are_positions_in_the_validation_set(provider: Provider, psi: State, tiny: ImageStore) -> None:
    labels = {split: load_labels(tiny.folder, split) for split in ("train", "validation")}
    ids = (labels["train"][:144] != labels["validation"]).nonzero().view(-1)[:4]
    with torch.no_grad():
        logits = own_psi(psi)(protected())
    losses = expect(provider.answer(Losses(protected(), ids)), LossValues)
    trained = expect(provider.answer(LossGradient(protected(), ids, USER, 0)), Gradient)
    expected = {split: nn.functional.cross_entropy(logits, labels[split][ids]).item() for split in labels}
    assert losses.loss == pytest.approx(expected["validation"], rel=1e-5)
    assert trained.loss == pytest.approx(expected["train"], rel=1e-5)
    assert expected["validation"] != pytest.approx(expected["train"], rel=1e-3)
    assert losses.correct == int((logits.argmax(1) == labels["validation"][ids]).sum())


def test_bitmaps_are_classified_as_psi_classifies_them(provider: Provider, psi: State, tiny: ImageStore) -> None:
    images = tiny.images("test")[:9]
    answer = expect(provider.answer(Classify(images)), Predictions)
    with torch.no_grad():
        assert torch.equal(answer.labels, own_psi(psi)(to_unit(images)).argmax(1))
    assert answer.labels.dtype == torch.int64


def test_bitmaps_are_classified_by_another_classifier_where_it_is_asked_for(
    tiny: ImageStore, compute: Compute, psi: State, no_user_classifiers: UserClassifiers
) -> None:
    torch.manual_seed(1)
    other = cpu_state(Classifier("resnet20", 10))
    provider = Provider("resnet20", psi, tiny, compute, [], IDS, no_user_classifiers, others=[("resnet20", other)])
    images = tiny.images("test")[:40]
    with torch.no_grad():
        expected = own_psi(other)(to_unit(images)).argmax(1)
    assert torch.equal(expect(provider.answer(Classify(images, other_classifier(0))), Predictions).labels, expected)
    assert not torch.equal(expect(provider.answer(Classify(images)), Predictions).labels, expected)
    with pytest.raises(ExchangeError, match=r"^other classifier 1 is unknown: there are 1$"):
        provider.answer(Classify(images, other_classifier(1)))


def test_no_answer_changes_psi_not_even_the_buffers_of_batch_norm(provider: Provider, psi: State) -> None:
    before = provider.digest()
    assert before == digest(psi)
    for seed in range(3):
        provider.answer(LossGradient(protected(seed), IDS, USER, 0))
        provider.answer(Losses(protected(seed), IDS))
        provider.answer(Classify((255 * protected(seed)).to(torch.uint8)))
        provider.answer(TrainingImages(1))
    assert provider.digest() == before


def test_the_same_question_gets_the_same_answer_whatever_was_asked_between(provider: Provider) -> None:
    first = expect(provider.answer(LossGradient(protected(), IDS, USER, 0)), Gradient)
    provider.answer(LossGradient(protected(1), IDS, USER, 0))
    provider.answer(Classify((255 * protected(2)).to(torch.uint8)))
    again = expect(provider.answer(LossGradient(protected(), IDS, USER, 0)), Gradient)
    assert torch.equal(again.gradient, first.gradient)
    assert (again.loss, again.correct) == (first.loss, first.correct)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_request_is_left_as_it_was(provider: Provider, layout: torch.memory_format) -> None:
    images = protected().contiguous(memory_format=layout)
    kept = images.clone()
    provider.answer(LossGradient(images, IDS, USER, 0))
    assert torch.equal(images, kept)
    assert not images.requires_grad


def with_value(value: float) -> Tensor:
    images = protected()
    images[3, 2, 7, 7] = value
    return images


BAD: dict[str, tuple[Request, str]] = {
    "unknown user": (TrainingImages(2), "user 2 is unknown: users are 0 to 1"),
    "negative user": (TrainingImages(-1), "user -1 is unknown"),
    "side": (
        LossGradient(torch.rand(4, 3, 8, 4), IDS, USER, 0),
        r"\(4, 3, 8, 4\), expected torch.float32 \(N, 3, 8, 8\)",
    ),
    "flat": (LossGradient(torch.rand(4, 192), IDS, USER, 0), r"\(4, 192\)"),
    "one image": (LossGradient(torch.rand(3, 8, 8), IDS, USER, 0), r"\(3, 8, 8\)"),
    "channels": (LossGradient(torch.rand(4, 1, 8, 8), IDS, USER, 0), r"\(4, 1, 8, 8\)"),
    "dtype": (LossGradient(protected().double(), IDS, USER, 0), "images are torch.float64"),
    "bitmap": (LossGradient((255 * protected()).to(torch.uint8), IDS, USER, 0), "images are torch.uint8"),
    "empty": (LossGradient(torch.rand(0, 3, 8, 8), IDS[:0], USER, 0), "with N > 0"),
    "nan": (LossGradient(with_value(torch.nan), IDS, USER, 0), r"finite values in \[0, 1\]"),
    "infinite": (LossGradient(with_value(torch.inf), IDS, USER, 0), r"finite values in \[0, 1\]"),
    "below 0": (LossGradient(with_value(-1e-6), IDS, USER, 0), r"finite values in \[0, 1\]"),
    "above 1": (LossGradient(with_value(1.0001), IDS, USER, 0), r"finite values in \[0, 1\]"),
    "too few ids": (
        LossGradient(protected(), IDS[:3], USER, 0),
        r"image ids are torch.int64 \(3,\), expected .*\(4,\)",
    ),
    "ids in a column": (LossGradient(protected(), IDS.unsqueeze(1), USER, 0), r"image ids are torch.int64 \(4, 1\)"),
    "float ids": (LossGradient(protected(), IDS.float(), USER, 0), "image ids are torch.float32"),
    "id too large": (LossGradient(protected(), IDS + 1290, USER, 0), "image id 1297 is unknown: ids are 0 to 1292"),
    "negative id": (LossGradient(protected(), IDS - 1, USER, 0), "image id -1 is unknown"),
    "validation id": (Losses(protected(), IDS + 140), "image id 147 is unknown: ids are 0 to 143"),
    "validation nan": (Losses(with_value(torch.nan), IDS), "finite values"),
    "float classify": (Classify(protected()), "images are torch.float32 .* expected torch.uint8"),
    "empty classify": (Classify(torch.zeros(0, 3, 8, 8, dtype=torch.uint8)), "with N > 0"),
    "recall": (Recall(0), "this provider keeps nothing of what its users send"),
    "reconstruct": (Reconstruct(0, torch.zeros(2, 3, 8, 8, dtype=torch.uint8)), "this provider is honest"),
    "float reconstruct": (Reconstruct(0, protected()), "images are torch.float32 .* expected torch.uint8"),
    "published": (Published(0), "the provider does not know what users have published"),
    "channels classify": (Classify(torch.zeros(2, 4, 8, 8, dtype=torch.uint8)), r"\(2, 4, 8, 8\)"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_is_one_line_and_the_next_good_one_is_answered(name: str, provider: Provider) -> None:
    request, reason = BAD[name]
    with pytest.raises(ExchangeError, match=reason) as caught:
        provider.answer(request)
    assert "\n" not in str(caught.value)
    good = expect(provider.answer(LossGradient(protected(), IDS, USER, 0)), Gradient)
    assert good.gradient.shape == (4, 3, 8, 8)


@settings(max_examples=30, deadline=None)
@given(shape=st.lists(st.integers(0, 9), max_size=5), dtype=st.sampled_from([torch.float32, torch.int64]))
def test_images_of_any_other_shape_or_type_are_refused(
    provider: Provider, shape: list[int], dtype: torch.dtype
) -> None:
    images = torch.zeros(shape, dtype=dtype)
    assume(not (dtype == torch.float32 and len(shape) == 4 and shape[0] > 0 and shape[1:] == [3, 8, 8]))
    for request in (LossGradient(images, IDS, USER, 0), Losses(images, IDS), Classify(images)):
        with pytest.raises(ExchangeError, match="images are"):
            provider.answer(request)


def test_weights_of_another_classifier_are_refused(
    tiny: ImageStore, compute: Compute, psi: State, no_user_classifiers: UserClassifiers
) -> None:
    damaged = copy.copy(psi)
    damaged.popitem()
    with pytest.raises(ValueError, match=r"^psi: not weights of this network"):
        Provider("resnet20", damaged, tiny, compute, [], torch.arange(2), no_user_classifiers)


def test_psi_is_frozen_and_in_evaluation_mode(provider: Provider) -> None:
    assert not provider._psi.training
    assert not any(value.requires_grad for value in provider._psi.parameters())
