"""A user with a conventional protection, and a provider that only listens."""

import contextlib
import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from roles.common.config.user import BlockConfig, PixelConfig, Protection, TanakaConfig, UserConfig
from roles.common.data import ImageStore
from roles.common.exchange import (
    Answer,
    ExchangeError,
    FitClassifier,
    Gradient,
    ImageIds,
    LossValues,
    Request,
    TrainingImages,
    ValidateClassifier,
    drive,
)
from roles.common.protection import encryption_of, image_numbers
from roles.user import encrypted_training
from roles.user.encrypted_training import EncryptedTraining, encrypted_training_result

PROTECTIONS: list[Protection] = [
    TanakaConfig(kind="tanaka"),
    PixelConfig(kind="pixel"),
    PixelConfig(kind="pixel", key="per_image", shuffle=True),
    BlockConfig(kind="block"),
]
IDS = ImageIds(train=torch.arange(5, 15), validation=torch.arange(6))
Start = Callable[..., EncryptedTraining]


class Listener:
    """X' are the images 5 to 14 of the train set, so that requests of 4 images at most are 4, 4 and 2 an epoch."""

    def __init__(self, losses: list[float] | None = None) -> None:
        self.requests: list[Request] = []
        self._losses = iter(losses or [])

    def answer(self, request: Request) -> Answer:
        self.requests.append(request)
        if isinstance(request, TrainingImages):
            return IDS
        return LossValues(loss=next(self._losses, 1.0) if isinstance(request, ValidateClassifier) else 2.0, correct=1)

    def of_kind(self, kind: type[Any]) -> list[Any]:
        return [request for request in self.requests if isinstance(request, kind)]


@pytest.fixture(autouse=True)
def few_images_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encrypted_training, "FIT_IMAGES", 4)


@pytest.fixture
def start(tiny: ImageStore) -> Start:
    """Return a function that makes the training of user 1, three epochs without augmentation unless told otherwise."""

    def make(protection: Protection, epochs: float = 3, **changes: object) -> EncryptedTraining:
        config = UserConfig.model_validate({"protection": protection, "crop_padding": 0, "flip": False} | changes)
        return EncryptedTraining(config, epochs, 1, 0, tiny)

    return make


@pytest.mark.parametrize("protection", PROTECTIONS, ids=str)
def test_every_epoch_is_all_of_the_users_images_encrypted_and_a_validation(
    start: Start, tiny: ImageStore, protection: Protection
) -> None:
    listener = Listener()
    drive(start(protection).run(1, 1), listener.answer)
    assert [type(request) for request in listener.requests] == [TrainingImages] + 3 * [
        FitClassifier,
        FitClassifier,
        FitClassifier,
        ValidateClassifier,
    ]
    assert [request.number for request in listener.requests[1:]] == list(range(12))
    assert all(request.user == 1 for request in listener.requests)
    encryption = encryption_of(UserConfig(protection=protection), 1, 0)
    orders = []
    for epoch in range(3):
        sent = listener.of_kind(FitClassifier)[3 * epoch : 3 * epoch + 3]
        assert [len(fit.ids) for fit in sent] == [4, 4, 2]
        ids, images = torch.cat([fit.ids for fit in sent]), torch.cat([fit.images for fit in sent])
        assert sorted(ids.tolist()) == IDS.train.tolist()
        plain = tiny.images("train")[ids]
        assert torch.equal(encryption.restore(images, image_numbers("train", ids)), plain)
        assert not torch.equal(images, plain)
        orders.append(ids.tolist())
    assert len(set(map(tuple, orders))) == 3
    for validation in listener.of_kind(ValidateClassifier):
        restored = encryption.restore(validation.images, image_numbers("validation", validation.ids))
        assert torch.equal(restored, tiny.images("validation")[IDS.validation])


def test_a_user_whose_images_stay_plain_has_no_classifier_trained(start: Start) -> None:
    listener = Listener()
    session = start({"kind": "plain"})  # type: ignore[arg-type]
    drive(session.run(1, 1), listener.answer)
    assert [type(request) for request in listener.requests] == [TrainingImages]
    assert session.reached(1, 1)
    result = encrypted_training_result(*session.checkpoint())
    assert (result.images, result.steps, result.selected_epoch, result.curve) == (10, 0, 0, [])


def sent_by(start: Start, protection: Protection, **changes: object) -> Tensor:
    listener = Listener()
    drive(start(protection, epochs=1, **changes).run(1, 1), listener.answer)
    return torch.cat([fit.images for fit in listener.of_kind(FitClassifier)])


def black_frame(images: Tensor) -> Tensor:
    """Return which images have a black border of a pixel on some side."""
    sides = (images[..., 0, :], images[..., -1, :], images[..., 0], images[..., -1])
    return torch.stack([(side == 0).all(dim=(1, 2)) for side in sides]).any(0)


