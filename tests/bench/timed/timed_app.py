"""veilsim's own app, with a clock at the user's side of every request to the provider.

A direct request is timed around the call, a relayed one from the reply that asks to the message that answers. Each
worker appends its times to a file in the run's folder, and to another how many steps its users have done when.

On a GPU nobody waits for an answer, so there is nothing to time around a call: it is waited for now and then, for the
stamps alone. Where a file ``together`` holds a number, so many users wait for each other before their first stamp.
"""

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from flwr.app import Context, Message, RecordDict

from roles.common.exchange import Answer, LossGradient, Request
from sim.client_app import app as client
from sim.exchange.job import Job
from sim.exchange.messages import ANSWER
from sim.exchange.session_actors import RemoteStore
from sim.exchange.suspension import REQUEST
from sim.nodes.provider.replica import Replica
from sim.server_app import app as server

__all__ = ["client", "server"]

_FIRST = 6
"""Steps of a user before its first stamp: on a GPU the first few are not recorded yet."""
_BETWEEN = 25
"""Steps between two stamps, on a GPU."""
_PATIENCE_S = 60
_steps = Counter[tuple[Path, int]]()
"""How often each user has asked."""

_answer, _start, _resume = Replica.answer, RemoteStore.start, RemoteStore.resume


def _note(run: Path, seconds: float) -> None:
    with (run / "latencies.jsonl").open("a") as file:
        file.write(f"{seconds:.6f}\n")


def _stamp(run: Path, user: int, done: int, *, on_gpu: bool) -> None:
    """Note that a user has done so many steps, if it is time to."""
    if done < _FIRST or (on_gpu and (done - _FIRST) % _BETWEEN):
        return
    if done == _FIRST:
        _meet(run, user)
    if on_gpu:
        torch.cuda.synchronize()
    with (run / "stamps.jsonl").open("a") as file:
        file.write(json.dumps({"user": user, "done": done, "time": time.time()}) + "\n")


def _meet(run: Path, user: int) -> None:
    """Wait until all users have come as far, if they are to train at the same time."""
    if not (run / "together").is_file():
        return
    users, deadline = int((run / "together").read_text()), time.monotonic() + _PATIENCE_S
    (run / f"arrived-{user}").touch()
    while len(list(run.glob("arrived-*"))) < users and time.monotonic() < deadline:
        time.sleep(0.01)


def _timed_answer(replica: Replica, request: Request) -> Answer:
    if not isinstance(request, LossGradient):
        return _answer(replica, request)
    on_gpu = request.protected.is_cuda
    # It asks once a step, so all steps before this one are done.
    _stamp(replica.run, request.user, _steps[replica.run, request.user], on_gpu=on_gpu)
    _steps[replica.run, request.user] += 1
    began = time.perf_counter()
    answer = _answer(replica, request)
    if not on_gpu:
        _note(replica.run, time.perf_counter() - began)
    return answer


def _asked(job: Job, user: int) -> Path:
    """Return the file whose time of change is when a user asked last; any worker may get the answer."""
    return job.run / "progress" / f"asked-{user}"


def _noting(job: Job, user: int, reply: RecordDict) -> RecordDict:
    if REQUEST in reply.config_records:
        _asked(job, user).touch()
    return reply


def _timed_start(store: Any, kind: str, job: Job, index: int, *rest: Any) -> RecordDict:
    return _noting(job, index, _start(store, kind, job, index, *rest))


def _timed_resume(
    store: Any, ticket: Any, job: Job, index: int, folder: Path, answer: RecordDict, *rest: Any
) -> RecordDict:
    if answer.config_records[ANSWER]["kind"] == "loss_gradient":
        _note(job.run, time.time() - _asked(job, index).stat().st_mtime)
        # Any worker may be the next to carry an answer: the ticket, which says how often was asked, is the user's own.
        _stamp(job.run, index, ticket.number, on_gpu=False)
    return _noting(job, index, _resume(store, ticket, job, index, folder, answer, *rest))


Replica.answer = _timed_answer  # type: ignore[method-assign]
RemoteStore.start, RemoteStore.resume = _timed_start, _timed_resume  # type: ignore[method-assign]


@client.query("clock")
def clock(message: Message, context: Context) -> Message:
    """Say whether the clock runs. Being registered makes a worker that unpickles the app import this module."""
    return Message(RecordDict(), reply_to=message)
