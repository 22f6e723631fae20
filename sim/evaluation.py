"""What becomes of a trained transformer: it is published, protects test images, is attacked."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from logging import ERROR
from typing import cast

from flwr.app import ArrayRecord, Message, RecordDict
from flwr.common.logger import log

from sim.config import one_line
from sim.evaluator_node import BLUR
from sim.messages import ARRAYS, METRICS, Job, decode_tensors, encode_tensors, job_content
from sim.nodes import user_name
from sim.progress import Status
from sim.relay import Relay, reason_of
from sim.result_messages import decode_attack, decode_curve
from sim.runs import Publication, RunFolder, subject_of


class Evaluation:
    """Steps 4 and 5 of Section III-A, and the attacks of Section IV-B; what an earlier attempt has finished is skipped.

    A user's next step is submitted when its last is done, and goes before the training of others that waits for a
    worker: nobody waits for the slowest user. Thetas stay on disk but for those that are under way.

    Args:
        users: node ids, in the order of the users.
        evaluators: node ids of those who attack.
        while_training: whether they attack while users still train, having nothing else to do.
        published: called with every user that has published.
    """

    def __init__(
        self,
        relay: Relay,
        users: Sequence[int],
        evaluators: Sequence[int],
        run: RunFolder,
        job: Job,
        while_training: bool,
        published: Callable[[int], None],
    ) -> None:
        self._relay, self._users, self._evaluators = relay, users, evaluators
        self._run, self._job, self._published = run, job, published
        self._training, self._while_training = True, while_training
        self._waiting: list[tuple[str, int | None]] = []
        self._subjects = {BLUR, *(subject_of(job.experiment, user) for user in range(len(users)))}
        self._submitted: set[str] = set()
        self._attacked = sum(run.attack_path(subject).is_file() for subject in self._subjects)

    def add(self, user: int, average: ArrayRecord | None = None) -> None:
        """Take a user's transformer as far as it can be taken.

        Args:
            average: what a strategy that averages has made of the users' thetas.
        """
        if self._run.is_published(user):
            self._test(user)
            return

        def keep(content: RecordDict) -> None:
            theta = decode_tensors(content.array_records[ARRAYS])
            facts = {name: float(cast(float, value)) for name, value in content.metric_records[METRICS].items()}
            curve = decode_curve(content.metric_records["curve"])
            self._run.keep_user(user, theta, Publication(facts, curve))
            self._published(user)
            self._test(user)

        self._submit(user, "query.publish", self._job, lambda: average, keep)

    def finish(self) -> bool:
        """Wait for everything that was added and what follows from it; return whether any user has published.

        Raises:
            WorkerDied: a worker process of the simulation is gone.
        """
        self._training = False
        self._show()
        with self._run.timing("attacks_seconds"):
            for subject, user in self._waiting:
                self._attack(subject, user)
            self._relay.run()
        return any(self._run.is_published(user) for user in range(len(self._users)))

    def _show(self) -> None:
        if not self._training:
            Status("attacks", self._attacked, len(self._subjects), "attacks").write(self._run.path)

    def _submit(
        self,
        user: int,
        message_type: str,
        job: Job,
        arrays: Callable[[], ArrayRecord | None],
        keep: Callable[[RecordDict], None],
    ) -> None:
        def message_to(node: int) -> Message:
            carried = arrays()
            records = {} if carried is None else {ARRAYS: carried}
            return Message(job_content(job, **records), node, message_type)

        def finished(reply: Message) -> None:
            reason = failure_of(reply, keep)
            if reason is None:
                return
            log(ERROR, "user %d: %s", user, reason)
            name = user_name(user)
            # Why its training failed says more than that it has nothing to publish.
            known = self._run.failure(name) if message_type == "query.publish" else ""
            self._run.keep_failure(name, known or reason)
            self._subjects.discard(name)
            self._show()

        self._relay.submit([self._users[user]], message_to, finished, first=True)

    def _test(self, user: int) -> None:
        # Blurred images, which every inverse network must be able to recover; without a published theta there would be
        # nothing that they are a control for.
        self._attack(BLUR, None)
        subject = subject_of(self._job.experiment, user)
        if self._run.predictions(user) is not None:
            self._attack(subject, user)
            return

        def keep(content: RecordDict) -> None:
            self._run.keep_predictions(user, decode_tensors(content.array_records[ARRAYS])["labels"])
            self._attack(subject, user)

        self._submit(
            user,
            "evaluate.test",
            replace(self._job, subject="test"),
            lambda: encode_tensors(self._run.theta(user)),
            keep,
        )

    def _attack(self, subject: str, user: int | None) -> None:
        if self._training and not self._while_training:
            self._waiting.append((subject, user))
            return
        # What failed in an earlier attempt has been done by now, or is tried again.
        if user is not None:
            self._run.forget_failure(user_name(user))
        if subject in self._submitted:
            return
        self._run.forget_failure(subject)
        if self._run.attack_path(subject).is_file():
            return
        self._submitted.add(subject)

        def message_to(node: int) -> Message:
            records: dict[str, ArrayRecord] = {}
            if user is not None:
                records[ARRAYS] = encode_tensors(self._run.theta(user))
                labels = self._run.predictions(user)
                assert labels is not None
                records["predictions"] = encode_tensors({"labels": labels})
            return Message(job_content(replace(self._job, subject=subject), **records), node, "evaluate.itn")

        def finished(reply: Message) -> None:
            reason = failure_of(reply, lambda content: self._run.keep_attack(subject, decode_attack(content)))
            if reason is not None:
                log(ERROR, "attack on %s failed: %s", subject, reason)
                self._run.keep_failure(subject, reason)
            self._attacked += 1
            self._show()

        self._relay.submit(self._evaluators, message_to, finished, first=True)


def failure_of(reply: Message, keep: Callable[[RecordDict], None]) -> str | None:
    """Keep what a reply brings, or return in one line why that cannot be done."""
    if reply.has_error():
        return reason_of(reply)
    try:
        keep(reply.content)
    except KeyError as error:
        return f"the reply has no record {error}"
    except ValueError as error:
        return one_line(error)
    return None
