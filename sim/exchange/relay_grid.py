"""The Grid that a strategy is given, behind which a relay answers what nodes ask."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from sim.exchange.relay import Relay


class RelayGrid(Grid):
    """The Grid that a strategy is given: users are its nodes, and whatever they ask the provider is answered inside.

    Args:
        users: node ids, in the order of the users.
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
