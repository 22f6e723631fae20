"""How a user with a conventional protection has the provider train a classifier on its protected images."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from roles.common.augment import augment
from roles.common.config.data import Split
from roles.common.config.user import PixelConfig, UserConfig
from roles.common.data import ImageStore
from roles.common.exchange import FIT_IMAGES, FitClassifier, LossValues, ValidateClassifier, Work, expect
from roles.common.protection import encryption_of, image_numbers
from roles.common.seeds import generator
from roles.user.base import Sums, TrainingResult, UserTraining, result_of


class EncryptedTraining(UserTraining):
    """One user's part in the training of a classifier for its protected images, for the ``epochs`` of psi's recipe.

    A step is a request: some images to train on or, at the end of an epoch, those to validate on. A user whose images
    stay plain sends none.
    """

    def __init__(self, config: UserConfig, epochs: float, user: int, seed: int, store: ImageStore) -> None:
        super().__init__(config, user, seed, store, FIT_IMAGES)
        plain = config.protection.kind == "plain"
        self._epochs = 0 if plain else math.ceil(epochs)
        self._encryption = None if plain else encryption_of(config, user, seed)

    @property
    def total_steps(self) -> int:
        """See :class:`UserTraining`."""
        return self._epochs * (self._batches.per_epoch + 1) if self.images else 0

    def reached(self, part: int, parts: int) -> bool:
        """See :class:`UserTraining`: parts end with an epoch."""
        return self.images > 0 and len(self.curve) >= self._epochs * part // parts

    def _next(self) -> Work[None]:
        epoch, fits = len(self.curve) + 1, self.step - len(self.curve)
        validates = fits == epoch * self._batches.per_epoch
        if validates:
            ids, images = self._ids.validation, self._protected("validation", self._ids.validation, None)
            answer = expect((yield ValidateClassifier(self._user, self.step, images, ids)), LossValues)
        else:
            ids = self._batches.ids_at(fits)
            images = self._protected("train", ids, generator(self._seed, "augment", fits))
            answer = expect((yield FitClassifier(self._user, self.step, images, ids)), LossValues)
        self.step += 1
        if not validates:
            self._epoch.add(len(ids), answer.loss, answer.correct)
            return
        row = {"epoch": epoch, "step": self.step, **self._epoch.columns("train")}
        row |= {"validation_loss": float(answer.loss), "validation_accuracy": int(answer.correct) / len(ids)}
        self.curve.append(row)
        self._epoch = Sums()

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


def encrypted_training_result(tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> TrainingResult:
    """Return what a training has come to from its checkpoint; the key stays with the user, so theta is empty."""
    losses = [row["validation_loss"] for row in numbers["curve"]]
    return result_of({}, 1 + losses.index(min(losses)) if losses else 0, tensors, numbers)
