"""The relay: a Grid in which a node's reply may be a question to the provider, answered before anyone sees it.

A strategy sees users only and calls ``send_and_receive`` as always. Inside, many users are in flight at once; questions
that come in together travel to the provider as one message; a user goes on as soon as its own answer is there.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.serverapp import Grid

from sim.messages import JOB, MessageError, Suspension, encode_refusal, merge, resume_content, split, suspension_of
from sim.provider_load import ProviderLoad

_SHORTEST_POLL_S, _LONGEST_POLL_S = 0.02, 0.25
_POLL_SHARE = 0.1
"""Of the time without a reply that the next look for one may come late: what takes long is not asked for often."""
_LATENCY_S = 0.25
"""For how long a message of a simulation is under way while nobody works on it: Flower looks for new ones every 0.1 s,
less often when it is busy."""
_RECENT = 64
_TTL_S = 30 * 24 * 3600
"""Flower drops a message after 12 hours, and one message may be a user's whole training."""
_NOT_SENT = "Flower did not take the message: the node is gone, or the message too large"
_DEAD_WORKER = (
    "ActorDiedError",
    "RayActorError",
    "ActorUnavailableError",
    "WorkerCrashedError",
    "ray.exceptions.OutOfMemoryError",
)


class WorkerDied(RuntimeError):
    """A worker process of the simulation is gone; what it was doing can only go on in a new one."""


@dataclass(eq=False)
class _Conversation:
    """A message to a node, and all that follows from it up to the final reply."""

    nodes: Sequence[int]
    message_to: Callable[[int], Message]
    finished: Callable[[Message], None]
    first: bool = False
    """Whether it goes before all that are not."""
    sent: Message | None = None
    """The message, once it is on its way."""


@dataclass
class _Question:
    """A node's question on its way to the provider."""

    conversation: _Conversation
    suspension: Suspension


