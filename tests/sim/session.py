"""A session of user 0, answered in this process or by a message for every request."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from flwr.app import RecordDict

from roles.common.weights import State
from roles.provider.provider import Provider
from sim.client_app import SESSIONS
from sim.exchange.job import Job, job_content
from sim.exchange.messages import ARRAYS, decode_tensors, encode_tensors
from sim.exchange.sessions import SessionStore, run_direct
from sim.exchange.suspension import REQUEST, Ticket
from sim.nodes.provider.replica import Replica
from sim.nodes.provider.serving import answer_one
from sim.nodes.user.state import new_training

# User 0: 24 images in batches of 12, 2 epochs; 20 validation images.
STEPS, EPOCHS = 4, 2


def folder(job: Job) -> Path:
    return job.run / "state" / "user-0000"


def waiting(job: Job) -> Path:
    return folder(job) / "waiting" / "train.safetensors"


def theta_message(job: Job, theta: State | None = None) -> RecordDict:
    """Return a message that asks user 0 to go on from a theta, by default from its own initial one."""
    return job_content(job, **{ARRAYS: encode_tensors(theta or new_training(job, 0).theta())})


def start(store: SessionStore, job: Job, kind: str = "train", content: RecordDict | None = None) -> RecordDict:
    return store.start(kind, job, 0, folder(job), content or theta_message(job))


def resume(store: SessionStore, job: Job, ticket: Ticket, answer: RecordDict) -> RecordDict:
    return store.resume(ticket, job, 0, folder(job), answer)


def question(reply: RecordDict) -> tuple[str, Ticket, RecordDict]:
    record = reply.config_records[REQUEST]
    number = record["ticket"]
    assert isinstance(number, int)
    request = RecordDict({name: r for name, r in reply.items() if name != REQUEST})
    return str(record["type"]), Ticket(str(record["session"]), number), request


def relayed(
    store: SessionStore,
    job: Job,
    provider: Provider,
    between: Callable[[], None] = lambda: None,
    kind: str = "train",
    content: RecordDict | None = None,
) -> RecordDict:
    reply = start(store, job, kind, content)
    while REQUEST in reply.config_records:
        message_type, ticket, request = question(reply)
        assert ticket.number < 20, "the session asks the same over and over"
        between()
        reply = resume(store, job, ticket, answer_one(provider, message_type, request))
    return reply


def direct(job: Job, provider: Provider, kind: str = "train", content: RecordDict | None = None) -> RecordDict:
    session = SESSIONS[kind](job, 0)
    session.begin(content or theta_message(job))
    return run_direct(session, Replica(provider, job.run).answer)


def in_a_folder_of_its_own(job: Job, name: str) -> Job:
    return replace(job, run=job.run.parent / name)


def theta_of(content: RecordDict) -> State:
    return decode_tensors(content.array_records[ARRAYS])
