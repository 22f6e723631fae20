"""Classifiers of single users: what the conventional protections need in place of psi (Section IV-B, Table I)."""

import contextlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from roles.common import weights
from roles.common.batches import batch_sizes
from roles.common.compute import Compute
from roles.common.config.classifier import ClassifierConfig
from roles.common.config.recipe import set_lr
from roles.common.exchange import FIT_IMAGES, ExchangeError, LossValues
from roles.common.fitting import descend
from roles.common.images import to_unit
from roles.common.naming import user_name
from roles.common.seeds import seeded
from roles.provider.classifiers import Adaptation, Classifier
from roles.provider.training import predict


@dataclass
class _Record:
    """The part of a user classifier's state that is numbers."""

    answered: int = -1
    """The number of the last request; what it was answered follows."""
    loss: float = 0.0
    correct: int = 0
    step: int = 0
    best_loss: float = math.inf


@dataclass
class _UserClassifier:
    network: Classifier
    optimiser: torch.optim.Optimizer
    best: weights.State
    record: _Record


class UserClassifiers:
    """One classifier for each user whose protection needs one, trained by the provider's recipe for psi.

    The state after a request is on disk before it is answered: another process may get the next one, and a run that is
    killed goes on.

    Args:
        folder: where they are kept.
        config: architecture, recipe and seed; augmentation is the users' own.
        classes: number of classes.
        side: of the images, in pixels.
        adaptations: for each user, what stands in front of its classifier; None for a user that has none of its own.
        images: for each user, how many images its X' holds.
    """

    def __init__(
        self,
        folder: Path,
        config: ClassifierConfig,
        classes: int,
        side: int,
        adaptations: Sequence[Adaptation | None],
        images: Sequence[int],
        compute: Compute,
    ) -> None:
        self._folder, self._config, self._classes, self._side = folder, config, classes, side
        self._adaptations, self._images, self._compute = adaptations, images, compute

    def fit(self, user: int, number: int, images: Tensor, labels: Tensor) -> LossValues:
        """Train on uint8 ``(N, 3, H, W)`` with labels int64 ``(N,)``, in this order, until the recipe has ended.

        Raises:
            ExchangeError: the user has no classifier of its own, or this is not its next request.
            ValueError: training diverged.
        """
        own = self._opened(user, number)
        if number > own.record.answered:
            draws = any(isinstance(module, nn.Dropout) for module in own.network.modules())
            lesson = (self._config.seed, "pupil", user, "lesson", number)
            with seeded(*lesson) if draws else contextlib.nullcontext():
                self._train(own, user, images, labels)
            self._keep(user, number, own)
        return LossValues(own.record.loss, own.record.correct)

    def validate(self, user: int, number: int, images: Tensor, labels: Tensor) -> LossValues:
        """Return the loss on all validation images, as :meth:`fit` does, and keep the classifier with the lowest."""
        own = self._opened(user, number)
        record = own.record
        if number > record.answered:
            logits = predict(own.network, images, self._compute)
            record.loss = F.cross_entropy(logits, labels).item()
            record.correct = int((logits.argmax(1) == labels).sum())
            if record.loss < record.best_loss:
                record.best_loss, own.best = record.loss, weights.cpu_state(own.network)
            self._keep(user, number, own)
        return LossValues(record.loss, record.correct)

    def classify(self, user: int, images: Tensor) -> Tensor:
        """Return the labels, int64 ``(N,)``, that a user's classifier with the lowest validation loss predicts.

        Raises:
            ExchangeError: there is none.
        """
        network, (state, _) = self._new(user), self._load(user)
        best = weights.groups_of(state)["best"]
        if not best:
            raise ExchangeError(f"the classifier of user {user} has not been validated")
        weights.load_into(network, best, f"classifier of user {user}")
        return predict(network, images, self._compute).argmax(1)

    def _train(self, own: _UserClassifier, user: int, images: Tensor, labels: Tensor) -> None:
        recipe, record = self._config.training, own.record
        parts = batch_sizes(self._images[user], FIT_IMAGES)
        total = recipe.total_steps(sum(len(batch_sizes(part, recipe.batch_size)) for part in parts))
        sizes = batch_sizes(len(images), recipe.batch_size)
        seen, summed, correct = 0, 0.0, 0
        own.network.train()
        for batch, wanted in zip(torch.split(images, sizes), torch.split(labels, sizes), strict=True):
            if record.step == total:
                break  # a training may end within an epoch
            set_lr(own.optimiser, recipe.lr_at(record.step, total))
            wanted = wanted.to(self._compute.device)
            with self._compute.autocast():
                logits = own.network(self._compute.batch(to_unit(batch)))
            loss = descend(own.optimiser, F.cross_entropy(logits, wanted))
            seen += len(batch)
            summed += loss.item() * len(batch)
            correct += int((logits.argmax(1) == wanted).sum())
            record.step += 1
        if not math.isfinite(summed):
            where = f"the classifier of user {user} diverged at request {record.answered + 1}"
            raise ValueError(f"{where}: lower classifier.training.lr")
        if seen:
            # Where it ends within the images, those before the end stand for all.
            record.loss, record.correct = summed / seen, round(correct * len(images) / seen)

    def _opened(self, user: int, number: int) -> _UserClassifier:
        network, (state, record) = self._new(user), self._load(user)
        if number not in (record.answered, record.answered + 1):
            raise ExchangeError(
                f"user {user} sent request {number}: its last was {record.answered}, expected {record.answered + 1}"
            )
        optimiser = self._config.training.optimiser_for(network)
        if state:
            weights.restore_training("now", network, optimiser, state, f"classifier of user {user}")
        return _UserClassifier(network, optimiser, weights.groups_of(state)["best"], record)

    def _new(self, user: int) -> Classifier:
        adaptation = self._adaptations[user] if 0 <= user < len(self._adaptations) else None
        if adaptation is None:
            raise ExchangeError(f"user {user} has no classifier of its own")
        with seeded(self._config.seed, "pupil", user):
            return self._compute.module(Classifier(self._config.name, self._classes, self._side, adaptation))

    def _load(self, user: int) -> tuple[weights.State, _Record]:
        if not self._path(user).is_file():
            return {}, _Record()
        tensors, metadata = weights.load(self._path(user))
        return tensors, _Record(**json.loads(metadata["record"]))

    def _keep(self, user: int, number: int, own: _UserClassifier) -> None:
        own.record.answered = number
        state = weights.training_state("now", own.network, own.optimiser) | weights.prefixed("best", own.best)
        weights.save(self._path(user), state, {"record": json.dumps(asdict(own.record))})

    def _path(self, user: int) -> Path:
        return self._folder / f"{user_name(user)}.safetensors"
