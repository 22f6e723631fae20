"""How nodes reach the provider's endpoint, as the ServerApp knows it: opened once, and again where it is gone."""

from collections import Counter
from collections.abc import Mapping
from logging import WARNING

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.common.logger import log

from sim.exchange.line import ACCESS
from sim.exchange.messages import PROVIDER_TYPES, MessageError
from sim.exchange.rights import Asker, spoken

_MOST_MISSED = 10
"""How often a node may miss the endpoint in a run; one that does more often cannot reach it."""
OPEN, CLOSE = "query.endpoint", "query.hang_up"
"""Types of the messages that have the provider open its endpoint, and close it."""


class Directions:
    """What each node is told of the endpoint with every message; nothing, while there is none.

    Args:
        askers: the nodes that may be told, by node id.
    """

    def __init__(self, askers: Mapping[int, Asker]) -> None:
        self._askers = askers
        self._records: dict[Asker, ConfigRecord] = {}
        self._missed = Counter[Asker]()

    def learn(self, content: RecordDict) -> None:
        """Take up the provider's reply to :data:`OPEN`; a MessageError if it says nothing."""
        records = {who: content.config_records.get(name_of(who)) for who in self._askers.values()}
        if missing := [name_of(who) for who, record in records.items() if record is None]:
            raise MessageError(f"the provider's endpoint is open, but not to {', '.join(missing[:3])}")
        unable = {who for who, missed in self._missed.items() if missed > _MOST_MISSED}
        self._records = {who: record for who, record in records.items() if record is not None and who not in unable}

    def forget(self) -> None:
        """Take it that there is no endpoint: what nodes ask then comes by the relay."""
        self._records = {}

    def tell(self, message: Message) -> None:
        """Put into a message how its node reaches the endpoint."""
        # A content of its own: Flower's strategies send one and the same to all, and a simulation does not copy it.
        content = RecordDict({name: record for name, record in message.content.items() if name != ACCESS})
        who = self._askers.get(message.metadata.dst_node_id)
        if who is not None and (record := self._records.get(who)) is not None:
            content[ACCESS] = record
        message.content = content

    def is_missed_by(self, node: int, message_type: str) -> bool:
        """Return whether a node that asks this by the relay had the endpoint to ask: then it is gone."""
        who = self._askers.get(node)
        if who not in self._records or message_type not in PROVIDER_TYPES:
            return False
        self._missed[who] += 1
        if self._missed[who] > _MOST_MISSED:
            log(WARNING, "%s cannot reach the provider's endpoint: what it asks is relayed", spoken(who))
            del self._records[who]
            return False
        return True


def name_of(who: Asker) -> str:
    """Return by what name the reply to :data:`OPEN` knows a node.

    >>> name_of(("user", 3))
    'user/3'
    """
    return "/".join(map(str, who))
