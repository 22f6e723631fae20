"""Whose turn it is: which conversation with which node is begun next."""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from flwr.app import Message


@dataclass(eq=False)
class Conversation:
    """A message to a node, and all that follows from it up to the final reply."""

    nodes: Sequence[int]
    """Whichever of them is free first is sent the message; the preferred ones first."""
    message_to: Callable[[int], Message]
    """Makes the message, once its node is chosen."""
    finished: Callable[[Message], None]
    """Called with the final reply."""
    first: bool = False
    """Whether it goes before all that are not."""
    message: Message | None = None
    """The message, once it is on its way."""

    @property
    def sent(self) -> Message:
        """The message that is on its way."""
        assert self.message is not None
        return self.message


class Scheduler:
    """Conversations that wait for their turn, and those that are open.

    Args:
        room: how many may be open at present.
        per_node: how many messages a node may have in flight; a node that keeps state between messages: 1.
    """

    def __init__(self, room: Callable[[], float], per_node: Callable[[int], int]) -> None:
        self._room, self._per_node = room, per_node
        self._pending: list[Conversation] = []
        self._busy: Counter[int] = Counter()
        self.open: set[Conversation] = set()

    def add(self, conversation: Conversation) -> None:
        """Let a conversation wait for its turn, behind those that came before it."""
        self._pending.append(conversation)

    def due(self) -> Iterator[Conversation]:
        """Open the conversations whose turn it is, one by one, and yield each with its message made."""
        if not self._pending:
            return
        pending = deque(sorted(self._pending, key=lambda conversation: not conversation.first))
        self._pending, blocked, full = [], list[Conversation](), set[int]()
        while pending and len(self.open) < self._room():
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
            conversation.message = conversation.message_to(node)
            self._busy[node] += 1
            self.open.add(conversation)
            yield conversation
        # One that could not be reached may have led to more, which wait behind these.
        self._pending = [*blocked, *pending, *self._pending]

    def close(self, conversation: Conversation) -> None:
        """Note that an open conversation has come to its end."""
        self.open.remove(conversation)
        self._busy[conversation.sent.metadata.dst_node_id] -= 1

    def abandon(self, conversation: Conversation) -> None:
        """Close a conversation whatever it waits for, or never open it."""
        if conversation in self.open:
            self.close(conversation)
        else:
            self._pending.remove(conversation)