class Relay:
    """Conversations with nodes; whatever a node asks on the way is answered by the provider.

    Args:
        under_way: how many messages to keep under way in a simulation, beside those that wait for Flower to carry them:
            every 0.1 s it compares each of them with each node, so no more are sent than keep the workers busy. None:
            every node has a machine of its own, and all are sent at once.
        per_node: how many messages a node may have in flight; a node that keeps state between messages: 1.
        idle: called now and then while waiting, for progress.
        own: by message type, what is answered here and not by the provider.
        load: told of every request that is sent on to the provider.
    """

    def __init__(
        self,
        grid: Grid,
        provider: int,
        job: ConfigRecord,
        under_way: int | None = None,
        per_node: Callable[[int], int] = lambda node: 1,
        idle: Callable[[], None] = lambda: None,
        own: Mapping[str, Callable[[RecordDict], RecordDict]] | None = None,
        load: ProviderLoad | None = None,
    ) -> None:
        self._grid, self._provider, self._job = grid, provider, job
        self._under_way, self._per_node, self._idle = under_way, per_node, idle
        self._own, self._load = own or {}, load or ProviderLoad()
        self._pending: list[_Conversation] = []
        self._open: set[_Conversation] = set()
        self._busy: Counter[int] = Counter()
        self._in_flight: dict[str, _Conversation] = {}
        self._questions: list[_Question] = []
        self._asked: tuple[str, list[_Question]] | None = None
        self._recent: deque[float] = deque([time.monotonic()], maxlen=_RECENT)

    def submit(
        self,
        nodes: Sequence[int],
        message_to: Callable[[int], Message],
        finished: Callable[[Message], None],
        first: bool = False,
    ) -> _Conversation:
        """Queue a message to whichever of ``nodes`` is free first; it is sent while somebody runs :meth:`run`.

        Args:
            nodes: node ids, the preferred ones first.
            message_to: called with the chosen node's id when the message is sent.
            finished: called with the final reply; it may submit more.
            first: whether it goes before all that wait and are not; among themselves, both keep their order.
        """
        conversation = _Conversation(nodes, message_to, finished, first)
        self._pending.append(conversation)
        return conversation

    def run(self, done: Callable[[], bool] = lambda: False, timeout: float | None = None) -> None:
        """Send, answer and receive until ``done()``, or until nothing is left to wait for.

        Args:
            timeout: seconds after which to return in any case; None waits.

        Raises:
            WorkerDied: a worker process of the simulation is gone.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not done():
            self._send_pending()
            self._send_questions()
            if not self._open or (deadline is not None and time.monotonic() > deadline):
                return
            waiting = set(self._in_flight) | ({self._asked[0]} if self._asked else set())
            replies = list(self._grid.pull_messages(waiting))
            for reply in replies:
                self._recent.append(time.monotonic())
                self._receive(reply)
            self._idle()
            if not replies:
                silence = time.monotonic() - self._recent[-1]
                time.sleep(min(max(_POLL_SHARE * silence, _SHORTEST_POLL_S), _LONGEST_POLL_S))

    def ask(self, message: Message) -> Message:
        """Send one message and return its final reply.

        Raises:
            WorkerDied: a worker process of the simulation is gone.
        """
        (reply,) = self.exchange([message])
        return reply

    def exchange(
        self,
        messages: Iterable[Message],
        timeout: float | None = None,
        finished: Callable[[Message], None] = lambda reply: None,
    ) -> list[Message]:
        """Send all messages and return their final replies, in the order of the messages.

        The order does not depend on who was first: an average over the replies is the same in every run.

        Args:
            finished: called with every final reply, as it comes.
            timeout: seconds after which to return with what has come; None waits. Whoever has not replied by then is
                not waited for any longer.

        Raises:
            WorkerDied: a worker process of the simulation is gone.
        """
        ordered = list(messages)
        replies: dict[int, Message] = {}

        def note(number: int, reply: Message) -> None:
            replies[number] = reply
            finished(reply)

        def as_it_is(message: Message, node: int) -> Message:
            return message

        conversations = [
            self.submit([message.metadata.dst_node_id], partial(as_it_is, message), partial(note, number))
            for number, message in enumerate(ordered)
        ]
        self.run(lambda: len(replies) == len(ordered), timeout)
        for number, conversation in enumerate(conversations):
            if number not in replies:
                self._abandon(conversation)
        return [replies[number] for number in sorted(replies)]

    def _room(self) -> bool:
        if self._under_way is None:
            return True
        rate = len(self._recent) / max(time.monotonic() - self._recent[0], _LATENCY_S)
        return len(self._open) < self._under_way + rate * _LATENCY_S

    def _send_pending(self) -> None:
        if not self._pending or not self._room():
            return
        blocked: list[_Conversation] = []
        full: set[int] = set()
        pending = deque(sorted(self._pending, key=lambda conversation: not conversation.first))
        self._pending = []
        while pending and self._room():
            conversation = pending.popleft()
            # Many attacks wait for the same few evaluators: whether they are busy is asked once.
            free = id(conversation.nodes) not in full and [
                node for node in conversation.nodes if self._busy[node] < self._per_node(node)
            ]
            if not free:
                full.add(id(conversation.nodes))
                blocked.append(conversation)
                continue
            node = min(free, key=lambda node: self._busy[node])
            conversation.sent = conversation.message_to(node)
            self._busy[node] += 1
            self._open.add(conversation)
            self._push(conversation.sent, conversation)
        # Whoever could not be reached may have led to more.
        self._pending = [*blocked, *pending, *self._pending]

    def _push(self, message: Message, conversation: _Conversation) -> None:
        identifier = self._push_one(message)
        if identifier is None:
            self._end(conversation, Message(Error(0, _NOT_SENT), reply_to=_sent(conversation)))
        else:
            self._in_flight[identifier] = conversation

    def _push_one(self, message: Message) -> str | None:
        """Push a message and return its id, or None if Flower does not take it."""
        message.metadata.ttl = _TTL_S
        identifiers: list[str | None] = list(self._grid.push_messages([message]))
        return identifiers[0] if identifiers else None

    def _send_questions(self) -> None:
        if self._asked is not None or not self._questions:
            return
        # One message at a time to the provider: what comes in meanwhile travels together.
        kind = self._questions[0].suspension.message_type
        batch = [question for question in self._questions if question.suspension.message_type == kind]
        self._questions = [question for question in self._questions if question.suspension.message_type != kind]
        merged = merge({number: question.suspension.request for number, question in enumerate(batch)})
        content = RecordDict({JOB: self._job, **dict(merged.items())})
        identifier = self._push_one(Message(content, self._provider, kind))
        if identifier is not None:
            self._asked = (identifier, batch)
            for question in batch:
                self._load.count(question.suspension.request)
            return
        for question in batch:
            self._resume(question, encode_refusal(RuntimeError(_NOT_SENT)))

    def _receive(self, reply: Message) -> None:
        self._check_alive(reply)
        identifier = reply.metadata.reply_to_message_id
        if self._asked is not None and identifier == self._asked[0]:
            batch, self._asked = self._asked[1], None
            for question, answer in zip(batch, self._answers(reply, len(batch)), strict=True):
                if question.conversation in self._open:
                    self._resume(question, answer)
            return
        conversation = self._in_flight.pop(identifier)
        if reply.has_error():
            # Flower's own errors, of a node that is gone or a message that has expired, name no node.
            reply = Message(reply.error, reply_to=_sent(conversation))
        try:
            suspension = None if reply.has_error() else suspension_of(reply)
        except MessageError as error:
            suspension, reply = None, Message(Error(0, str(error)), reply_to=_sent(conversation))
        if suspension is not None:
            question, own = _Question(conversation, suspension), self._own.get(suspension.message_type)
            if own is None:
                self._questions.append(question)
            else:
                self._resume(question, own(suspension.request))
            return
        self._end(conversation, reply)

    def _end(self, conversation: _Conversation, reply: Message) -> None:
        self._close(conversation)
        conversation.finished(reply)

    def _resume(self, question: _Question, answer: RecordDict) -> None:
        original = _sent(question.conversation)
        action = original.metadata.message_type.partition(".")[0]
        content = resume_content(original.content.config_records[JOB], question.suspension.ticket, answer)
        self._push(Message(content, original.metadata.dst_node_id, f"{action}.resume"), question.conversation)

    def _close(self, conversation: _Conversation) -> None:
        self._open.discard(conversation)
        self._busy[_sent(conversation).metadata.dst_node_id] -= 1

    def _abandon(self, conversation: _Conversation) -> None:
        if conversation in self._open:
            self._close(conversation)
            self._in_flight = {i: other for i, other in self._in_flight.items() if other is not conversation}
            self._questions = [question for question in self._questions if question.conversation is not conversation]
        else:
            self._pending.remove(conversation)

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
                "a worker process died, most likely for want of memory (lower runtime.workers); "
                "nothing that was finished is lost"
            )


def reason_of(reply: Message) -> str:
    """Return in one line why a reply is an error, without the wrapping that a simulation puts around it."""
    reason = (reply.error.reason or "").strip() or "no reason given"
    last = reason.splitlines()[-1].strip().removesuffix("'>")
    for wrapping in ("Message: ", "Error: "):
        last = last.partition(wrapping)[2] or last
    return last


def _sent(conversation: _Conversation) -> Message:
    assert conversation.sent is not None
    return conversation.sent


class RelayGrid(Grid):
    """The Grid that a strategy is given: users are its nodes, and whatever they ask the provider is answered inside.

    Args:
        finished: called with the final reply of every user, as it comes.
    """

    def __init__(
        self, grid: Grid, relay: Relay, users: Sequence[int], finished: Callable[[Message], None] = lambda reply: None
    ) -> None:
        self._grid, self._relay, self._users, self._finished = grid, relay, list(users), finished

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
        ordered = sorted(messages, key=lambda message: order[message.metadata.dst_node_id])
        return self._relay.exchange(ordered, timeout, self._finished)
