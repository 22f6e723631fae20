"""What becomes of a trained transformer: it is published, protects test images, is attacked."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from logging import ERROR
from typing import cast

from flwr.app import ArrayRecord, Message, RecordDict
from flwr.common.logger import log

from roles.common.weights import State
from sim.evaluator_node import BLUR
from sim.messages import ARRAYS, METRICS, Job, decode_attack, decode_curve, decode_tensors, encode_job, encode_tensors
from sim.progress import Status
from sim.relay import Relay, reason_of
from sim.runs import PublishedTransformer, RunFolder, subject_of, user_name


class Evaluation:
    """Steps 4 and 5 of Section III-A, and the attacks of Section IV-B; what an earlier attempt has finished is skipped.

    A user's next step is submitted when its last is done, so that users which are trained early are evaluated while
    others still train. Thetas stay on disk but for those that are under way.

    Args:
        users: node ids, in the order of the users.
        evaluators: node ids of those who attack.
    """

    def __init__(self, relay: Relay, users: Sequence[int], evaluators: Sequence[int], run: RunFolder, job: Job) -> None:
        self._relay, self._users, self._evaluators = relay, users, evaluators
        self._run, self._job = run, job
        self._subjects = {BLUR, *(subject_of(job.experiment, user) for user in range(len(users)))}
        self._submitted: set[str] = set()
        self._attacked = sum(run.attack_path(subject).is_file() for subject in self._subjects)
        self._status_shown = False

    def add(self, user: int, shared: State | None = None) -> None:
        """Take a user's transformer as far as it can be taken.

        Args:
            shared: the theta that all users publish; by default the user's own.
        """
        if self._run.is_published(user):
            self._test(user)
            return

        def keep(content: RecordDict) -> None:
            theta = shared if shared is not None else decode_tensors(content.array_records[ARRAYS])
            facts = {name: float(cast(float, value)) for name, value in content.metric_records[METRICS].items()}
            curve = decode_curve(content.metric_records["curve"])
            self._run.keep_user(user, PublishedTransformer(theta, facts, curve))
            self._test(user)

        self._submit(user, "query.publish", self._job, False, keep)

    def add_control(self) -> None:
        """Have the positive control attacked: blurred images, which every inverse network must be able to recover."""
        self._attack(BLUR, None)

    def finish(self) -> None:
        """Wait for everything that was added.

        Raises:
            WorkerDied: a worker process of the simulation is gone.
        """
        self._status_shown, began = True, time.time()
        self._show()
        self._relay.run()
        self._run.note({"attacks_seconds": self._run.facts().get("attacks_seconds", 0.0) + time.time() - began})

    def _show(self) -> None:
        if self._status_shown:
            Status("attacks", self._attacked, len(self._subjects), "attacks").write(self._run.path)

    def _submit(
        self, user: int, message_type: str, job: Job, with_theta: bool, keep: Callable[[RecordDict], None]
    ) -> None:
        def message_to(node: int) -> Message:
            records = {ARRAYS: encode_tensors(self._run.theta(user))} if with_theta else {}
            return Message(RecordDict({"config": encode_job(job), **records}), node, message_type)

        def finished(reply: Message) -> None:
            if reply.has_error():
                log(ERROR, "user %d: %s", user, reason_of(reply))
                # Why its training failed says more than that it has nothing to publish.
                name = user_name(user)
                self._run.keep_failure(name, self._run.failure(name) or reason_of(reply))
            else:
                keep(reply.content)

        self._relay.submit([self._users[user]], message_to, finished)

    def _test(self, user: int) -> None:
        subject = subject_of(self._job.experiment, user)
        if self._run.predictions(user) is not None:
            self._attack(subject, user)
            return

        def keep(content: RecordDict) -> None:
            self._run.keep_predictions(user, decode_tensors(content.array_records[ARRAYS])["labels"])
            self._attack(subject, user)

        self._submit(user, "evaluate.test", replace(self._job, subject="test"), True, keep)

    def _attack(self, subject: str, user: int | None) -> None:
        if subject in self._submitted or self._run.attack_path(subject).is_file():
            return
        self._submitted.add(subject)

        def message_to(node: int) -> Message:
            records: dict[str, ArrayRecord] = {}
            if user is not None:
                records[ARRAYS] = encode_tensors(self._run.theta(user))
                labels = self._run.predictions(user)
                assert labels is not None
                records["predictions"] = encode_tensors({"labels": labels})
            content = RecordDict({"config": encode_job(replace(self._job, subject=subject)), **records})
            return Message(content, node, "evaluate.itn")

        def finished(reply: Message) -> None:
            if reply.has_error():
                log(ERROR, "attack on %s failed: %s", subject, reason_of(reply))
                self._run.keep_failure(subject, reason_of(reply))
            else:
                self._run.keep_attack(subject, decode_attack(reply.content))
                self._run.forget_failure(subject)
            self._attacked += 1
            self._show()

        self._relay.submit(self._evaluators, message_to, finished)
