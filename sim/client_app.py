"""The ClientApp: the same for every node; a message's type says what is asked, the node's role says who answers."""

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from roles.common.exchange import Answer, Published, Request
from roles.common.naming import user_name
from roles.common.process import settle
from sim.exchange.access import name_of
from sim.exchange.job import Job, decode_job
from sim.exchange.line import Line, access_in
from sim.exchange.messages import ARRAYS, LOAD, PROVIDER_TYPES, MessageError, decode_tensors, merge, split
from sim.exchange.payloads import encode_curve
from sim.exchange.sessions import Session, Sessions, SessionStore, run_direct
from sim.exchange.suspension import decode_resume
from sim.nodes.evaluator.sessions import AttackSession, StudySession
from sim.nodes.provider.classifier import trained_classifier
from sim.nodes.provider.opening import LOOPBACK, close, opened
from sim.nodes.provider.replica import ledger_of
from sim.nodes.provider.serving import answer_one, assign_images, replica_of
from sim.nodes.role import Role, is_deployed, role_of, run_of
from sim.nodes.user.sessions import TestSession, TrainSession, ValidateSession, publication
from sim.run.machine import node_folder
from sim.run.published import published

if TYPE_CHECKING:
    from sim.exchange.session_actors import RemoteStore

app = ClientApp()
settle()

_KINDS: tuple[type[Session], ...] = (TrainSession, ValidateSession, TestSession, AttackSession, StudySession)
SESSIONS: Sessions = {session.kind: session for session in _KINDS}
"""The work that may have to wait for the provider, by its kind."""
STARTED_BY: Sessions = {session.started_by: session for session in _KINDS}
"""The same, by the type of the message that asks for it."""
_store = SessionStore(SESSIONS, on_disk=True)


def _job_for(message: Message, context: Context, role: str) -> tuple[Job, Role]:
    """Return the job of a message and the node's role.

    Raises:
        MessageError: the message is not one for this role.
    """
    job = decode_job(message.content)
    own = role_of(context, job.experiment)
    evaluates = own.name == "provider" and job.experiment.runtime.evaluators == 0
    if own.name != role and not (evaluates and role == "evaluator"):
        raise MessageError(f"message {message.metadata.message_type!r} is for {role}, not for {own.name}")
    return replace(job, run=run_of(context, job, own)), own


def _simulated() -> bool:
    """Return whether this is a worker of a simulation, where Ray runs; other nodes never import it."""
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()


# ---- any node ----------------------------------------------------------------------------------------------------


@app.query("role")
def role(message: Message, context: Context) -> Message:
    """Say which role this node has."""
    mine = role_of(context, decode_job(message.content).experiment)
    record = ConfigRecord({"name": mine.name, "index": mine.index, "simulated": not is_deployed(context)})
    return Message(RecordDict({"role": record}), reply_to=message)


# ---- provider ----------------------------------------------------------------------------------------------------


@app.train("classifier")
def train_psi(message: Message, context: Context) -> Message:
    """Train psi, or find it trained; in a simulation, start the actors that relayed training needs."""
    job, _ = _job_for(message, context, "provider")
    assign_images(job)  # a partition that cannot be made is better known before psi is trained
    wait = None
    if job.experiment.runtime.exchange == "relay" and _simulated():
        from sim.exchange.session_actors import open_session_actors

        wait = open_session_actors(job, {kind: session for kind, session in SESSIONS.items() if session.is_long})
    record = trained_classifier(job)
    if wait is not None:
        wait()
    return Message(record.encode(), reply_to=message)


@app.query("psi")
def psi_digest(message: Message, context: Context) -> Message:
    """Say what psi's weights hash to, as proof that training users has not changed them, and what was asked of it.

    Replicas that hold different weights are all named. What was relayed, the relay has seen.
    """
    job, _ = _job_for(message, context, "provider")
    digest = replica_of(job).provider.digest()
    digests, load = ledger_of(job.run)
    held = " ".join(sorted(digests | {digest}))
    content = RecordDict({"psi": ConfigRecord({"digest": held}), LOAD: encode_curve(load.rows())})
    return Message(content, reply_to=message)


