"""Messages that a relay takes to the nodes of a grid in memory."""

from collections.abc import Iterable

from flwr.app import Message, RecordDict

from sim.exchange.job import Job, encode_job
from sim.exchange.messages import JOB
from sim.exchange.relay import Relay, RelayGrid
from tests.sim.in_memory_grid import PROVIDER, USERS, InMemoryGrid


def relay_over(grid: InMemoryGrid, job: Job) -> RelayGrid:
    return RelayGrid(grid, Relay(grid, PROVIDER, encode_job(job)), USERS)


def messages_to(job: Job, message_type: str, nodes: Iterable[int] = USERS) -> list[Message]:
    return [Message(RecordDict({JOB: encode_job(job)}), node, message_type) for node in nodes]


def nodes_of(replies: Iterable[Message]) -> list[int]:
    return [reply.metadata.src_node_id for reply in replies]
