"""veilsim's own app, with a clock at the user's side of every request to the provider.

A direct request is timed around the call, a relayed one from the reply that asks to the message that answers. Each
worker appends its times to a file in the run's folder.
"""

import time
from pathlib import Path
from typing import Any

from flwr.app import Context, Message, RecordDict

import sim.exchange.direct
from sim.client_app import app as client
from sim.exchange.job import Job
from sim.exchange.messages import ANSWER
from sim.exchange.session_actors import RemoteStore
from sim.exchange.sessions import Call
from sim.exchange.suspension import REQUEST
from sim.server_app import app as server

__all__ = ["client", "server"]

_call_of, _start, _resume = sim.exchange.direct.provider_call, RemoteStore.start, RemoteStore.resume


def _note(run: Path, seconds: float) -> None:
    with (run / "latencies.jsonl").open("a") as file:
        file.write(f"{seconds:.6f}\n")


def _timed_call(run: Path) -> Call:
    call = _call_of(run)

    def timed(message_type: str, content: RecordDict) -> RecordDict:
        began = time.perf_counter()
        answer = call(message_type, content)
        if message_type == "query.loss_gradient":
            _note(run, time.perf_counter() - began)
        return answer

    return timed


def _asked(job: Job, user: int) -> Path:
    """Return the file whose time of change is when a user asked last; any worker may get the answer."""
    return job.run / "progress" / f"asked-{user}"


def _noting(job: Job, user: int, reply: RecordDict) -> RecordDict:
    if REQUEST in reply.config_records:
        _asked(job, user).touch()
    return reply


def _timed_start(store: Any, kind: str, job: Job, index: int, *rest: Any) -> RecordDict:
    return _noting(job, index, _start(store, kind, job, index, *rest))


def _timed_resume(store: Any, ticket: Any, job: Job, index: int, folder: Path, answer: RecordDict) -> RecordDict:
    if answer.config_records[ANSWER]["kind"] == "loss_gradient":
        _note(job.run, time.time() - _asked(job, index).stat().st_mtime)
    return _noting(job, index, _resume(store, ticket, job, index, folder, answer))


sim.exchange.direct.provider_call = _timed_call
RemoteStore.start, RemoteStore.resume = _timed_start, _timed_resume  # type: ignore[method-assign]


@client.query("clock")
def clock(message: Message, context: Context) -> Message:
    """Say whether the clock runs. Being registered makes a worker that unpickles the app import this module."""
    return Message(RecordDict(), reply_to=message)
