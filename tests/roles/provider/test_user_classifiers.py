"""Classifiers of single users, which the provider trains request by request."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from roles.common.compute import Compute
from roles.common.config.classifier import ClassifierConfig, ClassifierName
from roles.common.config.recipe import Recipe
from roles.common.exchange import (
    Classify,
    ExchangeError,
    FitClassifier,
    LossValues,
    Predictions,
    Request,
    ValidateClassifier,
    expect,
)
from roles.provider.classifiers import Adaptation
from roles.provider.provider import Provider
from roles.provider.user_classifiers import UserClassifiers

Start = Callable[..., UserClassifiers]


@pytest.fixture
def start(tmp_path: Path, compute: Compute) -> Start:
    """Return a function that opens those of four users: Tanaka's, none of its own, pixel-based, block-wise."""

    def make(name: ClassifierName = "resnet20", side: int = 8, **recipe: object) -> UserClassifiers:
        training = Recipe.model_validate({"epochs": 20, "batch_size": 4, "lr": 0.05} | recipe)
        adaptations: list[Adaptation | None] = ["tanaka", None, "pixel", "block"]
        config = ClassifierConfig(name=name, training=training)
        return UserClassifiers(tmp_path / "own", config, 10, side, adaptations, [8, 8, 8, 8], compute)

    return make


def said(answer: LossValues) -> tuple[float, int]:
    return answer.loss, answer.correct


def batch(brightness: int = 0) -> tuple[Tensor, Tensor]:
    """Return dark images of class 3 and light ones of class 7, in turn."""
    labels = torch.tensor([3, 7] * 4)
    images = torch.where(labels == 3, 40 + brightness, 200).view(-1, 1, 1, 1).expand(8, 3, 8, 8)
    return images.to(torch.uint8).contiguous(), labels


@pytest.mark.parametrize(
    ("name", "user", "recipe"),
    [("resnet20", 0, {}), ("resnet20", 2, {}), ("vit", 3, {"optimiser": "adam", "lr": 0.001})],
)
def test_a_classifier_learns_from_what_it_is_sent(
    start: Start, name: ClassifierName, user: int, recipe: dict[str, object]
) -> None:
    classifiers = start(name, **recipe)
    losses = [classifiers.fit(user, number, *batch()).loss for number in range(10)]
    assert losses[-1] < 0.5 * losses[0]
    validated = classifiers.validate(user, 10, *batch())
    assert validated.correct == 8
    assert classifiers.classify(user, batch()[0]).tolist() == [3, 7] * 4


def test_a_classifier_goes_on_in_another_process_as_it_would_have_in_this(start: Start, tmp_path: Path) -> None:
    one = start()
    expected = [said(one.fit(0, number, *batch(number))) for number in range(4)]
    expected.append(said(one.validate(0, 4, *batch())))
    (tmp_path / "own" / "user-0000.safetensors").unlink()
    answers = [said(start().fit(0, number, *batch(number))) for number in range(4)]
    assert [*answers, said(start().validate(0, 4, *batch()))] == expected


def test_dropout_is_the_same_again_too(start: Start, tmp_path: Path) -> None:
    images = torch.arange(4 * 3 * 32 * 32).remainder(251).to(torch.uint8).view(4, 3, 32, 32)
    labels = torch.tensor([0, 1, 2, 3])
    expected = said(start("vgg16_bn", 32).fit(2, 0, images, labels))
    (tmp_path / "own" / "user-0002.safetensors").unlink()
    torch.manual_seed(99)
    assert said(start("vgg16_bn", 32).fit(2, 0, images, labels)) == expected


def test_the_same_request_again_is_answered_as_before_and_changes_nothing(start: Start) -> None:
    classifiers = start()
    first = said(classifiers.fit(0, 0, *batch()))
    assert said(classifiers.fit(0, 0, *batch())) == first
    assert said(classifiers.fit(0, 1, *batch())) != first
    validated = said(classifiers.validate(0, 2, *batch()))
    assert said(classifiers.validate(0, 2, *batch())) == validated


@pytest.mark.parametrize("number", [0, 3, -1])
def test_a_request_out_of_turn_is_refused(start: Start, number: int) -> None:
    classifiers = start()
    for past in range(2):
        classifiers.fit(0, past, *batch())
    with pytest.raises(ExchangeError, match=rf"^user 0 sent request {number}: its last was 1, expected 2$"):
        classifiers.fit(0, number, *batch())


