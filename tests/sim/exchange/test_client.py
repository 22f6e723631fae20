"""Flower's end: how long messages last, and what its errors mean."""

import pytest
from flwr.app import Error, Message

from sim.exchange.client import WorkerDied, reason_of
from sim.exchange.job import Job
from tests.sim.in_memory_grid import PROVIDER, USERS, InMemoryGrid
from tests.sim.relaying import messages_to, nodes_of, relay_over


def test_a_message_may_take_weeks(job: Job, grid: InMemoryGrid) -> None:
    list(relay_over(grid, job).send_and_receive(messages_to(job, "train")))
    to_users = [message for message in grid.sent if message.metadata.dst_node_id != PROVIDER]
    assert {message.metadata.message_type for message in to_users} == {"train", "train.resume"}
    assert all(message.metadata.ttl == 30 * 24 * 3600 for message in to_users)


@pytest.mark.parametrize("node", [PROVIDER, 201])
def test_a_worker_that_died_is_an_error_of_its_own(job: Job, node: int) -> None:
    def tamper(message: Message, reply: Message) -> Message:
        reason = "<class 'ray.exceptions.ActorDiedError'>:<'The actor died unexpectedly before finishing this task.'>"
        return Message(Error(0, reason), reply_to=message) if message.metadata.dst_node_id == node else reply

    grid = InMemoryGrid([PROVIDER, *USERS], tamper=tamper)
    with pytest.raises(WorkerDied, match=r"want of memory \(then lower runtime\.workers\); nothing") as caught:
        list(relay_over(grid, job).send_and_receive(messages_to(job, "train")))
    assert "\n" not in str(caught.value)


def test_an_error_without_a_reason_is_a_reply_like_any_other(job: Job) -> None:
    def tamper(message: Message, reply: Message) -> Message:
        return Message(Error(0), reply_to=message)

    grid = InMemoryGrid([PROVIDER, *USERS], tamper=tamper)
    replies = list(relay_over(grid, job).send_and_receive(messages_to(job, "train")))
    assert nodes_of(replies) == [201, 202]
    assert {reason_of(reply) for reply in replies} == {"no reason given"}


def test_a_message_that_flower_does_not_take_is_an_error_of_its_node_alone(job: Job) -> None:
    grid = InMemoryGrid([PROVIDER, *USERS], unreachable=[201])
    replies = list(relay_over(grid, job).send_and_receive(messages_to(job, "train")))
    reasons = {reply.metadata.src_node_id: reply.error.reason if reply.has_error() else "" for reply in replies}
    assert reasons == {201: "Flower did not take the message: the node is gone, or the message too large", 202: ""}
