"""What becomes of a trained transformer: it is published, protects test images, is attacked."""

from collections import Counter
from collections.abc import Callable
from logging import ERROR
from typing import cast

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.common.logger import log

from roles.common.naming import user_name
from sim.config.errors import one_line
from sim.exchange.client import reason_of
from sim.exchange.job import job_content
from sim.exchange.messages import ARRAYS, METRICS, decode_tensors, encode_tensors
from sim.exchange.payloads import decode_attack, decode_curve, encode_subject
from sim.phases.roster import Roster
from sim.run.folder import Publication
from sim.run.subject import CONTROL, Subject, subjects_of

_BESIDE = {"query.publish": "to publish", "evaluate.test": "to test"}
"""What users that have trained are waited for to do."""


class Evaluation:
    """Steps 4 and 5 of Section III-A, and the attacks of Section IV-B; what an earlier attempt has finished is skipped.

    A user's next step is submitted when its last is done, and goes before the training of others that waits for a
    worker: nobody waits for the slowest user. Thetas stay on disk but for those that are under way.

    Args:
        roster: who takes part.
        published: called with every user that has published.
    """

    def __init__(self, roster: Roster, published: Callable[[int], None]) -> None:
        self._roster, self._run, self._tell_published = roster, roster.run, published
        self._published = set(self._run.published())
        # A provider that evaluates as well has its users' questions to answer first.
        self._training, self._while_training = True, roster.evaluators != [roster.provider]
        self._waiting: list[tuple[Subject, int]] = []
        self._subjects = set(subjects_of(roster.job.experiment))
        self._submitted: set[Subject] = set()
        self._attacked = sum(not self._missing(subject) for subject in self._subjects)
        self._beside = Counter[str]()

    def add(self, user: int, average: ArrayRecord | None = None) -> None:
        """Take a user's transformer as far as it can be taken.

        Args:
            user: who has trained.
            average: what a strategy that averages has made of the users' thetas.
        """
        if user in self._published:
            self._test(user)
            return

        def keep(content: RecordDict) -> None:
            theta = decode_tensors(content.array_records[ARRAYS])
            facts = {name: float(cast(float, value)) for name, value in content.metric_records[METRICS].items()}
            curve = decode_curve(content.metric_records["curve"])
            checks = decode_curve(content.metric_records["checks"])
            self._run.keep_user(user, theta, Publication(facts, curve, checks))
            self._published.add(user)
            self._tell_published(user)
            self._test(user)

        self._ask_user(user, "query.publish", lambda: average, keep)

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
            self._roster.relay.run()
        return bool(self._published)

    def _show(self) -> None:
        board, total = self._roster.board, len(self._subjects)
        if not self._training:
            board.show("attacks", "attacks", self._attacked, total, users=0)
        board.note(self._beside, attacks=total - self._attacked)

    def _ask_user(
        self,
        user: int,
        message_type: str,
        arrays: Callable[[], ArrayRecord | None],
        keep: Callable[[RecordDict], None],
    ) -> None:
        def message_to(node: int) -> Message:
            carried = arrays()
            records = {} if carried is None else {ARRAYS: carried}
            return Message(job_content(self._roster.job, **records), node, message_type)

        def finished(reply: Message) -> None:
            self._beside[_BESIDE[message_type]] -= 1
            reason = failure_of(reply, keep)
            if reason is None:
                self._show()
                return
            log(ERROR, "user %d: %s", user, reason)
            name = user_name(user)
            # Why its training failed says more than that it has nothing to publish.
            known = self._run.failure(name) if message_type == "query.publish" else ""
            self._run.keep_failure(name, known or reason)
            self._subjects.discard(Subject("user", user))
            self._show()

        self._beside[_BESIDE[message_type]] += 1
        self._show()
        self._roster.relay.submit([self._roster.users[user]], message_to, finished, first=True)

    def _test(self, user: int) -> None:
        # Blurred images, which every inverse network must be able to recover; without a published theta there would be
        # nothing that they are a control for.
        self._attack(CONTROL, user)
        if self._run.predictions(user) is not None:
            self._attack_on(user)
            return

        def keep(content: RecordDict) -> None:
            self._run.keep_predictions(user, decode_tensors(content.array_records[ARRAYS])["labels"])
            self._attack_on(user)

        self._ask_user(user, "evaluate.test", lambda: encode_tensors(self._run.theta(user)), keep)

    def _attack_on(self, user: int) -> None:
        # What failed in an earlier attempt has been done by now, or is tried again.
        self._run.forget_failure(user_name(user))
        self._attack(Subject.of(self._roster.job.experiment, user), user)

    def _missing(self, subject: Subject) -> list[str]:
        return self._run.missing_itns(subject, self._roster.job.experiment)

    def _attack(self, subject: Subject, user: int) -> None:
        """Have a subject attacked; ``user`` is one whose published theta it is, or that it is a control for."""
        if self._training and not self._while_training:
            self._waiting.append((subject, user))
            return
        if subject in self._submitted:
            return
        self._run.forget_failure(subject.name)
        if not self._missing(subject):
            return
        self._submitted.add(subject)
        known = self._run.attacks_on(subject)

        def message_to(node: int) -> Message:
            records: dict[str, ArrayRecord | ConfigRecord] = {"subject": encode_subject(subject.name, known)}
            if subject != CONTROL:
                labels = self._run.predictions(user)
                assert labels is not None
                records[ARRAYS] = encode_tensors(self._run.theta(user))
                records["predictions"] = encode_tensors({"labels": labels})
            return Message(job_content(self._roster.job, **records), node, "evaluate.itn")

        def finished(reply: Message) -> None:
            reason = failure_of(reply, lambda content: self._run.add_attack(subject, decode_attack(content)))
            if reason is not None:
                log(ERROR, "attack on %s failed: %s", subject.name, reason)
                self._run.keep_failure(subject.name, reason)
            self._attacked += 1
            self._show()

        self._roster.relay.submit(self._roster.evaluators, message_to, finished, first=True)


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
