"""Messages to nodes that may go away and come back: those of a deployment.

Flower says of a node that has been silent for a minute that it is gone. Of one that was started again in that time it
says nothing: what the node was doing has no reply, ever. A node works on one message at a time, so a second one that is
answered tells that the first is lost.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from logging import INFO, WARNING

from flwr.app import Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.common.logger import log
from flwr.serverapp import Grid

from sim.exchange.client import Client
from sim.exchange.messages import JOB

_PROBE_AFTER_S = 30.0
"""So long after a message a second is sent; a node has taken up the first by then, since it looks every few seconds."""
_PROBE_AGAIN_S = 600.0
"""After so long without a reply the second message is sent again: it may be lost as well."""
_GRACE_S = 15.0
"""For how long a reply that Flower is carrying may come after that to the second message."""
_MOST_CRASHES = 2
"""How often a node's process may crash over a message, such as killed for want of memory, before that is its reply."""
_AGAIN_S = 10.0
"""After so long a node that was gone is tried again."""


@dataclass
class _Sent:
    """A message that has no reply yet, under the id that whoever sent it knows."""

    message: Message
    current: str | None
    """Id of what was sent last; None: the node is gone, and it is to be sent again."""
    since: float
    """When that was."""
    gone_since: float | None = None
    probe: str | None = None
    """Id of the second message, while nobody has replied to it."""
    probed: float = 0
    """When it was sent, or found lost."""
    answered: float | None = None
    """When it was answered."""
    crashes: int = 0
    """How often the process that worked on it has crashed."""

    def is_lost(self, now: float) -> None:
        """Note that nobody works on it: it is to be sent again."""
        self.current, self.probe, self.answered, self.since = None, None, None, now


class PatientClient(Client):
    """A client that sends again what a node has lost, and waits for one that is gone.

    Args:
        patience: seconds to wait for a node, after which its error is the reply.
        names: what nodes are called, by their ids, where that is known.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        grid: Grid,
        patience: float,
        names: Mapping[int, str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(grid)
        self._patience, self._names, self._clock = patience, names, clock
        self._sent: dict[str, _Sent] = {}

    def push(self, message: Message) -> str:
        """See :class:`Client`."""
        identifier = super().push(message)
        self._sent[identifier] = _Sent(message, identifier, self._clock())
        return identifier

    def pull(self, identifiers: Iterable[str]) -> list[Message]:
        """See :class:`Client`; a reply names the message as it was first sent, however often that was."""
        wanted = {identifier: self._sent[identifier] for identifier in identifiers}
        for sent in wanted.values():
            self._look_after(sent)
        asked = {sent.current: name for name, sent in wanted.items() if sent.current is not None}
        probes = {sent.probe: name for name, sent in wanted.items() if sent.probe is not None}
        replies = []
        for reply in super().pull([*asked, *probes]):
            identifier = reply.metadata.reply_to_message_id
            if identifier in asked:
                if self._is_last(reply, self._sent[asked[identifier]]):
                    reply.metadata.__dict__["_reply_to_message_id"] = asked[identifier]
                    del self._sent[asked[identifier]]
                    replies.append(reply)
            elif known := self._sent.get(probes[identifier]):
                known.probe, known.probed = None, self._clock()
                known.answered = None if reply.has_error() else self._clock()
        return replies

    def _is_last(self, reply: Message, sent: _Sent) -> bool:
        """Return whether a reply is what whoever sent the message is told, or the node is to be waited for."""
        if not reply.has_error():
            return True
        now = self._clock()
        if reply.error.code == ErrorCode.CLIENT_APP_CRASHED and sent.crashes < _MOST_CRASHES:
            sent.crashes += 1
            log(WARNING, "a process of %s crashed; its work is sent again", self._name(sent))
            sent.is_lost(now)
            return False
        if reply.error.code != ErrorCode.NODE_UNAVAILABLE:
            return True
        if sent.gone_since is None or now - sent.since > _PROBE_AFTER_S:  # another absence than the one before
            sent.gone_since = now
            log(WARNING, "%s is gone; it is waited for %.0f seconds", self._name(sent), self._patience)
        if now - sent.gone_since > self._patience:
            return True
        sent.is_lost(now)
        return False

    def _look_after(self, sent: _Sent) -> None:
        now = self._clock()
        if sent.current is None:
            if now - sent.since >= _AGAIN_S:
                self._send_again(sent)
        elif sent.answered is not None:
            if now - sent.answered >= _GRACE_S:
                log(WARNING, "%s was started again; so is its work", self._name(sent))
                self._send_again(sent)
        elif now - max(sent.since, sent.probed) >= (_PROBE_AFTER_S if sent.probe is None else _PROBE_AGAIN_S):
            message = sent.message
            content = RecordDict({JOB: message.content.config_records[JOB]})
            sent.probe, sent.probed = super().push(Message(content, message.metadata.dst_node_id, "query.role")), now

    def _name(self, sent: _Sent) -> str:
        node = sent.message.metadata.dst_node_id
        return self._names.get(node, f"node {node}")

    def _send_again(self, sent: _Sent) -> None:
        message = sent.message
        if sent.gone_since is not None:
            log(INFO, "%s is asked again", self._name(sent))
        again = Message(message.content, message.metadata.dst_node_id, message.metadata.message_type)
        sent.current, sent.probe, sent.answered, sent.since = super().push(again), None, None, self._clock()
