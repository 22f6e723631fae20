"""How a user with a conventional protection has the provider train a classifier on its protected images."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, get_args

import torch
from torch import Tensor

from roles.common.augment import augment
from roles.common.batches import Batches
from roles.common.data import ImageStore, Split
from roles.common.exchange import (
    LESSON_IMAGES,
    Exam,
    ImageIds,
    Lesson,
    LossValues,
    TrainingImages,
    Work,
    expect,
)
from roles.common.seeds import derived_seed, generator
from roles.common.weights import State
from roles.user.config import UserConfig
from roles.user.conventional import LearnableEncryption, PixelConfig, PixelEncryption, TanakaConfig
from roles.user.training import Traffic, TrainedTransformer


def encryption_of(config: UserConfig, user: int, seed: int) -> LearnableEncryption | PixelEncryption:
    """Return the encryption of one user, whose key follows from the run's ``seed`` and the user's number.

    Raises:
        ValueError: the user's protection is no conventional one.
    """
    key = config.own_seed(user, seed, "key")
    match config.protection:
        case TanakaConfig():
            return LearnableEncryption(config.protection, key)
        case PixelConfig():
            return PixelEncryption(config.protection, key)
        case other:
            raise ValueError(f"protection {other.kind!r} has no key")


def image_numbers(split: Split, positions: Tensor) -> Tensor:
    """Return a number for each image of a split that no image of another split has, for keys of their own."""
    return positions + 10**9 * get_args(Split).index(split)


@dataclass
class _Progress:
    """A training's state, all of it numbers."""

    lessons: int = 0
    """Lessons that were answered."""
    images: int = 0
    """Images of the present epoch in lessons that were answered."""
    loss: float = 0.0
    correct: int = 0
    """Summed over them."""
    curve: list[dict[str, float]] = field(default_factory=list)
    traffic: Traffic = field(default_factory=Traffic)


class Lessons:
    """One user's part in the training of a classifier for its protected images, epoch by epoch.

    Used as :class:`TransformerTraining` is: run, checkpoint, go on here or in another process. A user whose images stay
    plain sends none.

    Args:
        epochs: how many the provider's recipe has.
        user: which user this is; with ``seed`` it decides key, order and augmentation.
        seed: the run's seed.
    """

    def __init__(self, config: UserConfig, epochs: float, user: int, seed: int, store: ImageStore) -> None:
        self._config, self._user, self._store = config, user, store
        self._seed = config.own_seed(user, seed)
        self._plain = config.protection.kind == "plain"
        self._epochs = 0 if self._plain else math.ceil(epochs)
        self._encryption = None if self._plain else encryption_of(config, user, seed)
        self._ids: ImageIds | None = None
        self._progress = _Progress()

    @property
    def step(self) -> int:
        """Lessons and exams so far."""
        return self._progress.lessons + len(self.curve)

    @property
    def total_steps(self) -> int:
        """Lessons and exams in all; 0 before the provider has said what X' is."""
        return 0 if self._ids is None else self._epochs * (self._batches(self._ids).per_epoch + 1)

    @property
    def curve(self) -> list[dict[str, float]]:
        """One row an epoch: epoch, train and validation loss, accuracies in [0, 1]."""
        return self._progress.curve

    @property
    def loss(self) -> float:
        """The loss of the present epoch so far; NaN before its first lesson."""
        return self._progress.loss / self._progress.images if self._progress.images else math.nan

    @property
    def traffic(self) -> Traffic:
        """What the exchange has carried; whoever runs it counts here."""
        return self._progress.traffic

    @property
    def images(self) -> int:
        """How many images X' holds; 0 before the provider has said so."""
        return 0 if self._ids is None else len(self._ids.train)

    def run(self, part: int, parts: int) -> Work[None]:
        """Send the lessons and exams of the ``part``-th of ``parts`` equal parts of all epochs (1-based).

        Raises:
            ExchangeError: the provider's answer is unusable.
        """
        if self._ids is None:
            self._ids = expect((yield TrainingImages(self._user)), ImageIds)
        while not self.reached(part, parts):
            yield from self._next(self._ids)

    def reached(self, part: int, parts: int) -> bool:
        """Return whether all epochs up to the end of the ``part``-th of ``parts`` equal parts are done."""
        return self._ids is not None and len(self.curve) >= self._epochs * part // parts

    def _batches(self, ids: ImageIds) -> Batches:
        return Batches(ids.train, LESSON_IMAGES, derived_seed(self._seed, "order"))

    def _next(self, ids: ImageIds) -> Work[None]:
        progress, epoch, batches = self._progress, len(self.curve), self._batches(ids)
        if progress.lessons < (epoch + 1) * batches.per_epoch:
            batch = batches.ids_at(progress.lessons)
            images = self._protected("train", batch, generator(self._seed, "augment", progress.lessons))
            answer = expect((yield Lesson(self._user, self.step, images, batch)), LossValues)
            progress.lessons += 1
            progress.images += len(batch)
            progress.loss += answer.loss * len(batch)
            progress.correct += answer.correct
            return
        images = self._protected("validation", ids.validation, None)
        answer = expect((yield Exam(self._user, self.step, images, ids.validation)), LossValues)
        progress.curve.append(
            {
                "epoch": epoch + 1,
                "step": self.step + 1,
                "train_loss": progress.loss / progress.images,
                "train_accuracy": progress.correct / progress.images,
                "validation_loss": answer.loss,
                "validation_accuracy": answer.correct / len(ids.validation),
            }
        )
        progress.images, progress.loss, progress.correct = 0, 0.0, 0

    def _protected(self, split: Split, ids: Tensor, stream: torch.Generator | None) -> Tensor:
        assert self._encryption is not None
        config, numbers = self._config, image_numbers(split, ids)
        images = self._store.images(split)[ids]
        own_keys = isinstance(config.protection, PixelConfig) and config.protection.key == "per_image"
        if own_keys:
            images = self._encryption.protect(images, numbers)
        if stream is not None:
            # Before encryption where all images share a key [16]; on encrypted images where each has its own [18].
            images = augment(images, config.crop_padding, stream, flip=config.flip)
        return images if own_keys else self._encryption.protect(images, numbers)

    def theta(self) -> State:
        """Return the weights that others could average: none."""
        return {}

    def checkpoint(self) -> tuple[State, dict[str, Any]]:
        """Return tensors and JSON-able numbers from which :meth:`restore` goes on at the last answer."""
        ids = {} if self._ids is None else {"ids/train": self._ids.train, "ids/validation": self._ids.validation}
        return ids, asdict(self._progress)

    def restore(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
        """Take up the state of a :meth:`checkpoint`."""
        if tensors:
            self._ids = ImageIds(tensors["ids/train"], tensors["ids/validation"])
        self._progress = _Progress(**{**numbers, "traffic": Traffic(**numbers["traffic"])})


def taught(tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> TrainedTransformer:
    """Return what lessons have come to from their checkpoint; the key stays with the user, so theta is empty."""
    losses = [row["validation_loss"] for row in numbers["curve"]]
    return TrainedTransformer(
        theta={},
        selected_epoch=1 + losses.index(min(losses)) if losses else 0,
        images=len(tensors["ids/train"]),
        steps=numbers["lessons"] + len(numbers["curve"]),
        curve=[dict(row) for row in numbers["curve"]],
        traffic=Traffic(**numbers["traffic"]),
    )
