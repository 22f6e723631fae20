"""A user as a node: its sessions of training, validation and testing, and what it makes public."""

import contextlib
from collections.abc import Mapping
from typing import Any

import torch
from flwr.app import MetricRecord, RecordDict
from torch import Tensor

from roles.common.exchange import (
    PSI,
    Classify,
    FitClassifier,
    Losses,
    LossGradient,
    Predictions,
    Request,
    ValidateClassifier,
    Work,
    expect,
)
from roles.common.protection import protection_of
from roles.common.weights import State, groups_of, prefixed, without_statistics
from roles.user.base import UserTraining
from roles.user.training import TransformerTraining
from sim.exchange.job import Job
from sim.exchange.messages import ARRAYS, METRICS, MessageError, decode_tensors, encode_tensors
from sim.exchange.payloads import encode_curve
from sim.exchange.sessions import Session
from sim.nodes.user.state import UserState, new_training
from sim.run.machine import compute_of, store_of
from sim.run.progress import report_step

_TEST_BATCH = 500


class TrainSession(Session):
    """One round of a user's training, or several in a row (message ``train``).

    A user that is sent a theta goes on from it, and sends its own with the reply; a user that is sent none keeps its
    own.
    """

    kind, started_by, role = "train", "train", "user"
    is_long = True

    def begin(self, content: RecordDict) -> None:
        """See :class:`Session`."""
        job, arrays = self._job, content.array_records.get(ARRAYS)
        self._averaged = bool(arrays)
        # An averaged theta belongs to the end of the round before; a user's own training goes on from wherever it is.
        finished = job.round - 1 if arrays else job.round + job.rounds - 1
        self._training: UserTraining = UserState(job, self._index).training_after(finished)
        if arrays:
            _adopt(job, self._training, decode_tensors(arrays))

    def work(self) -> Work[RecordDict]:
        """Train through the rounds, keep the state after each, and reply as any Flower strategy expects."""
        job, training, rounds = self._job, self._training, self._job.experiment.strategy.rounds
        state, last = UserState(job, self._index), job.round + job.rounds - 1
        for number in range(job.round, last + 1):
            if number < last and training.reached(number, rounds):
                continue
            work = training.run(number, rounds)
            yield from _keeping(state, training, work) if state.before_requests else work
            state.keep_round(number, training)
        row = training.curve[-1] if training.curve else {}
        loss, accuracy = row.get("train_loss", 0.0), row.get("train_accuracy", 0.0)
        metrics = MetricRecord({"num-examples": training.images, "loss": loss, "accuracy": accuracy})
        if not self._averaged:
            return RecordDict({METRICS: metrics})
        local = job.experiment.strategy.batch_norm == "local"
        theta = without_statistics(training.theta()) if local else training.theta()
        return RecordDict({ARRAYS: encode_tensors(theta), METRICS: metrics})

    def checkpoint(self) -> tuple[State, dict[str, Any]]:
        """See :class:`Session`."""
        tensors, numbers = self._training.checkpoint()
        return tensors, {"training": numbers, "averaged": self._averaged}

    def restore(self, tensors: State, numbers: Mapping[str, Any]) -> None:
        """See :class:`Session`."""
        self._training = new_training(self._job, self._index)
        self._training.restore(tensors, numbers["training"])
        self._averaged = numbers["averaged"]

    def account(self, request: Request, sent: int, received: int) -> None:
        """Count queries, images and bytes of what the training asks, and report the step."""
        if isinstance(request, LossGradient | Losses | FitClassifier | ValidateClassifier):
            training, traffic = self._training, self._training.traffic
            traffic.queries += 1
            traffic.images += len(request.ids)
            traffic.sent_bytes += sent
            traffic.received_bytes += received
            label = f"user {self._index}"
            report_step(self._job.run, "users", label, training.step, training.total_steps, training.loss)


def _keeping(state: UserState, training: UserTraining, work: Work[None]) -> Work[None]:
    """Pass on what ``work`` asks and is answered, with its state kept before each request but the first."""
    with contextlib.suppress(StopIteration):
        request = next(work)
        while True:
            state.keep_request(training)
            request = work.send((yield request))


def _network_of(training: UserTraining) -> TransformerTraining:
    if not isinstance(training, TransformerTraining):
        raise MessageError("a user with a conventional protection has no theta")
    return training


def _adopt(job: Job, training: UserTraining, theta: State) -> None:
    _network_of(training).adopt(theta, own_statistics=job.experiment.strategy.batch_norm == "local")


class ValidateSession(Session):
    """Loss and accuracy of a theta on a user's validation images (message ``evaluate``)."""

    kind, started_by, role = "validate", "evaluate", "user"
    is_long = True

    def begin(self, content: RecordDict) -> None:
        """See :class:`Session`."""
        training = UserState(self._job, self._index).training_after(self._job.round)
        if arrays := content.array_records.get(ARRAYS):
            _adopt(self._job, training, decode_tensors(arrays))
        self._training = _network_of(training)

    def work(self) -> Work[RecordDict]:
        """Ask for the losses of all validation images."""
        loss, accuracy, images = yield from self._training.validation()
        return RecordDict({METRICS: MetricRecord({"num-examples": images, "loss": loss, "accuracy": accuracy})})

    def checkpoint(self) -> tuple[State, dict[str, Any]]:
        """See :class:`Session`."""
        return self._training.checkpoint()

    def restore(self, tensors: State, numbers: Mapping[str, Any]) -> None:
        """See :class:`Session`."""
        self._training = _network_of(new_training(self._job, self._index))
        self._training.restore(tensors, numbers)


class TestSession(Session):
    """Protected test images through the provider's service (message ``evaluate.test``; Section III-A, steps 4, 5)."""

    kind, started_by, role = "test", "evaluate.test", "user"

    def begin(self, content: RecordDict) -> None:
        """See :class:`Session`."""
        self._theta = decode_tensors(content.array_records[ARRAYS])
        self._labels: list[Tensor] = []

    def work(self) -> Work[RecordDict]:
        """Protect the test images and have them classified, batch by batch."""
        experiment, user = self._job.experiment, self._index
        config = experiment.user_config(user)
        protect = protection_of(config, user, experiment.seed, self._theta, compute_of(experiment))
        images = store_of(experiment).images("test")[: experiment.attack.test_images]
        for which in torch.split(torch.arange(len(images)), _TEST_BATCH)[len(self._labels) :]:
            protected = protect(images[which], "test", which)
            answer = expect((yield Classify(protected, user if config.needs_classifier else PSI)), Predictions)
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
        job: what was to be done.
        user: who publishes.
        average: what the strategy has made of the thetas, which the user makes public with what it has not shared, as
            it was after the last round that it has finished; by default a theta of its own, after the last of all.

    Raises:
        ValueError: the user has not finished its training or, where there is an average, no round of it.
    """
    trained, own = UserState(job, user).trained(of_average=average is not None)
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
    theta = trained.theta if average is None else own | average
    curves = {"curve": encode_curve(trained.curve), "checks": encode_curve(trained.checks)}
    return RecordDict({ARRAYS: encode_tensors(theta), METRICS: facts, **curves})
