"""Flower's Grid with its nodes in this process."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.serverapp import Grid

from sim.client_app import app
from sim.exchange.suspension import REQUEST

PROVIDER, USERS = 100, (201, 202)
"""Node 201 is user 0 with 24 images, node 202 is user 1 with 36."""
ASKERS = {node: ("user", index) for index, node in enumerate(USERS)}


class InMemoryGrid(Grid):
    """Nodes in this process: the real ClientApp handles every message, and errors come back as in a simulation.

    Args:
        one_at_a_time: whether a pull returns one reply at most, the latest first, instead of all there are.
        tamper: may change a reply of the ClientApp.
        silent: nodes that never reply.
        slow: messages that are never replied to.
        unreachable: nodes that no message can be sent to.
        configs: what each node's configuration says of it; by default its number, as in a simulation.
    """

    def __init__(
        self,
        nodes: Iterable[int],
        one_at_a_time: bool = False,
        tamper: Callable[[Message, Message], Message] = lambda message, reply: reply,
        silent: Iterable[int] = (),
        slow: Callable[[Message], bool] = lambda message: False,
        unreachable: Iterable[int] = (),
        configs: Sequence[dict[str, str | int]] | None = None,
    ) -> None:
        nodes = list(nodes)
        numbered = [{"partition-id": number, "num-partitions": len(nodes)} for number in range(len(nodes))]
        self._contexts = {
            node: Context(1, node, dict(config), RecordDict(), {})
            for node, config in zip(nodes, configs or numbered, strict=False)
        }
        self._one_at_a_time, self._tamper, self._silent = one_at_a_time, tamper, set(silent)
        self._slow = slow
        self._unreachable = set(unreachable)
        self._numbers = itertools.count(1)
        self._waiting: dict[str, Message] = {}
        self.sent: list[Message] = []
        self.replies: list[Message] = []
        self.most_in_flight: dict[int, int] = {}

    def of_type(self, message_type: str) -> list[Message]:
        return [message for message in self.sent if message.metadata.message_type == message_type]

    def final_replies(self, message_type: str) -> list[Message]:
        matching = [reply for reply in self.replies if reply.metadata.message_type == message_type]
        return [reply for reply in matching if reply.has_error() or REQUEST not in reply.content.config_records]

    def set_run(self, run: Any) -> None:
        raise AssertionError("nobody asks for this")

    @property
    def run(self) -> Any:
        return "the run"

    def create_message(self, *arguments: Any, **options: Any) -> Message:
        raise AssertionError("nobody asks for this")

    def get_node_ids(self) -> Iterable[int]:
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        identifiers: list[Any] = []
        for message in messages:
            if message.metadata.dst_node_id in self._unreachable:
                identifiers.append(None)  # as Flower does, whatever its types say
                continue
            identifier = f"message {next(self._numbers)}"
            message.metadata.__dict__["_message_id"] = identifier
            self._waiting[identifier] = message
            self.sent.append(message)
            node = message.metadata.dst_node_id
            in_flight = sum(other.metadata.dst_node_id == node for other in self._waiting.values())
            self.most_in_flight[node] = max(in_flight, self.most_in_flight.get(node, 0))
            identifiers.append(identifier)
        return identifiers

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        wanted = set(message_ids)
        assert wanted <= set(self._waiting)
        ready = [i for i in self._waiting if i in wanted and self._waiting[i].metadata.dst_node_id not in self._silent]
        ready = [i for i in ready if not self._slow(self._waiting[i])]
        chosen = ready[-1:] if self._one_at_a_time else list(reversed(ready))
        replies = [self._handle(self._waiting.pop(identifier)) for identifier in chosen]
        self.replies += replies
        return replies

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        raise AssertionError("the relay pushes and pulls")

    def _handle(self, message: Message) -> Message:
        try:
            reply = app(message, self._contexts[message.metadata.dst_node_id])
        except Exception as error:
            said = f"\nException {type(error).__name__} occurred. Message: {error}"
            reason = f"<class 'flwr.clientapp.client_app.ClientAppException'>:<'{said}'>"
            reply = Message(Error(0, reason), reply_to=message)
        return self._tamper(message, reply)
