"""Requests that travel to the provider together, and what becomes of those that fail."""

import pytest
from flwr.app import Array, ConfigRecord, Error, Message, RecordDict

from sim.exchange.client import reason_of
from sim.exchange.job import Job
from sim.exchange.messages import ARRAYS, JOB, METRICS, split
from sim.exchange.suspension import REQUEST
from tests.sim.in_memory_grid import PROVIDER, USERS, InMemoryGrid
from tests.sim.relaying import messages_to, nodes_of, relay_over


def test_questions_that_come_in_together_travel_to_the_provider_as_one_message(job: Job, grid: InMemoryGrid) -> None:
    list(relay_over(grid, job).send_and_receive(messages_to(job, "train")))
    sizes = {
        kind: [
            len(split(RecordDict({name: r for name, r in message.content.items() if name != JOB})))
            for message in grid.of_type(f"query.{kind}")
        ]
        for kind in ("images", "loss_gradient", "loss")
    }
    # User 0 has 2 epochs of 2 steps, user 1 of 3: while one validates, the other asks for gradients.
    assert sizes["images"] == [2]
    assert sizes["loss_gradient"][:2] == [2, 2]
    assert {kind: sum(parts) for kind, parts in sizes.items()} == {"images": 2, "loss_gradient": 10, "loss": 4}
    assert all(message.metadata.dst_node_id == PROVIDER for message in grid.of_type("query.loss_gradient"))


def test_a_user_whose_request_is_refused_fails_alone(job: Job) -> None:
    def tamper(message: Message, reply: Message) -> Message:
        if reply.metadata.src_node_id == 201 and not reply.has_error() and ARRAYS in reply.content.array_records:
            arrays = reply.content.array_records[ARRAYS]
            if "protected" in arrays:
                arrays["protected"] = Array(arrays["protected"].numpy() + 5)
        return reply

    grid = InMemoryGrid([PROVIDER, *USERS], tamper=tamper)
    failed, trained = relay_over(grid, job).send_and_receive(messages_to(job, "train"))
    assert reason_of(failed) == "the provider refused: protected images must hold finite values in [0, 1]"
    assert trained.content.metric_records[METRICS]["num-examples"] == 36


def test_a_user_that_asks_for_what_the_provider_does_not_answer_fails_alone(job: Job) -> None:
    def tamper(message: Message, reply: Message) -> Message:
        if reply.metadata.src_node_id == 201 and REQUEST in reply.content.config_records:
            reply.content.config_records[REQUEST]["type"] = "train.classifier"
        return reply

    grid = InMemoryGrid([PROVIDER, *USERS], tamper=tamper)
    failed, trained = relay_over(grid, job).send_and_receive(messages_to(job, "train"))
    assert failed.error.reason.startswith("the node asks for 'train.classifier' with ticket 1: must be one of")
    assert failed.metadata.src_node_id == 201
    assert not trained.has_error()
    assert not grid.of_type("train.classifier")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (RecordDict({"0/answer": ConfigRecord({"kind": "loss"})}), "field 'loss' is missing"),
        (RecordDict(), "the provider left this request unanswered"),
        (RecordDict({"answer": ConfigRecord({"kind": "loss"})}), "record 'answer' has no number"),
    ],
)
def test_a_provider_that_answers_with_nonsense_costs_the_round_and_not_the_run(
    job: Job, content: RecordDict, reason: str
) -> None:
    def tamper(message: Message, reply: Message) -> Message:
        return Message(content, reply_to=message) if message.metadata.dst_node_id == PROVIDER else reply

    grid = InMemoryGrid([PROVIDER, *USERS], tamper=tamper)
    replies = list(relay_over(grid, job).send_and_receive(messages_to(job, "train")))
    assert nodes_of(replies) == [201, 202]
    assert all(reply.has_error() for reply in replies)
    assert any(reason in reply.error.reason for reply in replies)


def test_a_provider_that_fails_is_quoted_to_every_user_that_waits(job: Job) -> None:
    def tamper(message: Message, reply: Message) -> Message:
        is_provider = message.metadata.dst_node_id == PROVIDER
        return Message(Error(0, "psi is\nlost"), reply_to=message) if is_provider else reply

    grid = InMemoryGrid([PROVIDER, *USERS], tamper=tamper)
    replies = list(relay_over(grid, job).send_and_receive(messages_to(job, "train")))
    assert nodes_of(replies) == [201, 202]
    assert all("the provider refused: psi is lost" in reply.error.reason for reply in replies)


def test_a_provider_that_flower_does_not_reach_is_an_error_of_every_user_that_asks(job: Job) -> None:
    grid = InMemoryGrid([PROVIDER, *USERS], unreachable=[PROVIDER])
    replies = list(relay_over(grid, job).send_and_receive(messages_to(job, "train")))
    assert nodes_of(replies) == [201, 202]
    assert all("did not take" in reply.error.reason for reply in replies)
