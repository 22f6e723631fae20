"""Classifiers of single users, which the provider trains lesson by lesson."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from roles.common.compute import Compute
from roles.common.exchange import Classify, Exam, ExchangeError, Lesson, LossValues, Predictions, Request, expect
from roles.common.recipes import Recipe
from roles.provider.classifiers import Adaptation, ClassifierName
from roles.provider.provider import Provider
from roles.provider.pupils import Pupils
from roles.provider.training import ClassifierConfig

Start = Callable[..., Pupils]


@pytest.fixture
def start(tmp_path: Path, compute: Compute) -> Start:
    """Return a function that opens the pupils of three users: Tanaka's, none of its own, pixel-based."""

    def make(name: ClassifierName = "resnet20", **recipe: object) -> Pupils:
        training = Recipe.model_validate({"epochs": 20, "batch_size": 4, "lr": 0.05} | recipe)
        adaptations: list[Adaptation | None] = ["tanaka", None, "pixel"]
        config = ClassifierConfig(name=name, training=training)
        return Pupils(tmp_path / "pupils", config, 10, adaptations, [8, 8, 8], compute)

    return make


def said(answer: LossValues) -> tuple[float, int]:
    return answer.loss, answer.correct


def lesson(brightness: int = 0) -> tuple[Tensor, Tensor]:
    """Return dark images of class 3 and light ones of class 7, in turn."""
    labels = torch.tensor([3, 7] * 4)
    images = torch.where(labels == 3, 40 + brightness, 200).view(-1, 1, 1, 1).expand(8, 3, 8, 8)
    return images.to(torch.uint8).contiguous(), labels


@pytest.mark.parametrize("user", [0, 2])
def test_a_pupil_learns_what_it_is_taught(start: Start, user: int) -> None:
    pupils = start()
    losses = [pupils.lesson(user, number, *lesson()).loss for number in range(10)]
    assert losses[-1] < 0.5 * losses[0]
    exam = pupils.exam(user, 10, *lesson())
    assert exam.correct == 8
    assert pupils.classify(user, lesson()[0]).tolist() == [3, 7] * 4


def test_a_pupil_goes_on_in_another_process_as_it_would_have_in_this(start: Start, tmp_path: Path) -> None:
    one = start()
    expected = [said(one.lesson(0, number, *lesson(number))) for number in range(4)]
    expected.append(said(one.exam(0, 4, *lesson())))
    (tmp_path / "pupils" / "user-0000.safetensors").unlink()
    answers = [said(start().lesson(0, number, *lesson(number))) for number in range(4)]
    assert [*answers, said(start().exam(0, 4, *lesson()))] == expected


def test_dropout_is_the_same_again_too(start: Start, tmp_path: Path) -> None:
    images = torch.arange(4 * 3 * 32 * 32).remainder(251).to(torch.uint8).view(4, 3, 32, 32)
    labels = torch.tensor([0, 1, 2, 3])
    expected = said(start("vgg16_bn").lesson(2, 0, images, labels))
    (tmp_path / "pupils" / "user-0002.safetensors").unlink()
    torch.manual_seed(99)
    assert said(start("vgg16_bn").lesson(2, 0, images, labels)) == expected


def test_the_same_request_again_is_answered_as_before_and_teaches_nothing(start: Start) -> None:
    pupils = start()
    first = said(pupils.lesson(0, 0, *lesson()))
    assert said(pupils.lesson(0, 0, *lesson())) == first
    assert said(pupils.lesson(0, 1, *lesson())) != first
    exam = said(pupils.exam(0, 2, *lesson()))
    assert said(pupils.exam(0, 2, *lesson())) == exam


@pytest.mark.parametrize("number", [0, 3, -1])
def test_a_request_out_of_turn_is_refused(start: Start, number: int) -> None:
    pupils = start()
    for past in range(2):
        pupils.lesson(0, past, *lesson())
    with pytest.raises(ExchangeError, match=rf"^user 0 sent lesson {number}: its last was 1, expected 2$"):
        pupils.lesson(0, number, *lesson())


