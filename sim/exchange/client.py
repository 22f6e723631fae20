"""Messages over a Flower Grid: pushed and pulled one by one, and what their failures mean."""

import time
from collections import deque
from collections.abc import Iterable

from flwr.app import Error, Message
from flwr.serverapp import Grid

_SHORTEST_POLL_S, _LONGEST_POLL_S = 0.02, 0.25
_POLL_SHARE = 0.1
"""Of the time without a reply that the next look for one may come late: what takes long is not asked for often."""
_RECENT = 64
_TTL_S = 30 * 24 * 3600
"""Flower drops a message after 12 hours, and one message may be a user's whole training."""
_DEAD_WORKER = (
    "ActorDiedError",
    "RayActorError",
    "ActorUnavailableError",
    "WorkerCrashedError",
    "ray.exceptions.OutOfMemoryError",
)


class WorkerDied(RuntimeError):
    """A worker process of the simulation is gone; what it was doing can only go on in a new one."""


class NotSent(RuntimeError):
    """Flower did not take a message."""


class Client:
    """The ServerApp's end of a Grid."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._recent: deque[float] = deque([time.monotonic()], maxlen=_RECENT)

    def push(self, message: Message) -> str:
        """Send a message, and return the id that its reply will name.

        Raises:
            NotSent: Flower does not take it.
        """
        message.metadata.ttl = _TTL_S
        identifier = next(iter(self._grid.push_messages([message])), None)
        if not identifier:  # None or empty, by the kind of Grid
            raise NotSent("Flower did not take the message: the node is gone, or the message too large")
        return identifier

    def pull(self, identifiers: Iterable[str]) -> list[Message]:
        """Return the replies to messages that have come by now."""
        replies = list(self._grid.pull_messages(identifiers))
        self._recent.extend(time.monotonic() for _ in replies)
        return replies

    def pause(self) -> None:
        """Wait before the next look for replies: the longer, the longer there was none."""
        silence = time.monotonic() - self._recent[-1]
        time.sleep(min(max(_POLL_SHARE * silence, _SHORTEST_POLL_S), _LONGEST_POLL_S))

    def replies_within(self, seconds: float) -> float:
        """Return how many replies come in so many seconds, by those of late."""
        return seconds * len(self._recent) / max(time.monotonic() - self._recent[0], seconds)


def failed(reason: str, message: Message) -> Message:
    """Return an error as the reply to a message that was sent."""
    return Message(Error(0, reason), reply_to=message)


def check_alive(reply: Message) -> None:
    """Check that a reply is not Flower's word that a worker process has died, which would go on saying so.

    Raises:
        WorkerDied: it is.
    """
    if reply.has_error() and any(sign in (reply.error.reason or "") for sign in _DEAD_WORKER):
        raise WorkerDied(
            "a process of Ray's was killed, by somebody or for want of memory (then lower runtime.workers); "
            "nothing that was finished is lost"
        )


def reason_of(reply: Message) -> str:
    """Return in one line why a reply is an error, without the wrapping that a simulation puts around it."""
    reason = (reply.error.reason or "").strip() or "no reason given"
    last = reason.splitlines()[-1].strip().removesuffix("'>")
    for wrapping in ("Message: ", "Error: "):
        last = last.partition(wrapping)[2] or last
    return last