@app.query("endpoint")
def open_endpoint(message: Message, context: Context) -> Message:
    """Open the provider's own endpoint, or find it open, and say how each node reaches it."""
    job, _ = _job_for(message, context, "provider")
    place = context.node_config.get("endpoint", None if is_deployed(context) else LOOPBACK)
    if place is None:
        raise MessageError(
            "the provider's --node-config names no endpoint: add endpoint='host:port', for users to reach"
        )
    # What started this process lives as long as the node: Flower's SuperExec or, in a simulation, Ray's raylet.
    access = opened(job, str(place), os.getppid())
    return Message(RecordDict({name_of(who): one.encode() for who, one in access.items()}), reply_to=message)


@app.query("hang_up")
def close_endpoint(message: Message, context: Context) -> Message:
    """Close the provider's endpoint."""
    job, _ = _job_for(message, context, "provider")
    close(job)
    return Message(RecordDict(), reply_to=message)


def _answer(message: Message, context: Context) -> Message:
    job, _ = _job_for(message, context, "provider")
    requests = RecordDict({key: record for key, record in message.content.items() if "/" in key})
    replica, message_type = replica_of(job), message.metadata.message_type
    requested = split(requests)
    answers = {number: answer_one(replica.provider, message_type, content) for number, content in requested.items()}
    if job.experiment.runtime.exchange == "endpoint":  # else the relay has counted it
        replica.count(requested.values())
        replica.keep_account()
    return Message(merge(answers), reply_to=message)


for _type in PROVIDER_TYPES:
    app.query(_type.partition(".")[2])(_answer)


# ---- users and evaluators ----------------------------------------------------------------------------------------


def _start(message: Message, context: Context) -> Message:
    """Start a session; with direct exchange, run it to its end."""
    kind = STARTED_BY[message.metadata.message_type]
    job, own = _job_for(message, context, kind.role)
    if job.experiment.runtime.exchange != "direct":
        with _line(message.content) as line:
            arguments = kind.kind, job, own.index, _folder(job, own), message.content
            return Message(_store_of(kind, job, own).start(*arguments, line), reply_to=message)
    replica, session = replica_of(job), kind(job, own.index)

    def answer(request: Request) -> Answer:
        # In a simulation, the only place with direct exchange, the ServerApp's run folder is everybody's.
        return published(job.run, request) if isinstance(request, Published) else replica.answer(request)

    session.begin(message.content)
    try:
        return Message(run_direct(session, answer), reply_to=message)
    finally:
        replica.keep_account()


def _resume(message: Message, context: Context) -> Message:
    """Take up the session that an answer is for."""
    ticket, answer = decode_resume(message.content)
    kind = SESSIONS.get(ticket.kind)
    if kind is None:
        raise MessageError(f"session {ticket.session!r}: its kind must be one of {', '.join(SESSIONS)}")
    job, own = _job_for(message, context, kind.role)
    with _line(message.content) as line:
        reply = _store_of(kind, job, own).resume(ticket, job, own.index, _folder(job, own), answer, line)
    return Message(reply, reply_to=message)


@contextlib.contextmanager
def _line(content: RecordDict) -> Iterator[Line | None]:
    """Open a line to the provider's endpoint, where the message says how it is reached."""
    access = access_in(content)
    if access is None:
        yield None
        return
    with Line(access) as line:
        yield line


def _store_of(kind: type[Session], job: Job, own: Role) -> "SessionStore | RemoteStore":
    # Whoever has a line seldom waits, and a line is this process's own.
    if not (kind.is_long and job.experiment.runtime.exchange == "relay" and _simulated()):
        return _store
    from sim.exchange.session_actors import RemoteStore

    return RemoteStore(job, own.index)


def _folder(job: Job, own: Role) -> Path:
    names = {"provider": "provider", "user": user_name(own.index), "evaluator": f"evaluator-{own.index}"}
    return node_folder(job.run, names[own.name])


for _type in (*STARTED_BY, "train.resume", "evaluate.resume"):
    _register = app.train if _type.startswith("train") else app.evaluate
    _register(_type.partition(".")[2] or "default")(_resume if _type.endswith("resume") else _start)


@app.query("publish")
def publish(message: Message, context: Context) -> Message:
    """Publish h_theta: this user's own or, of a strategy that averages, the average in the message."""
    job, own = _job_for(message, context, "user")
    arrays = message.content.array_records.get(ARRAYS)
    average = decode_tensors(arrays) if arrays else None
    return Message(publication(job, own.index, average), reply_to=message)
