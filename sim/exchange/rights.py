"""Who may ask what of the provider.

A request names a user. Which node sent it is known to whoever carries it: Flower authenticates nodes, and the
provider's endpoint knows by whom a line was opened (endpoint.py in the provider's room). So no user speaks for another,
and none takes the provider from the others by asking without end.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from flwr.app import RecordDict

from roles.common.config.provider import LimitsConfig
from roles.common.exchange import PSI
from sim.exchange.messages import REQUEST_TYPES, MessageError, content_size, user_of

Asker = tuple[str, int]
"""A node: its role, and its number among the nodes of that role."""

_OF_USERS = frozenset(
    {"query.images", "query.loss_gradient", "query.loss", "query.fit", "query.validate", "query.classify"}
)
_OF_EVALUATORS = frozenset(REQUEST_TYPES) - {"query.loss", "query.fit", "query.validate"}


def spoken(who: Asker) -> str:
    """Return what a node is called in messages to people.

    >>> spoken(("user", 3))
    'user 3'
    """
    return " ".join(map(str, who))


class Gate:
    """Lets requests through, or says why not.

    Args:
        askers: who may ask, by what they are known by: a node id, or a token.
        limits: the provider's.
    """

    def __init__(self, askers: Mapping[Any, Asker], limits: LimitsConfig) -> None:
        self.askers, self._limits = askers, limits
        self._asked = Counter[Asker]()

    def admit(self, known_by: object, message_type: str, content: RecordDict) -> None:
        """Take note of an encoded request.

        Raises:
            MessageError: nobody is known by that; this node may not ask it; or it asks too much.
        """
        who, limits = self.askers.get(known_by), self._limits
        if who is None:
            raise MessageError("whoever asks is neither user nor evaluator of this run")
        if self._asked[who] >= limits.requests:
            raise MessageError(f"{spoken(who)} has asked {limits.requests} times (provider.limits.requests)")
        self._asked[who] += 1
        if said := objection(*who, message_type, user_of(content)):
            raise MessageError(said)
        images = content_size(content)[0]
        if images > limits.images:
            raise MessageError(f"{images} images in one request: at most {limits.images} (provider.limits.images)")


def objection(role: str, index: int, message_type: str, user: int) -> str | None:
    """Return in one line why a node may not ask this, or None if it may.

    Args:
        role: of the node that asks: user or evaluator, which a provider's node may be as well.
        index: its number among the nodes of its role.
        message_type: of the request.
        user: whom the request names.
    """
    if role != "user":
        if message_type not in _OF_EVALUATORS:
            return f"{message_type} is for users, and this is {role} {index}"
        # Gradients for a user of the run would count as its own: an evaluator asks as a guest.
        if message_type == "query.loss_gradient" and user >= 0:
            return f"{role} {index} asks for gradients as user {user}, and it is none"
        return None
    if message_type not in _OF_USERS:
        return f"{message_type} is not for users, and this is user {index}"
    if user != index and not (message_type == "query.classify" and user == PSI):
        return f"user {index} asks {message_type} as {_named(user)}: a user asks for itself alone"
    return None


def _named(user: int) -> str:
    return f"user {user}" if user >= 0 else f"{user}, which is no user"
