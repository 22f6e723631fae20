"""What a strategy sees of a federation whose users ask the provider."""

import time
from dataclasses import replace

import pytest
from flwr.app import RecordDict

from sim.exchange.job import Job, job_content
from sim.exchange.messages import ARRAYS, METRICS, decode_tensors
from sim.exchange.relay_grid import RelayGrid
from sim.exchange.sessions import run_direct
from sim.exchange.suspension import REQUEST
from sim.nodes.provider.serving import build_provider
from sim.nodes.user.sessions import TrainSession, publication
from tests.sim.in_memory_grid import PROVIDER, USERS, InMemoryGrid
from tests.sim.relaying import messages_to, nodes_of, relay_of, relay_over
from tests.sim.thetas import assert_identical


def test_a_strategy_sees_users_only_and_in_their_order(job: Job, grid: InMemoryGrid) -> None:
    relayed = RelayGrid(grid, relay_of(grid, job), [202, 201])
    assert list(relayed.get_node_ids()) == [202, 201]
    assert [node.node_id for node in relayed.get_nodes()] == [202, 201]
    assert relayed.run == "the run"
    message = relayed.create_message(RecordDict(), "train", 201, "3")
    metadata = message.metadata
    assert (metadata.dst_node_id, metadata.message_type, metadata.group_id) == (201, "train", "3")


def test_what_is_pushed_and_pulled_by_hand_passes_as_it_is(job: Job, grid: InMemoryGrid) -> None:
    relayed = relay_over(grid, job)
    identifiers = list(relayed.push_messages(messages_to(job, "train")))
    replies = list(relayed.pull_messages(identifiers))
    assert all(reply.content.config_records[REQUEST]["type"] == "query.images" for reply in replies)


def test_a_strategy_gets_its_replies_in_the_order_of_the_users_however_it_drew_them(
    job: Job, grid: InMemoryGrid
) -> None:
    replies = relay_over(grid, job).send_and_receive(messages_to(job, "query.role", [202, 201]))
    assert nodes_of(replies) == [201, 202]


def test_no_messages_have_no_replies(job: Job, grid: InMemoryGrid) -> None:
    assert list(relay_over(grid, job).send_and_receive([])) == []


def test_one_message_is_asked_and_answered(job: Job, grid: InMemoryGrid) -> None:
    reply = relay_of(grid, job).ask(messages_to(job, "query.psi", [PROVIDER])[0])
    assert reply.content.config_records["psi"]["digest"] == build_provider(job).digest()


@pytest.mark.parametrize("one_at_a_time", [False, True])
def test_users_train_to_the_end_with_one_message_in_flight_at_each_node(job: Job, one_at_a_time: bool) -> None:
    grid = InMemoryGrid([PROVIDER, *USERS], one_at_a_time)
    replies = list(relay_over(grid, job).send_and_receive(messages_to(job, "train")))
    assert nodes_of(replies) == [201, 202]
    assert [reply.content.metric_records[METRICS]["num-examples"] for reply in replies] == [24, 36]
    assert grid.most_in_flight == {PROVIDER: 1, 201: 1, 202: 1}
    # The same as if the provider had been in the process of the user.
    provider = build_provider(job)
    for user, reply in enumerate(replies):
        alone = replace(job, run=job.run.parent / "direct")
        session = TrainSession(alone, user)
        session.begin(job_content(alone))
        content = run_direct(session, provider.answer)
        assert reply.content.metric_records == content.metric_records
        one, other = publication(job, user), publication(alone, user)
        assert_identical(decode_tensors(one.array_records[ARRAYS]), decode_tensors(other.array_records[ARRAYS]))
        assert one.metric_records == other.metric_records


def test_waiting_is_told_to_whoever_shows_progress(job: Job, grid: InMemoryGrid) -> None:
    told: list[None] = []
    relay = relay_of(grid, job, idle=lambda: told.append(None))
    relay.exchange(messages_to(job, "query.role"))
    assert told


def test_a_timeout_returns_what_has_come(job: Job) -> None:
    grid = InMemoryGrid([PROVIDER, *USERS], silent=[201])
    began = time.monotonic()
    relayed = relay_over(grid, job)
    replies = list(relayed.send_and_receive(messages_to(job, "query.role"), timeout=0.2))
    assert 0.2 <= time.monotonic() - began < 5
    assert nodes_of(replies) == [202]
    # Nobody waits for the silent node in the next exchange.
    assert nodes_of(relayed.send_and_receive(messages_to(job, "query.role", [202]))) == [202]
