"""The relay: a Grid in which a node's reply may be a question to the provider, answered before anyone sees it.

A strategy sees users only and calls ``send_and_receive`` as always. Inside, every user is in flight at once; questions
that come in together travel to the provider as one message; a user goes on as soon as its own answer is there.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.serverapp import Grid

from sim.messages import JOB, MessageError, Suspension, encode_refusal, merge, resume_content, split, suspension_of

_POLL_S = 0.02
_DEAD_WORKER = (
    "ActorDiedError",
    "RayActorError",
    "ActorUnavailableError",
    "WorkerCrashedError",
    "ray.exceptions.OutOfMemoryError",
)


class WorkerDied(RuntimeError):
    """A worker process of the simulation is gone; what it was doing can only go on in a new one."""


@dataclass
class _Asked:
    """A node's question on its way to the provider."""

    original: Message
    suspension: Suspension


class Relay:
    """Conversations with nodes, one message in flight at each, questions answered by the provider.

    Args:
        idle: called a few times a second while waiting, for progress.
    """

    def __init__(self, grid: Grid, provider: int, job: ConfigRecord, idle: Callable[[], None] = lambda: None) -> None:
        self._grid, self._provider, self._job, self._idle = grid, provider, job, idle

    def converse(
        self,
        next_message: Callable[[int], Message | None],
        nodes: Sequence[int],
        finished: Callable[[Message, Message], None],
        timeout: float | None = None,
    ) -> None:
        """Send messages to ``nodes`` until there are none left and all have their final reply.

        Args:
            next_message: called with a free node's id; returns what to send it next, or None.
            finished: called with a message and its final reply, in the order of arrival.
            timeout: seconds after which to return with what has come; None waits.

        Raises:
            WorkerDied: a worker process of the simulation is gone.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        free = deque(nodes)
        in_flight: dict[str, Message] = {}
        original_of: dict[str, Message] = {}
        questions: list[_Asked] = []
        asked: tuple[str, list[_Asked]] | None = None
        while True:
            for _ in range(len(free)):
                node = free.popleft()
                message = next_message(node)
                if message is not None:
                    self._push(message, message, in_flight, original_of)
            if asked is None and questions:
                # One message at a time to the provider: what comes in meanwhile travels together.
                kind = questions[0].suspension.message_type
                batch = [question for question in questions if question.suspension.message_type == kind]
                questions = [question for question in questions if question.suspension.message_type != kind]
                merged = merge({number: question.suspension.request for number, question in enumerate(batch)})
                content = RecordDict({JOB: self._job, **dict(merged.items())})
                (identifier,) = self._grid.push_messages([Message(content, self._provider, f"{kind}")])
                asked = (identifier, batch)
            if not in_flight and asked is None and not questions:
                return
            if deadline is not None and time.monotonic() > deadline:
                return
            waiting = set(in_flight) | ({asked[0]} if asked else set())
            replies = list(self._grid.pull_messages(waiting))
            for reply in replies:
                identifier = reply.metadata.reply_to_message_id
                self._check_alive(reply)
                if asked is not None and identifier == asked[0]:
                    for question, answer in zip(asked[1], self._answers(reply, len(asked[1])), strict=True):
                        self._resume(question, answer, in_flight, original_of)
                    asked = None
                    continue
                in_flight.pop(identifier)
                original = original_of.pop(identifier)
                try:
                    suspension = None if reply.has_error() else suspension_of(reply)
                except MessageError as error:
                    suspension, reply = None, Message(Error(0, str(error)), reply_to=original)
                if suspension is None:
                    finished(original, reply)
                    free.append(original.metadata.dst_node_id)
                else:
                    questions.append(_Asked(original, suspension))
            self._idle()
            if not replies:
                time.sleep(_POLL_S)

    def ask(self, message: Message) -> Message:
        """Send one message and return its final reply.

        Raises:
            WorkerDied: a worker process of the simulation is gone.
        """
        (reply,) = self.exchange([message])
        return reply

    def exchange(self, messages: Iterable[Message], timeout: float | None = None) -> list[Message]:
        """Send all messages and return their final replies, in the order of the messages.

        The order does not depend on who was first: an average over the replies is the same in every run.
        """
        ordered = list(messages)
        queues: dict[int, deque[Message]] = {}
        for message in ordered:
            queues.setdefault(message.metadata.dst_node_id, deque()).append(message)
        replies: dict[int, Message] = {}
        self.converse(
            lambda node: queues[node].popleft() if queues[node] else None,
            list(queues),
            lambda message, reply: replies.__setitem__(id(message), reply),
            timeout,
        )
        return [replies[id(message)] for message in ordered if id(message) in replies]

    def _push(
        self, message: Message, original: Message, in_flight: dict[str, Message], original_of: dict[str, Message]
    ) -> None:
        (identifier,) = self._grid.push_messages([message])
        in_flight[identifier] = message
        original_of[identifier] = original

    def _resume(
        self, question: _Asked, answer: RecordDict, in_flight: dict[str, Message], original_of: dict[str, Message]
    ) -> None:
        original = question.original
        action = original.metadata.message_type.partition(".")[0]
        content = resume_content(original.content.config_records[JOB], question.suspension.ticket, answer)
        self._push(
            Message(content, original.metadata.dst_node_id, f"{action}.resume"), original, in_flight, original_of
        )

    def _answers(self, reply: Message, count: int) -> list[RecordDict]:
        if reply.has_error():
            return [encode_refusal(RuntimeError(reply.error.reason))] * count
        try:
            answers = split(reply.content)
        except MessageError as error:
            return [encode_refusal(error)] * count
        missing = encode_refusal(RuntimeError("the provider left this request unanswered"))
        return [answers.get(number, missing) for number in range(count)]

    def _check_alive(self, reply: Message) -> None:
        if reply.has_error() and any(sign in (reply.error.reason or "") for sign in _DEAD_WORKER):
            raise WorkerDied(
                "a worker process died, most likely for want of memory (lower runtime.workers or the batch size); "
                "nothing that was finished is lost"
            )


class RelayGrid(Grid):
    """The Grid that a strategy is given: users are its nodes, and whatever they ask the provider is answered inside."""

    def __init__(self, grid: Grid, relay: Relay, users: Sequence[int]) -> None:
        self._grid, self._relay, self._users = grid, relay, list(users)
        self.failures: dict[int, str] = {}
        """By node id: why a user's last message failed."""

    def set_run(self, run: Any) -> None:
        """See :class:`Grid`."""
        self._grid.set_run(run)

    @property
    def run(self) -> Any:
        """See :class:`Grid`."""
        return self._grid.run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """See :class:`Grid`."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Return the users' node ids, in the order of the users."""
        return list(self._users)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Push as they are: what a node then asks comes back to the caller of :meth:`pull_messages`."""
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """See :class:`Grid`."""
        return self._grid.pull_messages(message_ids)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Send, let the provider answer what the users ask, and return their final replies in the order of the users.

        Flower's strategies draw users in an order that no seed decides, and the last bits of an average depend on it.
        """
        order = {node: position for position, node in enumerate(self._users)}
        replies = self._relay.exchange(sorted(messages, key=lambda m: order[m.metadata.dst_node_id]), timeout)
        for reply in replies:
            self.failures.pop(reply.metadata.src_node_id, None)
            if reply.has_error():
                self.failures[reply.metadata.src_node_id] = reply.error.reason or "no reason given"
        return replies