def test_users_of_the_same_kind_have_pupils_of_their_own(tmp_path: Path, compute: Compute) -> None:
    config = ClassifierConfig(training=Recipe(epochs=1, batch_size=4, lr=0.05))
    pupils = Pupils(tmp_path, config, 10, ["tanaka", "tanaka"], [8, 8], compute)
    assert said(pupils.lesson(0, 0, *lesson())) != said(pupils.lesson(1, 0, *lesson()))


@pytest.mark.parametrize("user", [1, 3, -1])
def test_a_user_without_a_classifier_of_its_own_is_refused(start: Start, user: int) -> None:
    with pytest.raises(ExchangeError, match=rf"^user {user} has no classifier of its own$"):
        start().lesson(user, 0, *lesson())
    with pytest.raises(ExchangeError, match=rf"^user {user} has no classifier of its own$"):
        start().classify(user, lesson()[0])


def test_nothing_is_classified_before_an_exam(start: Start) -> None:
    pupils = start()
    pupils.lesson(0, 0, *lesson())
    with pytest.raises(ExchangeError, match=r"^the classifier of user 0 has not passed an exam$"):
        pupils.classify(0, lesson()[0])


def test_the_classifier_with_the_best_exam_is_the_one_that_serves(start: Start) -> None:
    pupils = start()
    for number in range(10):
        pupils.lesson(0, number, *lesson())
    before = pupils.exam(0, 10, *lesson())
    images, labels = lesson()
    # Taught the opposite, the next exam is worse.
    for number in range(11, 21):
        pupils.lesson(0, number, images, 10 - labels)
    after = pupils.exam(0, 21, images, labels)
    assert after.loss > before.loss
    assert after.correct < before.correct == 8
    assert pupils.classify(0, images).tolist() == labels.tolist()


def test_lessons_past_the_end_of_the_recipe_change_nothing(start: Start) -> None:
    # One and a half epochs of 8 images in batches of 4: 3 steps.
    pupils = start(epochs=1.5)
    for number in range(2):
        pupils.lesson(0, number, *lesson())
    before = said(pupils.exam(0, 2, *lesson()))
    assert said(pupils.lesson(0, 3, *lesson())) == before
    assert said(pupils.exam(0, 4, *lesson())) == before


def test_a_pupil_that_diverges_says_so(start: Start) -> None:
    pupils = start(lr=1e30)
    reason = r"^the classifier of user 0 diverged in lesson 0: lower classifier.training.lr$"
    with pytest.raises(ValueError, match=reason):
        pupils.lesson(0, 0, *lesson())


def test_the_images_of_a_user_with_a_key_are_classified_by_its_own_classifier_and_not_by_psi(
    start: Start, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    pupils, (images, labels) = start(), lesson()
    for number in range(10):
        pupils.lesson(2, number, images, labels)
    pupils.exam(2, 10, images, labels)
    monkeypatch.setattr(provider, "_pupils", pupils)
    assert torch.equal(expect(provider.answer(Classify(images, 2)), Predictions).labels, labels)
    assert not torch.equal(expect(provider.answer(Classify(images)), Predictions).labels, labels)


def test_the_provider_looks_up_the_labels_of_lessons_in_the_train_set_and_of_exams_in_the_validation_set(
    start: Start, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    pupils = start()
    asked: dict[str, list[int]] = {}
    for kind in ("lesson", "exam"):
        monkeypatch.setattr(pupils, kind, lambda u, n, i, labels, kind=kind: asked.update({kind: labels.tolist()}))
    monkeypatch.setattr(provider, "_pupils", pupils)
    images, ids = torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.tensor([7, 0, 11, 7])
    provider.answer(Lesson(0, 0, images, ids))
    provider.answer(Exam(0, 0, images, ids))
    assert asked == {"lesson": provider._labels[ids].tolist(), "exam": provider._validation_labels[ids].tolist()}
    assert asked["lesson"] != asked["exam"]
    refused: list[tuple[Request, str]] = [
        (Lesson(0, 0, images.float(), ids), "images are torch.float32"),
        (Lesson(0, 0, images, ids[:2]), "image ids are"),
        (Exam(0, 0, images, ids + 10**6), "image id 1000007 is unknown"),
    ]
    for request, reason in refused:
        with pytest.raises(ExchangeError, match=reason):
            provider.answer(request)
