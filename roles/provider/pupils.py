"""Classifiers of single users: what the conventional protections need in place of psi (Section IV-B, Table I)."""

import contextlib
import json
import math
import threading
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from roles.common.batches import batch_sizes
from roles.common.compute import Compute
from roles.common.exchange import LESSON_IMAGES, ExchangeError, LossValues
from roles.common.images import to_unit
from roles.common.recipes import set_lr
from roles.common.seeds import derived_seed
from roles.common.weights import (
    State,
    cpu_state,
    groups_of,
    load,
    load_into,
    optimiser_state,
    prefixed,
    restore_optimiser,
    save,
)
from roles.provider.classifiers import Adaptation, Classifier
from roles.provider.training import ClassifierConfig, predict


@dataclass
class _Record:
    """The part of a pupil's state that is numbers."""

    answered: int = -1
    """The number of the last lesson or exam."""
    loss: float = 0.0
    correct: int = 0
    """What it was answered."""
    step: int = 0
    best_loss: float = math.inf


class Pupils:
    """One classifier for each user whose protection needs one, trained by the provider's recipe for psi.

    Every lesson and exam is kept on disk before it is answered: another process may get the next one, and a run that is
    killed goes on.

    Args:
        folder: where pupils are kept.
        config: architecture, recipe and seed; augmentation is the users' own.
        classes: number of classes.
        adaptations: for each user, what stands in front of its classifier; None for a user that has none of its own.
        images: for each user, how many images its X' holds.
    """

    def __init__(
        self,
        folder: Path,
        config: ClassifierConfig,
        classes: int,
        adaptations: Sequence[Adaptation | None],
        images: Sequence[int],
        compute: Compute,
    ) -> None:
        self._folder, self._config, self._classes, self._compute = folder, config, classes, compute
        self._adaptations, self._images = adaptations, images
        # Initial weights and dropout draw from PyTorch's one global generator, after it has been seeded for the lesson.
        self._drawing = threading.Lock()

    def lesson(self, user: int, number: int, images: Tensor, labels: Tensor) -> LossValues:
        """Train on uint8 ``(N, 3, H, W)`` in the order they come in; labels int64 ``(N,)``.

        A lesson past the end of the recipe teaches nothing, and is answered as the one before.

        Raises:
            ExchangeError: the user has no classifier of its own, or this is not its next request.
            ValueError: training diverged.
        """
        pupil, optimiser, best, record = self._pupil(user, number)
        if number == record.answered:
            return LossValues(record.loss, record.correct)
        recipe = self._config.training
        lessons = batch_sizes(self._images[user], LESSON_IMAGES)
        total = recipe.total_steps(sum(len(batch_sizes(lesson, recipe.batch_size)) for lesson in lessons))
        pupil.train()
        seen, summed, correct = 0, 0.0, 0
        with self._drawing if _draws(pupil) else contextlib.nullcontext():
            if _draws(pupil):
                torch.manual_seed(derived_seed(self._config.seed, "pupil", user, "lesson", number))
            sizes = batch_sizes(len(images), recipe.batch_size)
            for batch, wanted in zip(torch.split(images, sizes), torch.split(labels, sizes), strict=True):
                if record.step == total:
                    break  # a training may end within an epoch
                set_lr(optimiser, recipe.lr_at(record.step, total))
                expected = wanted.to(self._compute.device)
                with self._compute.autocast():
                    logits = pupil(self._compute.batch(to_unit(batch)))
                loss = F.cross_entropy(logits, expected)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                seen += len(batch)
                summed += loss.item() * len(batch)
                correct += int((logits.argmax(1) == expected).sum())
                record.step += 1
        if not math.isfinite(summed):
            raise ValueError(f"the classifier of user {user} diverged in lesson {number}: lower classifier.training.lr")
        record.answered = number
        if seen:
            # Of a lesson that the training ends in, what it was still taught stands for the whole.
            record.loss, record.correct = summed / seen, round(correct * len(images) / seen)
        self._keep(user, pupil, optimiser, best, record)
        return LossValues(record.loss, record.correct)

    def exam(self, user: int, number: int, images: Tensor, labels: Tensor) -> LossValues:
        """Return the loss on all validation images, and keep the classifier if it is the lowest so far.

        Raises:
            ExchangeError: see :meth:`lesson`.
        """
        pupil, optimiser, best, record = self._pupil(user, number)
        if number == record.answered:
            return LossValues(record.loss, record.correct)
        logits = predict(pupil, images, self._compute)
        record.answered, record.loss = number, F.cross_entropy(logits, labels).item()
        record.correct = int((logits.argmax(1) == labels).sum())
        if record.loss < record.best_loss:
            record.best_loss, best = record.loss, cpu_state(pupil)
        self._keep(user, pupil, optimiser, best, record)
        return LossValues(record.loss, record.correct)

    def classify(self, user: int, images: Tensor) -> Tensor:
        """Return the labels, int64 ``(N,)``, that a user's classifier, as of its best exam, predicts for ``images``.

        Raises:
            ExchangeError: there is none.
        """
        pupil = self._new(user)
        groups, _ = self._load(user)
        if not groups["best"]:
            raise ExchangeError(f"the classifier of user {user} has not passed an exam")
        load_into(pupil, groups["best"], f"classifier of user {user}")
        return predict(pupil, images, self._compute).argmax(1)

    def _pupil(self, user: int, number: int) -> tuple[Classifier, torch.optim.Optimizer, State, _Record]:
        pupil = self._new(user)
        groups, record = self._load(user)
        if number not in (record.answered, record.answered + 1):
            raise ExchangeError(
                f"user {user} sent lesson {number}: its last was {record.answered}, expected {record.answered + 1}"
            )
        if groups["now"]:
            load_into(pupil, groups["now"], f"classifier of user {user}")
        optimiser = self._config.training.optimiser_for(pupil)
        restore_optimiser(optimiser, groups["optimiser"])
        return pupil, optimiser, groups["best"], record

    def _new(self, user: int) -> Classifier:
        adaptation = self._adaptations[user] if 0 <= user < len(self._adaptations) else None
        if adaptation is None:
            raise ExchangeError(f"user {user} has no classifier of its own")
        with self._drawing:
            torch.manual_seed(derived_seed(self._config.seed, "pupil", user))
            return self._compute.module(Classifier(self._config.name, self._classes, adaptation))

    def _path(self, user: int) -> Path:
        return self._folder / f"user-{user:04d}.safetensors"

    def _load(self, user: int) -> tuple[defaultdict[str, State], _Record]:
        """Return the groups ``now``, ``best`` and ``optimiser``, all empty for a pupil that has had no lesson."""
        if not self._path(user).is_file():
            return groups_of({}), _Record()
        tensors, metadata = load(self._path(user))
        return groups_of(tensors), _Record(**json.loads(metadata["record"]))

    def _keep(
        self, user: int, pupil: Classifier, optimiser: torch.optim.Optimizer, best: State, record: _Record
    ) -> None:
        tensors = prefixed("now", cpu_state(pupil)) | prefixed("best", best)
        tensors |= prefixed("optimiser", optimiser_state(optimiser))
        save(self._path(user), tensors, {"record": json.dumps(asdict(record))})


def _draws(pupil: nn.Module) -> bool:
    return any(isinstance(module, nn.Dropout) for module in pupil.modules())
