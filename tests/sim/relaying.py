"""Messages that a relay takes to the nodes of a grid in memory."""

from collections.abc import Iterable
from typing import Any

from flwr.app import Message, RecordDict

from sim.exchange.job import Job, encode_job
from sim.exchange.messages import JOB
from sim.exchange.relay import Relay
from sim.exchange.relay_grid import RelayGrid
from sim.exchange.rights import Gate
from tests.sim.in_memory_grid import ASKERS, PROVIDER, USERS, InMemoryGrid


def relay_over(grid: InMemoryGrid, job: Job) -> RelayGrid:
    return RelayGrid(grid, relay_of(grid, job), USERS)


def relay_of(grid: InMemoryGrid, job: Job, **options: Any) -> Relay:
    """A relay that knows the users of the grid."""
    return Relay(grid, PROVIDER, encode_job(job), gate=Gate(ASKERS, job.experiment.provider.limits), **options)


def messages_to(job: Job, message_type: str, nodes: Iterable[int] = USERS) -> list[Message]:
    return [Message(RecordDict({JOB: encode_job(job)}), node, message_type) for node in nodes]


def nodes_of(replies: Iterable[Message]) -> list[int]:
    return [reply.metadata.src_node_id for reply in replies]
