"""Replies that ask: how a node that cannot go on says so, and how the answer finds back to what waits for it."""

import string
from dataclasses import dataclass

from flwr.app import ConfigRecord, Message, RecordDict

from sim.exchange.messages import JOB, REQUEST_TYPES, MessageError

REQUEST = "request"
"""The record that tells a reply that asks from a final one."""
_LETTERS = frozenset(string.ascii_letters + string.digits + "-_")


@dataclass(frozen=True)
class Ticket:
    """By what a node knows which of its sessions an answer is for."""

    session: str
    """The session's name among those of its node, which begins with its kind."""
    number: int
    """Of the request within the session, from 1."""

    @property
    def kind(self) -> str:
        """The session's kind."""
        return self.session.partition("-")[0]


@dataclass(frozen=True)
class Suspension:
    """A node's reply that asks for something before it can go on."""

    message_type: str
    ticket: Ticket
    request: RecordDict

    def encode(self) -> RecordDict:
        """Return it as the content of a reply."""
        ticket = self.ticket
        asked = ConfigRecord({"type": self.message_type, "session": ticket.session, "ticket": ticket.number})
        return RecordDict({REQUEST: asked, **dict(self.request.items())})


def suspension_of(reply: Message) -> Suspension | None:
    """Return what a reply asks for, or None if it is final.

    Raises:
        MessageError: it asks for something that nobody answers, or has no ticket.
    """
    record = reply.content.config_records.get(REQUEST)
    if record is None:
        return None
    if record.get("type") not in REQUEST_TYPES:
        asked = f"{record.get('type')!r} with ticket {record.get('ticket')!r}"
        raise MessageError(f"the node asks for {asked}: must be one of {', '.join(REQUEST_TYPES)}")
    return Suspension(str(record["type"]), _ticket(record), _without(reply.content, REQUEST))


def resume_content(job: ConfigRecord, ticket: Ticket, answer: RecordDict) -> RecordDict:
    """Encode the provider's answer for the node that asked, with the job it is working on."""
    asked = ConfigRecord({"session": ticket.session, "ticket": ticket.number})
    return RecordDict({JOB: job, REQUEST: asked, **dict(answer.items())})


def decode_resume(content: RecordDict) -> tuple[Ticket, RecordDict]:
    """Return the ticket of a resume message, and the encoded answer.

    Raises:
        MessageError: it has no ticket.
    """
    return _ticket(content.config_records.get(REQUEST, ConfigRecord())), _without(content, JOB, REQUEST)


def _ticket(record: ConfigRecord) -> Ticket:
    session, number = record.get("session"), record.get("ticket")
    # The name becomes a file's: nobody reaches another folder by it.
    if not isinstance(session, str) or type(number) is not int or not set(session) <= _LETTERS:
        raise MessageError(f"session {session!r} and ticket {number!r}: must be a session's name and a number")
    return Ticket(session, number)


def _without(content: RecordDict, *names: str) -> RecordDict:
    return RecordDict({name: record for name, record in content.items() if name not in names})
