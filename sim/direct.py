"""The fast lane of a simulation: the provider as a named Ray actor that users call from within their training loop."""

from collections.abc import Callable
from pathlib import Path
from typing import cast

from flwr.app import RecordDict

from sim.actors import close_actor, find_actor, open_actor, result_of
from sim.messages import Job
from sim.nodes import compute_of, settle
from sim.provider_load import ProviderLoad
from sim.provider_node import answer_one, build_provider

_PROVIDER = "provider"


class _ProviderActor:
    """psi in a process of its own, answering as many users at once as there are workers."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._provider = build_provider(job)
        self._load = ProviderLoad()
        settle()

    def answer(self, message_type: str, content: RecordDict) -> RecordDict:
        self._load.count(content)
        compute_of(self._job.experiment)  # PyTorch keeps the number of threads per thread
        return answer_one(self._provider, message_type, content)

    def digest(self) -> str:
        return self._provider.digest()

    def load(self) -> list[dict[str, int]]:
        return self._load.rows()


def open_provider(job: Job) -> None:
    """Start the provider's actor, in place of one that an earlier attempt at this run may have left.

    Raises:
        ValueError: psi's weights cannot be loaded.
    """
    close_actor(job.run, _PROVIDER)
    actor = open_actor(job.run, _PROVIDER, _ProviderActor, job.experiment.runtime, job)
    result_of(actor.digest.remote())


def provider_call(run: Path) -> Callable[[str, RecordDict], RecordDict]:
    """Return the function that carries an encoded request to the provider's actor and its answer back."""
    actor = find_actor(run, _PROVIDER)

    def call(message_type: str, content: RecordDict) -> RecordDict:
        return cast(RecordDict, result_of(actor.answer.remote(message_type, content)))

    return call


def provider_digest(run: Path) -> str:
    """Return the digest of the psi that the provider's actor holds."""
    return str(result_of(find_actor(run, _PROVIDER).digest.remote()))


def provider_load(run: Path) -> list[dict[str, int]]:
    """Return what the provider's actor was asked, as :meth:`ProviderLoad.rows` does; an earlier actor's is lost."""
    return cast(list[dict[str, int]], result_of(find_actor(run, _PROVIDER).load.remote()))
