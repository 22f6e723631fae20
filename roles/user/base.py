"""What the trainings of all users have in common: the images they are of, and the state that they go on from."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from roles.common.batches import Batches
from roles.common.compute import Number
from roles.common.config.user import UserConfig
from roles.common.data import ImageStore
from roles.common.exchange import ExchangeError, ImageIds, TrainingImages, Work, expect
from roles.common.seeds import derived_seed
from roles.common.weights import State, prefixed


@dataclass
class Traffic:
    """What a user's training has cost its provider."""

    queries: int = 0
    """Requests for a loss or a gradient."""
    images: int = 0
    """Protected images in them."""
    sent_bytes: int = 0
    received_bytes: int = 0


_LOOKS = ("passes_through", "dfil")
"""What a look at a few images tells, and no sum."""


@dataclass
class Sums:
    """Running sums over the images of an epoch or a validation pass; on a GPU they stay there until they are read."""

    images: int = 0
    loss: Number = 0.0
    feature_loss: Number = 0.0
    correct: Number = 0
    passes_through: Number = math.nan
    """How much of the plain images is left in the protected ones (passing.py); NaN where nobody has looked."""
    dfil: Number = math.nan
    """How much a protected image may tell (fisher.py); NaN where nobody has looked."""

    def add(self, images: int, loss: Number, correct: Number, feature_loss: Number = math.nan) -> None:
        """Add a batch with these mean losses; L_feat is NaN where nobody has computed it."""
        self.images += images
        self.loss = self.loss + loss * images
        self.feature_loss = self.feature_loss + feature_loss * images
        self.correct = self.correct + correct

    def numbers(self) -> dict[str, float]:
        """Return the sums by name, read."""
        correct = int(self.correct)
        floats = {name: float(getattr(self, name)) for name in ("loss", "feature_loss", *_LOOKS)}
        return {"images": self.images, "correct": correct, **floats}

    def columns(self, name: str) -> dict[str, float]:
        """Return the means as ``<name>_loss``, ``<name>_accuracy`` in [0, 1] and so on, of what is known.

        Raises:
            ExchangeError: the loss is not finite.
        """
        sums = self.numbers()
        if not math.isfinite(sums["loss"]):
            raise ExchangeError(f"the provider's losses have come to {sums['loss']}: expected finite ones")
        summed = {"loss": sums["loss"], "accuracy": sums["correct"], "feature_loss": sums["feature_loss"]}
        means = {key: value / self.images for key, value in summed.items()}
        means |= {key: sums[key] for key in _LOOKS}
        return {f"{name}_{key}": value for key, value in means.items() if not math.isnan(value)}


@dataclass(frozen=True, eq=False)
class TrainingResult:
    """What a training has come to."""

    theta: State
    """The weights with the lowest validation value of the objective (Section IV-A); empty where a key protects."""
    selected_epoch: int
    """The 1-based epoch of ``theta``; 0 where none has ended."""
    images: int
    """How many images X' holds."""
    steps: int
    curve: list[dict[str, float]]
    traffic: Traffic
    checks: list[dict[str, float]]
    """What its checks of the provider have found, one row each; none where it made none."""


class UserTraining(ABC):
    """One user's training: start, :meth:`run` for a stretch, :meth:`checkpoint`, go on here or in another process.

    Args:
        user: which user this is; with the run's ``seed`` it decides all that is random.
        batch_size: images a request.
        least_batch: the fewest that the provider answers.
    """

    def __init__(
        self, config: UserConfig, user: int, seed: int, store: ImageStore, batch_size: int, least_batch: int = 1
    ) -> None:
        self._config, self._user, self._store, self._batch_size = config, user, store, batch_size
        self._least_batch = least_batch
        self._seed = config.own_seed(user, seed)
        self._take(ImageIds(torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64)))
        self.step = 0
        """Steps done so far."""
        self.curve: list[dict[str, float]] = []
        """One row an epoch: epoch and step from 1, losses and accuracies in [0, 1] of training and validation."""
        self.traffic = Traffic()
        """What the exchange has carried; whoever runs it counts here."""
        self._epoch = Sums()

    @property
    @abstractmethod
    def total_steps(self) -> int:
        """Length of the whole training; 0 before the provider has said what X' is."""

    @property
    def images(self) -> int:
        """How many images X' holds; 0 before the provider has said so."""
        return len(self._ids.train)

    @property
    def loss(self) -> Number:
        """L_class, averaged over the present epoch so far; NaN before its first answer."""
        return self._epoch.loss / self._epoch.images if self._epoch.images else math.nan

    def theta(self) -> State:
        """Return the current weights of h_theta; empty where a key protects."""
        return {}

    def run(self, part: int, parts: int) -> Work[None]:
        """Train up to the end of the ``part``-th of ``parts`` equal parts of the schedule (1-based).

        Raises:
            ExchangeError: the provider's answer is unusable.
            ValueError: training diverged.
        """
        yield from self._own_images()
        while not self.reached(part, parts):
            yield from self._next()

    @abstractmethod
    def reached(self, part: int, parts: int) -> bool:
        """Return whether all is done up to the end of the ``part``-th of ``parts`` equal parts of the schedule."""

    @abstractmethod
    def _next(self) -> Work[None]:
        """Go on to where a part may end next."""

    def _own_images(self) -> Work[None]:
        if not self.images:
            self._take(expect((yield TrainingImages(self._user)), ImageIds))

    def _take(self, ids: ImageIds) -> None:
        order = derived_seed(self._seed, "order")
        self._ids, self._batches = ids, Batches(ids.train, self._batch_size, order, self._least_batch)

    def checkpoint(self) -> tuple[State, dict[str, Any]]:
        """Return tensors and JSON-able numbers from which :meth:`restore` goes on at the last whole step."""
        numbers = {"step": self.step, "curve": [dict(row) for row in self.curve]}
        numbers |= {"epoch": self._epoch.numbers(), "traffic": asdict(self.traffic)}
        return prefixed("ids", vars(self._ids)) if self.images else {}, numbers

    def restore(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
        """Take up the state of a :meth:`checkpoint`.

        Raises:
            ValueError: the checkpoint is not one of this user's network.
        """
        if "ids/train" in tensors:
            self._take(ImageIds(tensors["ids/train"], tensors["ids/validation"]))
        self.step, self.curve = numbers["step"], [dict(row) for row in numbers["curve"]]
        self._epoch, self.traffic = Sums(**numbers["epoch"]), Traffic(**numbers["traffic"])


def result_of(
    theta: State, selected_epoch: int, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]
) -> TrainingResult:
    """Return the result of the training whose checkpoint is ``tensors`` and ``numbers``."""
    images, steps, traffic = len(tensors["ids/train"]), numbers["step"], Traffic(**numbers["traffic"])
    curve, checks = (
        [dict(row) for row in rows] for rows in (numbers["curve"], numbers.get("checks", {}).get("rows", ()))
    )
    return TrainingResult(theta, selected_epoch, images, steps, curve, traffic, checks)
