"""The bridge from a party's work (a generator that asks) to Flower's messages (a handler that returns).

Direct: the work runs to its end inside one message, each request answered by a call. Relayed: the handler returns at
each request, and the work goes on when the answer arrives: with the generator if this process still has it, else with
one started anew from the state on disk. Any worker process may get any node's next message, so the disk is the truth.
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
class _Waiting:
    ticket: int
    session: Session
    work: Work[RecordDict]
    request: Request
    written: tuple[int, int]
    """Which writing of its state on disk it belongs to."""


_waiting: dict[Path, _Waiting] = {}


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
    return _go_on(session, session.work(), None, path, ticket=1)


def resume_relayed(
    new_session: Callable[[], Session], path: Path, ticket: int, answer_content: RecordDict
) -> RecordDict:
    """Take a session up with the provider's answer and run it to its next request or its end.

    Raises:
        MessageError: no session waits for this answer.
        ExchangeError: the provider refused the request.
    """
    waiting = _waiting.pop(path, None)
    # Tickets count from 1 at every start: what this process has may be from before others took the session further.
    if waiting is None or waiting.ticket != ticket or waiting.written != _written(path):
        waiting = _reload(new_session(), path, ticket)
    sent = content_bytes(encode_request(waiting.request)[1])
    waiting.session.account(waiting.request, sent, content_bytes(answer_content))
    return _go_on(waiting.session, waiting.work, decode_answer(answer_content), path, ticket + 1)


def _reload(session: Session, path: Path, ticket: int) -> _Waiting:
    if not path.is_file():
        raise MessageError(f"no session waits at {path.name}")
    tensors, metadata = load(path)
    numbers = json.loads(metadata["numbers"])
    if numbers["ticket"] != ticket:
        raise MessageError(f"the session at {path.name} waits for answer {numbers['ticket']}, this is answer {ticket}")
    session.restore(tensors, numbers["state"])
    work = session.work()
    return _Waiting(ticket, session, work, next(work), _written(path))


def _written(path: Path) -> tuple[int, int]:
    """Return what tells one writing of a file from the next."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return 0, 0
    return status.st_ino, status.st_mtime_ns


def _go_on(session: Session, work: Work[RecordDict], answer: Answer | None, path: Path, ticket: int) -> RecordDict:
    try:
        request = next(work) if answer is None else work.send(answer)
    except StopIteration as end:
        path.unlink(missing_ok=True)
        result: RecordDict = end.value
        return result
    tensors, numbers = session.checkpoint()
    save(path, tensors, {"numbers": json.dumps({"ticket": ticket, "state": numbers})})
    # A session holds a network and what its backward pass needs: those that others have taken further only take room.
    for other in [other for other, waiting in _waiting.items() if waiting.written != _written(other)]:
        del _waiting[other]
    _waiting[path] = _Waiting(ticket, session, work, request, _written(path))
    message_type, content = encode_request(request)
    return suspended(content, message_type, ticket)
