"""An evaluator as a node: one attack on one published transformer, or on a control; one part of a study."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from flwr.app import RecordDict
from torch import Tensor

from roles.common.exchange import Work
from roles.common.seeds import derived_seed
from roles.common.weights import State, groups_of, prefixed
from roles.evaluator.attack import Protect, evaluate_protection
from roles.evaluator.controls import blur
from roles.evaluator.study import Lab
from sim.messages import Job
from sim.nodes import compute_of, store_of, user_of
from sim.progress import Heart
from sim.protection import cipher_attacks_on, network_of, protection_of
from sim.result_messages import encode_attack, encode_findings
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
        result = yield from evaluate_protection(
            self._protection(),
            store_of(experiment),
            experiment.attack,
            compute_of(experiment),
            derived_seed(experiment.seed, "attack"),
            self._state,
            lambda step, total, loss: self._heart.beat(job.run, "attacks", job.subject, step, total, loss),
            {} if job.subject == BLUR else cipher_attacks_on(experiment, user_of(job.subject)),
            keyed=job.subject != BLUR and experiment.user_config(user_of(job.subject)).needs_classifier,
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


class StudySession(Session):
    """One part of a study (message ``evaluate.study``).

    Args:
        published: the users that have published.
    """

    def __init__(self, job: Job, published: Sequence[int], heart: Heart) -> None:
        self._job, self._published, self._heart = job, list(published), heart
        self._state: State = {}

    def work(self) -> Work[RecordDict]:
        """Do the part, and reply with its rows.

        Raises:
            ValueError: the experiment has no such study.
        """
        job, experiment = self._job, self._job.experiment
        kind, _, part = job.subject.partition("/")
        study = next((study for study in experiment.studies if study.kind == kind), None)
        if study is None:
            raise ValueError(f"the experiment has no study {kind!r}")
        lab = Lab(
            store_of(experiment),
            experiment.attack,
            compute_of(experiment),
            derived_seed(experiment.seed, "attack"),
            partial(protection_of, experiment),
            partial(network_of, experiment),
            [config.name for config in experiment.other_classifier_configs()],
            lambda user: experiment.user_config(user).needs_classifier,
            self._state,
            lambda step, total, loss: self._heart.beat(job.run, "studies", job.subject, step, total, loss),
        )
        return encode_findings((yield from study.work(part, self._published, lab)))

    def checkpoint(self) -> tuple[State, dict[str, Any]]:
        """See :class:`Session`."""
        return dict(self._state), {"published": self._published}

    def restore(self, tensors: State, numbers: Mapping[str, Any]) -> None:
        """See :class:`Session`."""
        self._state, self._published = tensors, numbers["published"]