def test_images_are_augmented_before_encryption_where_all_share_a_key(
    start: Start, tiny: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, per_image = PROTECTIONS[1], PROTECTIONS[2]
    # The black that a crop brings in is encrypted with the image under one key, and stays black under a key each.
    monkeypatch.setattr(
        tiny,
        "_open",
        {"train": torch.full((100, 3, 8, 8), 99, dtype=torch.uint8), "validation": tiny.images("validation")},
    )
    assert not black_frame(sent_by(start, one, crop_padding=3)).any()
    assert black_frame(sent_by(start, per_image, crop_padding=3)).float().mean() > 0.5
    assert set(sent_by(start, one, crop_padding=3).unique().tolist()) == {0, 99, 156, 255}


def test_the_key_follows_from_seed_and_user_alone(tiny: ImageStore) -> None:
    images, numbers = tiny.images("test")[:4], torch.arange(4)
    for protection in PROTECTIONS:
        config = UserConfig(protection=protection)
        first = encryption_of(config, 1, 0).protect(images, numbers)
        assert torch.equal(
            first, encryption_of(config.model_copy(update={"alpha": 0.5}), 1, 0).protect(images, numbers)
        )
        assert not torch.equal(first, encryption_of(config, 2, 0).protect(images, numbers))
        assert not torch.equal(first, encryption_of(config, 1, 1).protect(images, numbers))


def test_users_of_one_own_seed_have_one_key(tiny: ImageStore) -> None:
    images, numbers = tiny.images("test")[:4], torch.arange(4)
    for protection in PROTECTIONS:
        config = UserConfig(protection=protection, seed=5)
        first = encryption_of(config, 1, 0).protect(images, numbers)
        assert torch.equal(first, encryption_of(config, 2, 0).protect(images, numbers))
        assert not torch.equal(first, encryption_of(config, 1, 1).protect(images, numbers))


def test_no_two_images_of_different_splits_have_one_number() -> None:
    numbers = [image_numbers(split, torch.arange(60_000)) for split in ("train", "validation", "test")]  # type: ignore[arg-type]
    assert len(torch.cat(numbers).unique()) == 180_000


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_parts_end_with_an_epoch_and_together_are_the_whole(start: Start, parts: int) -> None:
    session, listener, ends = start(PROTECTIONS[0]), Listener(), []
    for part in range(1, parts + 1):
        drive(session.run(part, parts), listener.answer)
        ends.append(len(session.curve))
    assert ends == {1: [3], 2: [1, 3], 3: [1, 2, 3]}[parts]
    assert session.step == session.total_steps == 12


@pytest.mark.parametrize("protection", PROTECTIONS, ids=str)
def test_dropped_at_any_request_it_yields_the_same_again_and_ends_the_same(
    start: Start, protection: Protection
) -> None:
    changes = {"crop_padding": 2, "flip": True}
    whole, listener = start(protection, **changes), Listener([3.0, 1.0, 2.0])
    drive(whole.run(1, 1), listener.answer)

    again, replies = Listener([3.0, 1.0, 2.0]), 0
    session = start(protection, **changes)
    while not session.reached(1, 1):
        request = next(session.run(1, 1))
        tensors, numbers = session.checkpoint()
        session = start(protection, **changes)
        session.restore(tensors, json.loads(json.dumps(numbers)))
        work = session.run(1, 1)
        same = next(work)
        assert type(same) is type(request)
        if isinstance(request, FitClassifier | ValidateClassifier):
            assert isinstance(same, FitClassifier | ValidateClassifier)
            assert torch.equal(same.images, request.images)
            assert torch.equal(same.ids, request.ids)
        with contextlib.suppress(StopIteration):
            work.send(again.answer(same))
        replies += 1
    assert replies == 13
    assert session.checkpoint()[1] == whole.checkpoint()[1]
    for one, other in zip(listener.requests[1:], again.requests[1:], strict=True):
        assert isinstance(one, FitClassifier | ValidateClassifier) and isinstance(
            other, FitClassifier | ValidateClassifier
        )
        assert torch.equal(one.images, other.images)


def test_the_epoch_with_the_best_validation_is_the_selected_one_and_no_key_is_published(start: Start) -> None:
    session, listener = start(PROTECTIONS[0]), Listener([3.0, 1.0, 2.0])
    drive(session.run(1, 1), listener.answer)
    result = encrypted_training_result(*session.checkpoint())
    assert result.theta == {}
    assert result.selected_epoch == 2
    assert (result.images, result.steps) == (10, 12)
    assert [row["validation_loss"] for row in result.curve] == [3.0, 1.0, 2.0]
    assert [row["train_loss"] for row in result.curve] == [2.0] * 3
    assert [row["train_accuracy"] for row in result.curve] == [3 / 10] * 3
    assert math.isnan(session.loss)


def test_an_answer_of_another_kind_is_an_error(start: Start) -> None:
    work = start(PROTECTIONS[0]).run(1, 1)
    next(work)
    work.send(IDS)
    with pytest.raises(ExchangeError, match="answered with Gradient, expected LossValues"):
        work.send(Gradient(torch.zeros(1), 1.0, 1))