def test_users_of_the_same_kind_have_classifiers_of_their_own(tmp_path: Path, compute: Compute) -> None:
    config = ClassifierConfig(training=Recipe(epochs=1, batch_size=4, lr=0.05))
    classifiers = UserClassifiers(tmp_path, config, 10, 8, ["tanaka", "tanaka"], [8, 8], compute)
    assert said(classifiers.fit(0, 0, *batch())) != said(classifiers.fit(1, 0, *batch()))


@pytest.mark.parametrize("user", [1, 4, -1])
def test_a_user_without_a_classifier_of_its_own_is_refused(start: Start, user: int) -> None:
    with pytest.raises(ExchangeError, match=rf"^user {user} has no classifier of its own$"):
        start().fit(user, 0, *batch())
    with pytest.raises(ExchangeError, match=rf"^user {user} has no classifier of its own$"):
        start().classify(user, batch()[0])


def test_nothing_is_classified_before_a_validation(start: Start) -> None:
    classifiers = start()
    classifiers.fit(0, 0, *batch())
    with pytest.raises(ExchangeError, match=r"^the classifier of user 0 has not been validated$"):
        classifiers.classify(0, batch()[0])


def test_the_classifier_with_the_best_validation_is_the_one_that_serves(start: Start) -> None:
    classifiers = start()
    for number in range(10):
        classifiers.fit(0, number, *batch())
    before = classifiers.validate(0, 10, *batch())
    images, labels = batch()
    # Trained on the opposite, the next validation is worse.
    for number in range(11, 21):
        classifiers.fit(0, number, images, 10 - labels)
    after = classifiers.validate(0, 21, images, labels)
    assert after.loss > before.loss
    assert after.correct < before.correct == 8
    assert classifiers.classify(0, images).tolist() == labels.tolist()


def test_requests_past_the_end_of_the_recipe_change_nothing(start: Start) -> None:
    # One and a half epochs of 8 images in batches of 4: 3 steps.
    classifiers = start(epochs=1.5)
    for number in range(2):
        classifiers.fit(0, number, *batch())
    before = said(classifiers.validate(0, 2, *batch()))
    assert said(classifiers.fit(0, 3, *batch())) == before
    assert said(classifiers.validate(0, 4, *batch())) == before


def test_a_classifier_that_diverges_says_so(start: Start) -> None:
    classifiers = start(lr=1e30)
    reason = r"^the classifier of user 0 diverged at request 0: lower classifier.training.lr$"
    with pytest.raises(ValueError, match=reason):
        classifiers.fit(0, 0, *batch())


def test_the_images_of_a_user_with_a_key_are_classified_by_its_own_classifier_and_not_by_psi(
    start: Start, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifiers, (images, labels) = start(), batch()
    for number in range(10):
        classifiers.fit(2, number, images, labels)
    classifiers.validate(2, 10, images, labels)
    monkeypatch.setattr(provider, "_user_classifiers", classifiers)
    assert torch.equal(expect(provider.answer(Classify(images, 2)), Predictions).labels, labels)
    assert not torch.equal(expect(provider.answer(Classify(images)), Predictions).labels, labels)


def test_the_provider_looks_up_the_labels_to_fit_in_the_train_set_and_to_validate_in_the_validation_set(
    start: Start, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifiers = start()
    asked: dict[str, list[int]] = {}
    for kind in ("fit", "validate"):
        monkeypatch.setattr(classifiers, kind, lambda u, n, i, labels, kind=kind: asked.update({kind: labels.tolist()}))
    monkeypatch.setattr(provider, "_user_classifiers", classifiers)
    images, ids = torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.tensor([7, 0, 11, 7])
    provider.answer(FitClassifier(0, 0, images, ids))
    provider.answer(ValidateClassifier(0, 0, images, ids))
    assert asked == {"fit": provider._labels[ids].tolist(), "validate": provider._validation_labels[ids].tolist()}
    assert asked["fit"] != asked["validate"]
    refused: list[tuple[Request, str]] = [
        (FitClassifier(0, 0, images.float(), ids), "images are torch.float32"),
        (FitClassifier(0, 0, images, ids[:2]), "image ids are"),
        (ValidateClassifier(0, 0, images, ids + 10**6), "image id 1000007 is unknown"),
    ]
    for request, reason in refused:
        with pytest.raises(ExchangeError, match=reason):
            provider.answer(request)
