"""The relay: a Grid in which a node's reply may be a question to the provider, answered before anyone sees it.

A strategy sees users only and calls ``send_and_receive`` as always. Inside, many users are in flight at once; questions
that come in together travel to the provider as one message; a user goes on as soon as its own answer is there.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from logging import WARNING

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid

from roles.common.config.provider import LimitsConfig
from sim.exchange.access import OPEN, Directions
from sim.exchange.batcher import Batcher, PendingRequest
from sim.exchange.client import Client, NotSent, check_alive, failed
from sim.exchange.load import ProviderLoad
from sim.exchange.messages import JOB, MessageError, encode_refusal
from sim.exchange.patience import PatientClient
from sim.exchange.rights import Gate, spoken
from sim.exchange.scheduler import Conversation, Scheduler
from sim.exchange.suspension import resume_content, suspension_of

_LATENCY_S = 0.25
"""For how long a message of a simulation is under way while nobody works on it: Flower looks for new ones every 0.1 s,
less often when it is busy."""


class Relay:
    """Conversations with nodes; whatever a node asks on the way is answered by the provider.

    Args:
        job: goes with every message to the provider.
        under_way: how many messages to keep under way in a simulation, beside those that wait for Flower to carry them:
            every 0.1 s it compares each of them with each node, so no more are sent than keep the workers busy. None:
            every node has a machine of its own, and all are sent at once.
        per_node: how many messages a node may have in flight; a node that keeps state between messages: 1.
        idle: called now and then while waiting, for progress.
        own: by message type, what is answered here and not by the provider.
        load: told of every request that is sent on to the provider.
        gate: who may ask what of the provider; None: nobody, as yet.
        patience: for how many seconds a node of a deployment that is gone is waited for; None: in a simulation.
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
        gate: Gate | None = None,
        patience: float | None = None,
    ) -> None:
        self._gate = gate or Gate({}, LimitsConfig())
        names = {node: spoken(who) for node, who in self._gate.askers.items()} | {provider: "the provider"}
        self._client = Client(grid) if patience is None else PatientClient(grid, patience, names)
        self._provider, self._job = provider, job
        self.endpoint = Directions(self._gate.askers)
        self._stranded: list[PendingRequest] = []
        self._opening: str | None = None
        self._late: set[Conversation] = set()
        self._under_way = math.inf if under_way is None else under_way
        self._scheduler = Scheduler(self._room, per_node)
        self._batcher = Batcher(self._client, provider, job, load or ProviderLoad())
        self._idle, self._own = idle, own or {}
        self._in_flight: dict[str, Conversation] = {}

    def submit(
        self,
        nodes: Sequence[int],
        message_to: Callable[[int], Message],
        finished: Callable[[Message], None],
        first: bool = False,
    ) -> Conversation:
        """Queue a message to whichever of ``nodes`` is free first; it is sent while somebody runs :meth:`run`.

        Args:
            nodes: node ids, the preferred ones first.
            message_to: called with the chosen node's id when the message is sent.
            finished: called with the final reply; it may submit more.
            first: whether it goes before all that wait and are not; among themselves, both keep their order.
        """
        conversation = Conversation(nodes, message_to, finished, first)
        self._scheduler.add(conversation)
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
            for conversation in self._scheduler.due():
                self._push(conversation.sent, conversation)
            for asked, refusal in self._batcher.send():
                self._resume(asked, refusal)
            if not (self._scheduler.open - self._late) or (deadline is not None and time.monotonic() > deadline):
                return
            batch = self._batcher.in_flight
            own = {identifier for identifier in (batch, self._opening) if identifier is not None}
            replies = self._client.pull(set(self._in_flight) | own)
            for reply in replies:
                self._receive(reply)
            self._idle()
            if not replies:
                self._client.pause()

    def ask(self, message: Message) -> Message:
        """Send one message and return its final reply; see :meth:`exchange`."""
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
            timeout: seconds after which to return with what has come; None waits. Whoever has not replied by then is
                not waited for any longer.
            finished: called with every final reply, as it comes.

        Raises:
            WorkerDied: a worker process of the simulation is gone.
        """
        replies: dict[int, Message] = {}

        def begin(number: int, message: Message) -> Conversation:
            def note(reply: Message) -> None:
                replies[number] = reply
                finished(reply)

            return self.submit([message.metadata.dst_node_id], lambda node: message, note)

        conversations = [begin(number, message) for number, message in enumerate(messages)]
        self.run(lambda: len(replies) == len(conversations), timeout)
        for number, conversation in enumerate(conversations):
            if number not in replies:
                self._abandon(conversation)
        return [replies[number] for number in sorted(replies)]

    def _room(self) -> float:
        """Return how many conversations may be open: those that are worked on, and those that Flower carries."""
        return self._under_way + self._client.replies_within(_LATENCY_S)

    def _push(self, message: Message, conversation: Conversation) -> None:
        self.endpoint.tell(message)
        try:
            self._in_flight[self._client.push(message)] = conversation
        except NotSent as error:
            self._end(conversation, failed(str(error), conversation.sent))

    def _receive(self, reply: Message) -> None:
        check_alive(reply)
        identifier = reply.metadata.reply_to_message_id
        if identifier == self._batcher.in_flight:
            for asked, answer in self._batcher.received(reply):
                if asked.conversation in self._scheduler.open:
                    self._resume(asked, answer)
            return
        if identifier == self._opening:
            self._opened(reply)
            return
        conversation = self._in_flight.pop(identifier)
        if conversation in self._late:
            # Its node is free again; nobody waits for what it says.
            self._late.remove(conversation)
            self._scheduler.close(conversation)
            return
        if reply.has_error():
            # Flower's own errors, of a node that is gone or a message that has expired, name no node.
            self._end(conversation, Message(reply.error, reply_to=conversation.sent))
            return
        try:
            suspension = suspension_of(reply)
        except MessageError as error:
            self._end(conversation, failed(str(error), conversation.sent))
            return
        if suspension is None:
            self._end(conversation, reply)
        else:
            self._asked(PendingRequest(conversation, suspension))

    def _asked(self, asked: PendingRequest) -> None:
        kind, node = asked.suspension.message_type, asked.conversation.sent.metadata.dst_node_id
        if own := self._own.get(kind):
            self._resume(asked, own(asked.suspension.request))
            return
        try:
            self._gate.admit(node, kind, asked.suspension.request)
        except MessageError as error:
            self._resume(asked, encode_refusal(error))
            return
        if self.endpoint.is_missed_by(node, kind):
            self._stranded.append(asked)
            self._open_again()
        else:
            self._batcher.add(asked)

    def _open_again(self) -> None:
        """Have the provider open its endpoint; like a batch of requests, this waits for no room."""
        if self._opening is None:
            try:
                self._opening = self._client.push(Message(RecordDict({JOB: self._job}), self._provider, OPEN))
            except NotSent as error:
                self._carry(str(error))

    def _opened(self, reply: Message) -> None:
        self._opening, problem = None, reply.error.reason if reply.has_error() else ""
        try:
            if not problem:
                self.endpoint.learn(reply.content)
        except MessageError as error:
            problem = str(error)
        self._carry(problem)

    def _carry(self, problem: str | None) -> None:
        """Carry to the provider what nodes could not ask at the endpoint; with a problem, all from now on."""
        if problem:
            log(WARNING, "the provider's endpoint cannot be opened, and all is relayed: %s", problem)
            self.endpoint.forget()
        stranded, self._stranded = self._stranded, []
        for asked in stranded:
            self._batcher.add(asked)

    def _resume(self, asked: PendingRequest, answer: RecordDict) -> None:
        original = asked.conversation.sent
        action = original.metadata.message_type.partition(".")[0]
        content = resume_content(original.content.config_records[JOB], asked.suspension.ticket, answer)
        self._push(Message(content, original.metadata.dst_node_id, f"{action}.resume"), asked.conversation)

    def _end(self, conversation: Conversation, reply: Message) -> None:
        self._scheduler.close(conversation)
        conversation.finished(reply)

    def _abandon(self, conversation: Conversation) -> None:
        """Wait for a conversation no longer; while its node works on it, that is busy."""
        self._batcher.abandon(conversation)
        self._stranded = [asked for asked in self._stranded if asked.conversation is not conversation]
        if conversation in self._in_flight.values():
            self._late.add(conversation)
        else:
            self._scheduler.abandon(conversation)
