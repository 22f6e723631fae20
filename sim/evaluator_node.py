"""An evaluator as a node: one attack on one published transformer, or on a control."""

from collections.abc import Mapping
from typing import Any

from flwr.app import RecordDict
from torch import Tensor

from roles.common.exchange import Work
from roles.common.seeds import derived_seed
from roles.common.weights import State, groups_of, prefixed
from roles.evaluator.attack import Protect, evaluate_protection
from roles.evaluator.controls import blur
from sim.messages import Job, encode_attack
from sim.nodes import compute_of, store_of, user_of
from sim.progress import Heart
from sim.protection import cipher_attacks_on, protection_of
from sim.sessions import Session

BLUR = "control-blur"


class AttackSession(Session):
    """The ITN attacks on one protection (message ``evaluate.itn``; Section III-D).

    Args:
        theta: the published weights; empty where a key protects, and for a control.
        predictions: predicted labels of the protected test images, where the user already has them.
    """

    def __init__(self, job: Job, theta: State, predictions: Tensor | None, heart: Heart) -> None:
        self._job, self._theta, self._heart = job, theta, heart
        self._state: State = {} if predictions is None else {"protected/labels": predictions}

    def work(self) -> Work[RecordDict]:
        """Attack, measure, and reply with everything found."""
        job, experiment = self._job, self._job.experiment
        attack = experiment.attack
        if job.subject != BLUR and experiment.user_config(user_of(job.subject)).needs_classifier:
            # A key belongs to places in the image: the mirror image of an encrypted one is encrypted with another key.
            attack = attack.model_copy(update={"flip": False})
        result = yield from evaluate_protection(
            self._protection(),
            store_of(experiment),
            attack,
            compute_of(experiment),
            derived_seed(experiment.seed, "attack"),
            self._state,
            lambda step, total, loss: self._heart.beat(job.run, "attacks", job.subject, step, total, loss),
            {} if job.subject == BLUR else cipher_attacks_on(experiment, user_of(job.subject)),
        )
        return encode_attack(result)

    def _protection(self) -> Protect:
        experiment = self._job.experiment
        if self._job.subject == BLUR:
            return lambda images, split, positions: blur(images, experiment.attack.blur_sigma)
        return protection_of(experiment, user_of(self._job.subject), self._theta)

    def checkpoint(self) -> tuple[State, dict[str, Any]]:
        """See :class:`Session`."""
        return prefixed("state", self._state) | prefixed("theta", self._theta), {}

    def restore(self, tensors: State, numbers: Mapping[str, Any]) -> None:
        """See :class:`Session`."""
        groups = groups_of(tensors)
        self._state, self._theta = groups["state"], groups["theta"]
