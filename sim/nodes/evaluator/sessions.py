"""An evaluator as a node: one attack on one published transformer, or on a control; one part of a study."""

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from flwr.app import RecordDict
from torch import nn

from roles.common.exchange import Work, other_classifier
from roles.common.labels import load_labels
from roles.common.protection import Protect, network_of, protection_of
from roles.common.weights import State, groups_of, prefixed
from roles.evaluator.attack import evaluate_protection
from roles.evaluator.attacker import Attacker, Labels
from roles.evaluator.controls import blurred
from roles.evaluator.study import HONEST, StudyContext
from sim.config.experiment import Experiment
from sim.exchange.job import Job
from sim.exchange.messages import ARRAYS, decode_tensors
from sim.exchange.payloads import StudyPart, decode_study, decode_subject, encode_attack, encode_findings
from sim.exchange.sessions import Session
from sim.run.machine import compute_of, store_of
from sim.run.progress import report_step
from sim.run.subject import CONTROL, Subject


@lru_cache(maxsize=1)
def _labels_in(folder: Path) -> Labels:
    return partial(load_labels, folder)


def _attacker(job: Job, phase: str, label: str) -> Attacker:
    experiment, store = job.experiment, store_of(job.experiment)
    return Attacker(
        store,
        _labels_in(store.folder) if experiment.attack.labels else None,
        experiment.attack,
        compute_of(experiment),
        experiment.attack_seed,
        partial(report_step, job.run, phase, label),
        other_classifier(0) if experiment.other_classifiers else None,
    )


def _protection_of(experiment: Experiment, user: int, theta: State) -> Protect:
    return protection_of(experiment.user_config(user), user, experiment.seed, theta, compute_of(experiment))


def _network_of(experiment: Experiment, user: int, theta: State) -> nn.Module | None:
    return network_of(experiment.user_config(user), user, theta, compute_of(experiment))


class AttackSession(Session):
    """The ITN attacks on one protection (message ``evaluate.itn``; Section III-D)."""

    kind, started_by, role = "attack", "evaluate.itn", "evaluator"

    @property
    def name(self) -> str:
        """See :class:`Session`."""
        return f"{self.kind}-{self._subject.name}"

    def begin(self, content: RecordDict) -> None:
        """See :class:`Session`: theta is empty where a key protects, and for a control."""
        records = content.array_records
        name, self._known = decode_subject(content)
        self._subject = Subject.named(name)
        self._theta: State = decode_tensors(records[ARRAYS]) if ARRAYS in records else {}
        known = decode_tensors(records["predictions"]) if "predictions" in records else {}
        self._state: State = prefixed("protected", known)

    def work(self) -> Work[RecordDict]:
        """Attack, but for what is known already, measure, and reply with everything found."""
        experiment, subject, known = self._job.experiment, self._subject, self._known
        attacker = _attacker(self._job, "attacks", subject.title)
        config = attacker.config.model_copy(update={"itns": subject.itns_of(experiment)})
        attacker = replace(attacker, config=config)
        if subject == CONTROL:
            protect = blurred(experiment.attack.blur_sigma)
            result = yield from evaluate_protection(protect, None, attacker, self._state, known)
        else:
            protect = _protection_of(experiment, subject.user, self._theta)
            protection = experiment.user_config(subject.user).protection
            result = yield from evaluate_protection(protect, protection, attacker, self._state, known)
        return encode_attack(result)

    def checkpoint(self) -> tuple[State, dict[str, Any]]:
        """See :class:`Session`."""
        numbers = {"subject": self._subject.name, "known": self._known}
        return prefixed("state", self._state) | prefixed("theta", self._theta), numbers

    def restore(self, tensors: State, numbers: Mapping[str, Any]) -> None:
        """See :class:`Session`."""
        groups = groups_of(tensors)
        self._state, self._theta, self._subject = groups["state"], groups["theta"], Subject.named(numbers["subject"])
        self._known = numbers["known"]


class StudySession(Session):
    """One part of a study (message ``evaluate.study``)."""

    kind, started_by, role = "study", "evaluate.study", "evaluator"

    @property
    def name(self) -> str:
        """See :class:`Session`."""
        return f"{self.kind}-{self._part.kind}-{self._part.part}"

    def begin(self, content: RecordDict) -> None:
        """See :class:`Session`."""
        self._part, self._state = decode_study(content), State()

    def work(self) -> Work[RecordDict]:
        """Do the part, and reply with its rows and pictures.

        Raises:
            ValueError: the experiment has no such study.
        """
        experiment, part = self._job.experiment, self._part
        study = next((study for study in experiment.studies if study.kind == part.kind), None)
        if study is None:
            raise ValueError(f"the experiment has no study {part.kind!r}")
        context = StudyContext(
            _attacker(self._job, "studies", f"{part.kind}/{part.part}"),
            partial(_protection_of, experiment),
            partial(_network_of, experiment),
            [config.name for config in experiment.other_classifier_configs()],
            lambda user: experiment.user_config(user).needs_classifier,
            self._state,
            experiment.provider.defence,
            lambda user: hijack.describe() if (hijack := experiment.provider.hijack_of(user)) else HONEST,
        )
        found = yield from study.work(part.part, part.published, context)
        return encode_findings(found, context.pictures)

    def checkpoint(self) -> tuple[State, dict[str, Any]]:
        """See :class:`Session`."""
        return dict(self._state), vars(self._part)

    def restore(self, tensors: State, numbers: Mapping[str, Any]) -> None:
        """See :class:`Session`."""
        self._state, self._part = tensors, StudyPart(**numbers)
