"""Requests of many nodes to the provider, merged into one message at a time."""

from collections.abc import Iterator
from dataclasses import dataclass

from flwr.app import ConfigRecord, Message, RecordDict

from sim.exchange.client import Client, NotSent
from sim.exchange.load import ProviderLoad
from sim.exchange.messages import JOB, MessageError, content_size, encode_refusal, merge, split
from sim.exchange.scheduler import Conversation
from sim.exchange.suspension import Suspension


@dataclass
class PendingRequest:
    """What a node asks in the course of a conversation."""

    conversation: Conversation
    suspension: Suspension


Answered = Iterator[tuple[PendingRequest, RecordDict]]
"""Requests, each with the encoded answer."""


class Batcher:
    """One message at a time to the provider: what comes in while it is under way travels together in the next.

    Args:
        job: goes with every message.
        load: told of every request that is sent.
    """

    def __init__(self, client: Client, provider: int, job: ConfigRecord, load: ProviderLoad) -> None:
        self._client, self._provider, self._job, self._load = client, provider, job, load
        self._waiting: list[PendingRequest] = []
        self._batch: list[PendingRequest] = []
        self.in_flight: str | None = None
        """Id of the message that is under way."""

    def add(self, asked: PendingRequest) -> None:
        """Take a request for the next message."""
        self._waiting.append(asked)

    def send(self) -> Answered:
        """Send the waiting requests of one type, if none are under way; yield those that cannot be sent, refused."""
        if self.in_flight is not None or not self._waiting:
            return
        kind = self._waiting[0].suspension.message_type
        batch = [asked for asked in self._waiting if asked.suspension.message_type == kind]
        self._waiting = [asked for asked in self._waiting if asked.suspension.message_type != kind]
        merged = merge({number: asked.suspension.request for number, asked in enumerate(batch)})
        try:
            content = RecordDict({JOB: self._job, **dict(merged.items())})
            self.in_flight = self._client.push(Message(content, self._provider, kind))
        except NotSent as error:
            yield from ((asked, encode_refusal(error)) for asked in batch)
            return
        self._batch = batch
        for asked in batch:
            self._load.count(*content_size(asked.suspension.request))

    def received(self, reply: Message) -> Answered:
        """Yield the requests that were under way, with what the provider's reply says to each."""
        batch, self._batch, self.in_flight = self._batch, [], None
        unanswered = encode_refusal(RuntimeError("the provider left this request unanswered"))
        answers: dict[int, RecordDict] = {}
        if reply.has_error():
            unanswered = encode_refusal(RuntimeError(reply.error.reason))
        else:
            try:
                answers = split(reply.content)
            except MessageError as error:
                unanswered = encode_refusal(error)
        yield from ((asked, answers.get(number, unanswered)) for number, asked in enumerate(batch))

    def abandon(self, conversation: Conversation) -> None:
        """Drop what waits to be asked in the course of a conversation."""
        self._waiting = [asked for asked in self._waiting if asked.conversation is not conversation]
