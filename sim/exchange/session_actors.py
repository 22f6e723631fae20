"""Where users' sessions wait while a simulation relays their training: Ray actors that keep them between messages.

Any worker of a simulation may get the next message of any user. Were a user's network, its momenta and what its
backward pass needs to travel by disk, every step would write all of it, and most would compute the forward pass again.
So a worker hands the message on to the actor of its user, and waits for the reply.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
from flwr.app import RecordDict

from roles.common.process import settle
from sim.exchange.actors import find_actor, open_actor, result_of
from sim.exchange.job import Job
from sim.exchange.sessions import Sessions, SessionStore


class SessionActor(SessionStore):
    """A store of the sessions of many users, each from its first request to its end.

    Args:
        kinds: the sessions that it can make.
        threads: PyTorch threads of each session.
    """

    def __init__(self, kinds: Sessions, threads: int) -> None:
        super().__init__(kinds, on_disk=False)
        self._threads = threads
        settle()

    def ready(self) -> None:
        """Return once the actor is there."""

    def start(self, *arguments: Any) -> RecordDict:
        """See :class:`SessionStore`."""
        torch.set_num_threads(self._threads)  # kept per thread, and Ray has several
        return super().start(*arguments)

    def resume(self, *arguments: Any) -> RecordDict:
        """See :class:`SessionStore`."""
        torch.set_num_threads(self._threads)
        return super().resume(*arguments)


class RemoteStore:
    """A user's store as its node calls it, like a :class:`SessionStore`: the sessions wait in an actor."""

    def __init__(self, job: Job, user: int) -> None:
        self._actor = _found(job.run, user % job.experiment.runtime.worker_count)

    def start(self, *arguments: Any) -> RecordDict:
        """See :class:`SessionStore`."""
        return cast(RecordDict, result_of(self._actor.start.remote(*arguments)))

    def resume(self, *arguments: Any) -> RecordDict:
        """See :class:`SessionStore`."""
        return cast(RecordDict, result_of(self._actor.resume.remote(*arguments)))


def _role(number: int) -> str:
    return f"sessions-{number}"


@cache
def _found(run: Path, number: int) -> Any:
    return find_actor(run, _role(number))


def open_session_actors(job: Job, kinds: Sessions) -> Callable[[], None]:
    """Start all session actors of a run, and return a function that waits until they are there."""
    runtime = job.experiment.runtime
    numbers = range(runtime.worker_count)
    waits = [open_actor(job.run, _role(number), SessionActor, runtime, kinds, runtime.threads) for number in numbers]

    def wait() -> None:
        for ready in waits:
            ready()

    return wait
