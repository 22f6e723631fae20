"""Where users live while a simulation relays their training: Ray actors that keep it between messages.

Any worker of a simulation may get the next message of any user. Were a user's network, its momenta and what its
backward pass needs to travel by disk, every step would write all of it, and most would compute the forward pass again.
So a worker hands the message on to the home of its user, and waits for the reply.
"""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from flwr.app import RecordDict

from sim.actors import close_actor, find_actor, open_actor, result_of
from sim.messages import Job, MessageError, decode_job
from sim.nodes import settle
from sim.progress import Heart
from sim.sessions import Suspended, advance, resumed
from sim.user_node import USER_SESSIONS


class Home:
    """Sessions of many users in one process, each from its first request to its end.

    Args:
        threads: PyTorch threads of each session.
    """

    def __init__(self, threads: int) -> None:
        self._threads, self._heart, self._building = threads, Heart(), threading.Lock()
        self._waiting: dict[tuple[int, str], Suspended] = {}
        settle()

    def ready(self) -> None:
        """Return once the home is there."""

    def start(self, user: int, kind: str, content: RecordDict) -> RecordDict:
        """Run a user's session up to its first request.

        Args:
            kind: one of :data:`USER_SESSIONS`.
            content: of the message that asks for it.
        """
        torch.set_num_threads(self._threads)  # kept per thread, and Ray has several
        # Initial weights are drawn from PyTorch's one global generator, after it has been seeded for this user.
        with self._building:
            session = USER_SESSIONS[kind](decode_job(content), user, content, self._heart)
        return self._keep(user, kind, *advance(session, session.work(), None, ticket=1))

    def resume(self, user: int, kind: str, ticket: int, answer: RecordDict) -> RecordDict:
        """Run a user's session on to its next request or its end.

        Raises:
            MessageError: it does not wait for this answer.
            ExchangeError: the provider refused the request.
        """
        torch.set_num_threads(self._threads)
        waiting = self._waiting.get((user, kind))
        if waiting is None or waiting.ticket != ticket:
            known = "nothing" if waiting is None else f"answer {waiting.ticket}"
            raise MessageError(f"the {kind} session of user {user} waits for {known}, this is answer {ticket}")
        del self._waiting[user, kind]
        return self._keep(user, kind, *resumed(waiting, answer))

    def _keep(self, user: int, kind: str, reply: RecordDict, waiting: Suspended | None) -> RecordDict:
        if waiting is not None:
            self._waiting[user, kind] = waiting
        return reply


def _role(number: int) -> str:
    return f"home-{number}"


_homes: dict[tuple[Path, int], Any] = {}


def _home_of(job: Job, user: int) -> Any:
    number = user % job.experiment.runtime.worker_count
    if (job.run, number) not in _homes:
        _homes[job.run, number] = find_actor(job.run, _role(number))
    return _homes[job.run, number]


def _call(job: Job, user: int, method: str, *arguments: Any) -> RecordDict:
    return cast(RecordDict, result_of(getattr(_home_of(job, user), method).remote(user, *arguments)))


def start_at_home(job: Job, user: int, kind: str, content: RecordDict) -> RecordDict:
    """Have a user's home start a session; see :meth:`Home.start`."""
    return _call(job, user, "start", kind, content)


def resume_at_home(job: Job, user: int, kind: str, ticket: int, answer: RecordDict) -> RecordDict:
    """Have a user's home go on with a session; see :meth:`Home.resume`."""
    return _call(job, user, "resume", kind, ticket, answer)


def open_homes(job: Job) -> Callable[[], None]:
    """Start all homes of a run, in place of those that an earlier attempt may have left.

    Returns:
        A function that waits until they are there: their imports take seconds, in which others can work.
    """
    runtime = job.experiment.runtime
    for number in range(runtime.worker_count):
        close_actor(job.run, _role(number))
    homes = [open_actor(job.run, _role(n), Home, runtime, runtime.threads) for n in range(runtime.worker_count)]

    def wait() -> None:
        for home in homes:
            result_of(home.ready.remote())

    return wait
