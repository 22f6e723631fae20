"""A user as a node: its sessions of training, validation and testing, and the state it keeps between rounds."""

import contextlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from flwr.app import MetricRecord, RecordDict
from torch import Tensor

from roles.common.exchange import (
    PSI,
    Classify,
    Exam,
    Lesson,
    Losses,
    LossGradient,
    Predictions,
    Request,
    Work,
    expect,
)
from roles.common.weights import State, groups_of, load, prefixed, save, without_statistics
from roles.user.lessons import Lessons, taught
from roles.user.training import TransformerTraining, trained_transformer
from sim.messages import ARRAYS, METRICS, Job, MessageError, decode_tensors, encode_tensors
from sim.nodes import compute_of, state_folder, store_of, user_name
from sim.progress import Heart
from sim.protection import protection_of
from sim.result_messages import encode_curve
from sim.sessions import Session

_TEST_BATCH = 500


def user_folder(job: Job, user: int) -> Path:
    """Return where a user's node keeps its state."""
    return state_folder(job) / user_name(user)


def _round_files(job: Job, user: int) -> dict[int, Path]:
    return {int(path.stem.removeprefix("round-")): path for path in user_folder(job, user).glob("round-*.safetensors")}


UserTraining = TransformerTraining | Lessons


def new_training(job: Job, user: int) -> UserTraining:
    """Return a user's training at its very start."""
    experiment = job.experiment
    config, store = experiment.user_config(user), store_of(experiment)
    if config.trains_network:
        return TransformerTraining(config, user, experiment.seed, store, compute_of(experiment))
    return Lessons(config, experiment.classifier.training.epochs, user, experiment.seed, store)


def training_after(job: Job, user: int, finished: int) -> UserTraining:
    """Return a user's training as it was after ``finished`` rounds, some of which it may have sat out.

    Raises:
        ValueError: the state on disk is damaged.
    """
    training = new_training(job, user)
    files = _round_files(job, user)
    usable = [number for number in files if number <= finished]
    if usable:
        tensors, metadata = load(files[max(usable)])
        training.restore(tensors, json.loads(metadata["numbers"]))
    if isinstance(training, Lessons) and _lessons_file(job, user).is_file():
        # What the provider has been taught it cannot be taught again: lessons go on from the last one, whatever round.
        tensors, metadata = load(_lessons_file(job, user))
        training.restore(tensors, json.loads(metadata["numbers"]))
    return training


def _lessons_file(job: Job, user: int) -> Path:
    return user_folder(job, user) / "lessons.safetensors"


def _keep_lessons(job: Job, user: int, lessons: Lessons) -> None:
    tensors, numbers = lessons.checkpoint()
    save(_lessons_file(job, user), tensors, {"numbers": json.dumps(numbers)})


def keep_training(job: Job, user: int, number: int, training: UserTraining) -> None:
    """Write a user's training to disk as its state after round ``number``.

    The state before stays as well: a run that is killed in the next round resumes from this one, and one that is killed
    before the ServerApp has noted this round resumes from the one before.
    """
    before = [other for other in _round_files(job, user) if other < number]
    tensors, numbers = training.checkpoint()
    path = user_folder(job, user) / f"round-{number:04d}.safetensors"
    save(path, tensors, {"numbers": json.dumps(numbers)})
    for other, old in _round_files(job, user).items():
        if other > number or (before and other < max(before)):
            old.unlink()


def forget_training(job: Job, user: int) -> None:
    """Delete the state of a user's training, which is large, once nothing goes on from it.

    In a deployment a user's state lies on its own machine, and stays there.
    """
    shutil.rmtree(user_folder(job, user), ignore_errors=True)


class TrainSession(Session):
    """One round of a user's training, or several in a row (message ``train``).

    Args:
        averaged: whether theta came with the message, and goes back with the reply. A user that is sent none keeps its
            own.
    """

    def __init__(self, job: Job, user: int, training: UserTraining, heart: Heart, averaged: bool = False) -> None:
        self._job, self._user, self._training, self._heart, self._averaged = job, user, training, heart, averaged

    def work(self) -> Work[RecordDict]:
        """Train through the rounds, keep the state after each, and reply as any Flower strategy expects."""
        job, training, rounds = self._job, self._training, self._job.experiment.strategy.rounds
        last = job.round + job.rounds - 1
        for number in range(job.round, last + 1):
            if number < last and training.reached(number, rounds):
                continue
            yield from self._noting(training.run(number, rounds))
            keep_training(job, self._user, number, training)
        row = training.curve[-1] if training.curve else {}
        metrics = MetricRecord(
            {
                "num-examples": training.images,
                "loss": row.get("train_loss", 0.0),
                "accuracy": row.get("train_accuracy", 0.0),
            }
        )
        if not self._averaged:
            return RecordDict({METRICS: metrics})
        theta = training.theta()
        if job.experiment.strategy.batch_norm == "local":
            theta = without_statistics(theta)
        return RecordDict({ARRAYS: encode_tensors(theta), METRICS: metrics})

    def _noting(self, work: Work[None]) -> Work[None]:
        """Pass on what ``work`` asks and is answered, with the state of lessons kept before each question."""
        if not isinstance(self._training, Lessons):
            yield from work
            return
        with contextlib.suppress(StopIteration):
            request = next(work)
            while True:
                _keep_lessons(self._job, self._user, self._training)
                request = work.send((yield request))

    def checkpoint(self) -> tuple[State, dict[str, Any]]:
        """See :class:`Session`."""
        tensors, numbers = self._training.checkpoint()
        return tensors, {"training": numbers, "averaged": self._averaged}

    def restore(self, tensors: State, numbers: Mapping[str, Any]) -> None:
        """See :class:`Session`."""
        self._training.restore(tensors, numbers["training"])
        self._averaged = numbers["averaged"]

    def account(self, request: Request, sent: int, received: int) -> None:
        """Count queries, images and bytes of losses, gradients, lessons and exams."""
        if isinstance(request, LossGradient | Losses | Lesson | Exam):
            traffic = self._training.traffic
            traffic.queries += 1
            traffic.images += len(request.ids)
            traffic.sent_bytes += sent
            traffic.received_bytes += received
            self._heart.beat(
                self._job.run,
                "users",
                f"user {self._user}",
                self._training.step,
                self._training.total_steps,
                self._training.loss,
            )


