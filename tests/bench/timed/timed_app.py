"""veilsim's own app, with a clock at the user's side of every request to the provider.

A direct request is timed around the call, a relayed one from the reply that asks to the message that answers. Each
worker appends its times to a file in the run's folder.
"""

import time
from collections.abc import Callable
from pathlib import Path

from flwr.app import Context, Message, RecordDict

import sim.direct
import sim.homes
from sim.client_app import app as client
from sim.messages import ANSWER, REQUEST, Job
from sim.server_app import app as server

__all__ = ["client", "server"]

_call_of, _start, _resume = sim.direct.provider_call, sim.homes.start_at_home, sim.homes.resume_at_home


def _note(run: Path, seconds: float) -> None:
    with (run / "latencies.jsonl").open("a") as file:
        file.write(f"{seconds:.6f}\n")


def _timed_call(run: Path) -> Callable[[str, RecordDict], RecordDict]:
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


def _timed_start(job: Job, user: int, kind: str, content: RecordDict) -> RecordDict:
    return _noting(job, user, _start(job, user, kind, content))


def _timed_resume(job: Job, user: int, kind: str, ticket: int, answer: RecordDict) -> RecordDict:
    if answer.config_records[ANSWER]["kind"] == "loss_gradient":
        _note(job.run, time.time() - _asked(job, user).stat().st_mtime)
    return _noting(job, user, _resume(job, user, kind, ticket, answer))


sim.direct.provider_call = _timed_call
sim.homes.start_at_home, sim.homes.resume_at_home = _timed_start, _timed_resume


@client.query("clock")
def clock(message: Message, context: Context) -> Message:
    """Say whether the clock runs. Being registered makes a worker that unpickles the app import this module."""
    return Message(RecordDict(), reply_to=message)
