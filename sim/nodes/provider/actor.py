"""The provider of a simulation as a Ray actor, which users call from within their training loop."""

from flwr.app import RecordDict

from sim.exchange.actors import open_actor
from sim.exchange.direct import PROVIDER
from sim.exchange.job import Job
from sim.exchange.load import ProviderLoad
from sim.nodes.provider.serving import answer_one, build_provider
from sim.run.machine import compute_of, settle


class ProviderActor:
    """psi in a process of its own, answering as many users of a simulation at once as there are workers."""

    def __init__(self, job: Job) -> None:
        self._job, self._provider, self._load = job, build_provider(job), ProviderLoad()
        settle()

    def answer(self, message_type: str, content: RecordDict) -> RecordDict:
        """Answer one encoded request; see :func:`answer_one`."""
        self._load.count(content)
        compute_of(self._job.experiment)  # PyTorch keeps the number of threads per thread
        return answer_one(self._provider, message_type, content)

    def ready(self) -> None:
        """Return once the actor is there."""

    def account(self) -> tuple[str, list[dict[str, int]]]:
        """Return psi's digest, and what was asked as :meth:`ProviderLoad.rows` does."""
        return self._provider.digest(), self._load.rows()


def open_provider(job: Job) -> None:
    """Start the provider's actor, in place of one that an earlier attempt at this run may have left.

    Raises:
        ValueError: psi's weights cannot be loaded.
    """
    open_actor(job.run, PROVIDER, ProviderActor, job.experiment.runtime, job)()
