"""The bridge from a party's work (a generator that asks) to Flower's messages (a handler that returns).

Direct: the work runs to its end inside one message, each request answered in the same process; or, at the provider's
endpoint, on a line to another (line.py). Relayed: the handler returns at each request, and the session waits in a
:class:`SessionStore` until the answer arrives. What an endpoint does not answer is relayed, too.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from flwr.app import RecordDict

from roles.common.exchange import Answer, Published, Request, Work, drive
from roles.common.files import writing_of
from roles.common.seeds import DRAWING
from roles.common.weights import State, load, save
from sim.exchange.job import Job
from sim.exchange.line import Line, LineDown
from sim.exchange.messages import MessageError, content_size, decode_answer, encode_request, size_of
from sim.exchange.suspension import Suspension, Ticket


class Session(ABC):
    """One piece of a party's work that may have to wait for the provider.

    Made for a job and the number of its node among those of its role, it takes up the message that asks for it
    (:meth:`begin`) or its own state (:meth:`restore`).
    """

    kind: ClassVar[str]
    """What its name begins with; by it, a registry knows the class."""
    started_by: ClassVar[str]
    """Type of the message that asks for it."""
    role: ClassVar[str]
    """Of the node whose work it is."""
    is_long: ClassVar[bool] = False
    """Whether it asks at every step of a training: in a simulation it waits in a Ray actor (session_actors.py)."""

    def __init__(self, job: Job, index: int) -> None:
        self._job, self._index = job, index

    @property
    def name(self) -> str:
        """What it is called among the sessions of its node: letters, digits and hyphens, after its kind."""
        return self.kind

    @abstractmethod
    def begin(self, content: RecordDict) -> None:
        """Take up the message that asks for it; one that lacks something is a :class:`MessageError`."""

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


Sessions = Mapping[str, type[Session]]
"""The registry: by kind."""


def run_direct(session: Session, answer: Callable[[Request], Answer]) -> RecordDict:
    """Run a session to its end in this process; what ``answer`` raises ends it."""

    def accounted(request: Request) -> Answer:
        reply = answer(request)
        session.account(request, size_of(request)[1], size_of(reply)[1])
        return reply

    return drive(session.work(), accounted)


@dataclass(frozen=True)
class _Waiting:
    """A session that waits for the answer to a request."""

    number: int
    """Of the request, from 1."""
    session: Session
    work: Work[RecordDict]
    request: Request
    sent_bytes: int
    """Size of the request on the wire."""
    written: tuple[int, int] = (0, 0)
    """Which writing of its file it belongs to (files.py)."""


class SessionStore:
    """Where sessions wait between two messages: in this process and, if asked, on disk.

    On disk, because any process may get the node's next message: the file is the truth then, and what this process has
    only saves the time to read it. A process that gets all messages of its sessions needs no file.

    Args:
        kinds: the sessions that it can make.
        on_disk: whether their state is kept on disk as well.
    """

    def __init__(self, kinds: Sessions, on_disk: bool) -> None:
        self._kinds, self._on_disk = kinds, on_disk
        self._waiting: dict[Path, _Waiting] = {}

    def start(
        self, kind: str, job: Job, index: int, folder: Path, content: RecordDict, line: Line | None = None
    ) -> RecordDict:
        """Run a new session up to its first request or its end, and return its reply.

        Args:
            folder: the node's own, which no other node writes to.
            content: of the message that asks for it.
            line: to the provider's endpoint, which answers what it can; then the session waits for nothing.
        """
        # Initial weights are drawn from PyTorch's one global generator, after it has been seeded for this session.
        with DRAWING:
            session = self._kinds[kind](job, index)
            session.begin(content)
        if self._on_disk:
            _forget_ended(folder)
        work = session.work()
        return self._until_request(_file(folder, session.name), session, work, lambda: next(work), 1, line)

    def resume(
        self, ticket: Ticket, job: Job, index: int, folder: Path, answer: RecordDict, line: Line | None = None
    ) -> RecordDict:
        """Take a session up with the answer it waits for, and run it to its next request or its end.

        Raises:
            MessageError: no session waits for this answer.
            ExchangeError: the provider refused the request.
        """
        path = _file(folder, ticket.session)
        waiting = self._waiting.get(path)
        if self._on_disk and (waiting is None or waiting.written != writing_of(path)):
            # Tickets count from 1 at every start: others may have taken the session further than this process has it.
            waiting = self._read(ticket, job, index, path)
        if self._on_disk and waiting is not None and waiting.number == ticket.number + 1:
            # The answer was taken, and the reply to it was lost with the process that was to send it.
            return _asking(waiting.request, Ticket(ticket.session, waiting.number))
        if waiting is None or waiting.number != ticket.number:
            known = "no answer" if waiting is None else f"answer {waiting.number}"
            raise MessageError(f"session {ticket.session} waits for {known}, this is answer {ticket.number}")
        self._waiting.pop(path, None)
        session, work = waiting.session, waiting.work
        session.account(waiting.request, waiting.sent_bytes, content_size(answer)[1])
        decoded = decode_answer(answer)
        return self._until_request(path, session, work, lambda: work.send(decoded), ticket.number + 1, line)

    def forget(self) -> None:
        """Drop what this process has in memory."""
        self._waiting.clear()

    def _until_request(
        self,
        path: Path,
        session: Session,
        work: Work[RecordDict],
        go_on: Callable[[], Request],
        number: int,
        line: Line | None,
    ) -> RecordDict:
        try:
            request = go_on()
            while (answer := _answered(request, session, line)) is not None:
                request = work.send(answer)
        except StopIteration as end:
            if self._on_disk and path.is_file():
                # The reply may be lost with the process that is to send it: the same answer will be sent again.
                path.replace(_ended(path))
            result: RecordDict = end.value
            return result
        reply = _asking(request, Ticket(session.name, number))
        written = (0, 0)
        if self._on_disk:
            tensors, numbers = session.checkpoint()
            save(path, tensors, {"numbers": json.dumps({"ticket": number, "state": numbers})})
            # A session holds a network and what its backward pass needs: one that others took further takes up room.
            self._waiting = {other: it for other, it in self._waiting.items() if it.written == writing_of(other)}
            written = writing_of(path)
        self._waiting[path] = _Waiting(number, session, work, request, size_of(request)[1], written)
        return reply

    def _read(self, ticket: Ticket, job: Job, index: int, path: Path) -> _Waiting | None:
        found = next((file for file in (path, _ended(path)) if file.is_file()), None)
        if found is None:
            return None
        tensors, metadata = load(found)
        numbers = json.loads(metadata["numbers"])
        # What is drawn here is thrown away, but not to be drawn between another session's seed and its weights.
        with DRAWING:
            session = self._kinds[ticket.kind](job, index)
            session.restore(tensors, numbers["state"])
        work = session.work()
        request = next(work)
        return _Waiting(numbers["ticket"], session, work, request, size_of(request)[1])


def _answered(request: Request, session: Session, line: Line | None) -> Answer | None:
    """Return the endpoint's answer, or None where there is no endpoint, it is gone, or it does not know."""
    if line is None or isinstance(request, Published):
        return None
    try:
        answer = line.ask(request)
    except LineDown:
        return None
    session.account(request, size_of(request)[1], size_of(answer)[1])
    return answer


def _asking(request: Request, ticket: Ticket) -> RecordDict:
    """Return the reply that asks."""
    message_type, content = encode_request(request)
    return Suspension(message_type, ticket, content).encode()


def _file(folder: Path, name: str) -> Path:
    return folder / "waiting" / f"{name}.safetensors"


def _ended(path: Path) -> Path:
    """Return where the last state of a session stays when it has ended."""
    return path.with_suffix(".ended")


def _forget_ended(folder: Path) -> None:
    """Delete what :func:`_ended` has kept: a node that is given other work has had its replies taken."""
    for path in (folder / "waiting").glob("*.ended"):
        path.unlink(missing_ok=True)