def train_session(job: Job, user: int, content: RecordDict, heart: Heart) -> TrainSession:
    """Return the session that a message ``train`` asks for: from the theta in it or, without one, the user's own."""
    arrays = content.array_records.get(ARRAYS)
    # An averaged theta belongs to the end of the round before; a user's own training goes on from wherever it is.
    training = training_after(job, user, job.round - 1 if arrays else job.round + job.rounds - 1)
    if arrays:
        _adopt(job, training, decode_tensors(arrays))
    return TrainSession(job, user, training, heart, averaged=bool(arrays))


def _network_of(training: UserTraining) -> TransformerTraining:
    if isinstance(training, Lessons):
        raise MessageError("a user with a conventional protection has no theta")
    return training


def _adopt(job: Job, training: UserTraining, theta: State) -> None:
    _network_of(training).adopt(theta, own_statistics=job.experiment.strategy.batch_norm == "local")


class ValidateSession(Session):
    """Loss and accuracy of a theta on a user's validation images (message ``evaluate``)."""

    def __init__(self, job: Job, user: int, theta: State | None) -> None:
        self._training = _network_of(training_after(job, user, job.round))
        if theta is not None:
            _adopt(job, self._training, theta)

    def work(self) -> Work[RecordDict]:
        """Ask for the losses of all validation images."""
        loss, accuracy, images = yield from self._training.validation()
        return RecordDict({METRICS: MetricRecord({"num-examples": images, "loss": loss, "accuracy": accuracy})})

    def checkpoint(self) -> tuple[State, dict[str, Any]]:
        """See :class:`Session`."""
        return self._training.checkpoint()

    def restore(self, tensors: State, numbers: Mapping[str, Any]) -> None:
        """See :class:`Session`."""
        self._training.restore(tensors, numbers)


def validate_session(job: Job, user: int, content: RecordDict, heart: Heart) -> ValidateSession:
    """Return the session that a message ``evaluate`` asks for."""
    arrays = content.array_records.get(ARRAYS)
    return ValidateSession(job, user, decode_tensors(arrays) if arrays else None)


USER_SESSIONS: dict[str, Callable[[Job, int, RecordDict, Heart], Session]] = {
    "train": train_session,
    "validate": validate_session,
}
"""The long ones: those of a user that asks the provider at every step."""


class TestSession(Session):
    """Protected test images through the provider's service (message ``evaluate.test``; Section III-A, steps 4, 5)."""

    def __init__(self, job: Job, user: int, theta: State) -> None:
        self._job, self._user, self._theta = job, user, theta
        self._labels: list[Tensor] = []

    def work(self) -> Work[RecordDict]:
        """Protect the test images and have them classified, batch by batch."""
        experiment = self._job.experiment
        protect = protection_of(experiment, self._user, self._theta)
        images = store_of(experiment).images("test")[: experiment.attack.test_images]
        own = experiment.user_config(self._user).needs_classifier
        for which in torch.split(torch.arange(len(images)), _TEST_BATCH)[len(self._labels) :]:
            protected = protect(images[which], "test", which)
            answer = expect((yield Classify(protected, self._user if own else PSI)), Predictions)
            self._labels.append(answer.labels)
        return RecordDict({ARRAYS: encode_tensors({"labels": torch.cat(self._labels)})})

    def checkpoint(self) -> tuple[State, dict[str, Any]]:
        """See :class:`Session`."""
        labels = {str(index): value for index, value in enumerate(self._labels)}
        return prefixed("labels", labels) | prefixed("theta", self._theta), {}

    def restore(self, tensors: State, numbers: Mapping[str, Any]) -> None:
        """See :class:`Session`."""
        groups = groups_of(tensors)
        self._labels = [groups["labels"][str(index)] for index in range(len(groups["labels"]))]
        self._theta = groups["theta"]


def publication(job: Job, user: int, average: State | None = None) -> RecordDict:
    """Return what a user makes public after its last round, and what its training has cost (message ``query.publish``).

    Args:
        average: what the strategy has made of the thetas, which the user makes public with what it has not shared, as
            it was after the last round that it has finished; by default a theta of its own, after the last of all.

    Raises:
        ValueError: the user has not finished its training or, where there is an average, no round of it.
    """
    files = _round_files(job, user)
    path = files.get(job.experiment.strategy.rounds if average is None else max(files, default=0))
    if path is None:
        raise ValueError(f"user {user} has not finished its training")
    tensors, metadata = load(path)
    network = job.experiment.user_config(user).trains_network
    trained = (trained_transformer if network else taught)(tensors, json.loads(metadata["numbers"]))
    facts = MetricRecord(
        {
            "images": trained.images,
            "steps": trained.steps,
            "selected-epoch": trained.selected_epoch,
            "queries": trained.traffic.queries,
            "queried-images": trained.traffic.images,
            "sent-bytes": trained.traffic.sent_bytes,
            "received-bytes": trained.traffic.received_bytes,
        }
    )
    theta = trained.theta if average is None else groups_of(tensors)["theta"] | average
    return RecordDict({ARRAYS: encode_tensors(theta), METRICS: facts, "curve": encode_curve(trained.curve)})
