"""The bridge from a party's work (a generator that asks) to Flower's messages (a handler that returns).

Direct: the work runs to its end inside one message, each request answered by a call. Relayed: the handler returns at
each request, and the work goes on when the answer arrives: with the generator if this process still has it, else with
one started anew from the state on disk. Another process may get the node's next message, so the disk is the truth;
where a simulation keeps users at home (``homes.py``), the home is, and nothing is written on the way.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flwr.app import RecordDict

from roles.common.exchange import Answer, Request, Work, drive
from roles.common.weights import State, load, save
from sim.messages import MessageError, content_bytes, decode_answer, encode_request, suspended


class Session(ABC):
    """One piece of a party's work that may have to wait for the provider."""

    @abstractmethod
    def work(self) -> Work[RecordDict]:
        """Return the work from its current state on; its result is the content of the final reply."""

    @abstractmethod
    def checkpoint(self) -> tuple[State, dict[str, Any]]:
        """Return the state: tensors, and numbers as JSON keeps them."""

    @abstractmethod
    def restore(self, tensors: State, numbers: Mapping[str, Any]) -> None:
        """Take up a state."""

    def account(self, request: Request, sent: int, received: int) -> None:  # noqa: B027 - most sessions count nothing
        """Note an answered request and the bytes of both ways."""


@dataclass(frozen=True)
class Suspended:
    """A session that waits for the answer to a request."""

    ticket: int
    """The number of the request, from 1."""
    session: Session
    work: Work[RecordDict]
    request: Request
    sent_bytes: int
    """Size of the request on the wire."""


def advance(
    session: Session, work: Work[RecordDict], answer: Answer | None, ticket: int
) -> tuple[RecordDict, Suspended | None]:
    """Run ``work`` on with an answer (None: from its start); return its reply: final, or a request with ``ticket``."""
    try:
        request = next(work) if answer is None else work.send(answer)
    except StopIteration as end:
        result: RecordDict = end.value
        return result, None
    message_type, content = encode_request(request)
    waiting = Suspended(ticket, session, work, request, content_bytes(content))
    return suspended(content, message_type, ticket), waiting


def resumed(waiting: Suspended, answer: RecordDict) -> tuple[RecordDict, Suspended | None]:
    """Run a session on with the encoded answer it waits for; see :func:`advance`.

    Raises:
        ExchangeError: the provider refused the request.
    """
    waiting.session.account(waiting.request, waiting.sent_bytes, content_bytes(answer))
    return advance(waiting.session, waiting.work, decode_answer(answer), waiting.ticket + 1)


@dataclass(frozen=True)
class _Here:
    """A session that this process still has."""

    waiting: Suspended
    written: tuple[int, int]
    """Which writing of its state on disk it belongs to."""


_here: dict[Path, _Here] = {}


def run_direct(session: Session, call: Callable[[str, RecordDict], RecordDict]) -> RecordDict:
    """Run a session to its end, with ``call(message type, content)`` reaching the provider.

    Raises:
        ExchangeError: the provider refused a request.
    """

    def answer(request: Request) -> Answer:
        message_type, content = encode_request(request)
        reply = call(message_type, content)
        session.account(request, content_bytes(content), content_bytes(reply))
        return decode_answer(reply)

    return drive(session.work(), answer)


def start_relayed(session: Session, path: Path) -> RecordDict:
    """Run a session up to its first request; ``path`` is where its state waits for the answer."""
    return _keep(path, *advance(session, session.work(), None, ticket=1))


def resume_relayed(
    new_session: Callable[[], Session], path: Path, ticket: int, answer_content: RecordDict
) -> RecordDict:
    """Take a session up with the provider's answer and run it to its next request or its end.

    Raises:
        MessageError: no session waits for this answer.
        ExchangeError: the provider refused the request.
    """
    here = _here.pop(path, None)
    # Tickets count from 1 at every start: what this process has may be from before others took the session further.
    if here is not None and here.waiting.ticket == ticket and here.written == _written(path):
        waiting = here.waiting
    else:
        waiting = _reload(new_session(), path, ticket)
    return _keep(path, *resumed(waiting, answer_content))


def _reload(session: Session, path: Path, ticket: int) -> Suspended:
    if not path.is_file():
        raise MessageError(f"no session waits at {path.name}")
    tensors, metadata = load(path)
    numbers = json.loads(metadata["numbers"])
    if numbers["ticket"] != ticket:
        raise MessageError(f"the session at {path.name} waits for answer {numbers['ticket']}, this is answer {ticket}")
    session.restore(tensors, numbers["state"])
    work = session.work()
    request = next(work)
    return Suspended(ticket, session, work, request, content_bytes(encode_request(request)[1]))


def _written(path: Path) -> tuple[int, int]:
    """Return what tells one writing of a file from the next."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return 0, 0
    return status.st_ino, status.st_mtime_ns


def _keep(path: Path, reply: RecordDict, waiting: Suspended | None) -> RecordDict:
    if waiting is None:
        path.unlink(missing_ok=True)
        return reply
    tensors, numbers = waiting.session.checkpoint()
    save(path, tensors, {"numbers": json.dumps({"ticket": waiting.ticket, "state": numbers})})
    # A session holds a network and what its backward pass needs: those that others have taken further only take room.
    for other in [other for other, here in _here.items() if here.written != _written(other)]:
        del _here[other]
    _here[path] = _Here(waiting, _written(path))
    return reply
