"""Which message goes to which node, and when."""

from collections.abc import Callable

import pytest
from flwr.app import Message, RecordDict

from sim.exchange.job import Job, encode_job
from sim.exchange.messages import JOB
from tests.sim.in_memory_grid import PROVIDER, USERS, InMemoryGrid
from tests.sim.relaying import messages_to, nodes_of, relay_of


@pytest.mark.parametrize("one_at_a_time", [False, True])
def test_replies_come_in_the_order_of_the_messages_whoever_was_first(job: Job, one_at_a_time: bool) -> None:
    grid = InMemoryGrid([PROVIDER, *USERS], one_at_a_time)
    relay = relay_of(grid, job)
    for nodes in ([201, 202, PROVIDER], [PROVIDER, 202, 201]):
        replies = relay.exchange(messages_to(job, "query.role", nodes))
        assert nodes_of(replies) == nodes
    assert nodes_of(grid.replies[:3]) == [PROVIDER, 202, 201]


def test_several_messages_to_one_node_go_one_after_the_other(job: Job, grid: InMemoryGrid) -> None:
    relay = relay_of(grid, job)
    replies = relay.exchange(messages_to(job, "query.role", [201, 202, 201, 201]))
    assert nodes_of(replies) == [201, 202, 201, 201]
    assert grid.most_in_flight == {201: 1, 202: 1}


def test_work_for_any_of_several_nodes_goes_to_whichever_is_free(job: Job, grid: InMemoryGrid) -> None:
    relay, finished = relay_of(grid, job), []

    def submit(number: int) -> None:
        relay.submit(
            USERS,
            lambda node: Message(RecordDict({JOB: encode_job(job)}), node, "query.role"),
            lambda reply: finished.append(number),
        )

    for number in range(5):
        submit(number)
    relay.run()
    assert sorted(finished) == list(range(5))
    assert grid.most_in_flight == {201: 1, 202: 1}


def test_a_node_that_may_have_more_in_flight_gets_more(job: Job, grid: InMemoryGrid) -> None:
    relay = relay_of(grid, job, per_node=lambda node: 3 if node == 201 else 1)
    relay.exchange(messages_to(job, "query.role", [201] * 5 + [202] * 5))
    assert grid.most_in_flight == {201: 3, 202: 1}


def test_a_simulation_is_sent_little_more_than_its_workers_can_take(job: Job) -> None:
    users = range(300, 400)
    grid = InMemoryGrid([PROVIDER, *users], one_at_a_time=True)
    relay = relay_of(grid, job, under_way=3)
    under_way, most = set(), 0

    def message_to(node: int) -> Message:
        nonlocal most
        under_way.add(node)
        most = max(most, len(under_way))
        return messages_to(job, "query.role", [node])[0]

    for user in users:
        relay.submit([user], message_to, lambda reply: under_way.remove(reply.metadata.src_node_id))
    relay.run(lambda: len(grid.replies) == 1)
    assert most == 4
    relay.run()
    assert len(grid.replies) == 100
    assert not under_way


def test_what_a_reply_leads_to_is_done_as_well_while_others_still_work(job: Job, grid: InMemoryGrid) -> None:
    relay, order = relay_of(grid, job), []

    def role_of_other(reply: Message) -> None:
        order.append("role of 201")
        relay.submit(
            [202], lambda node: messages_to(job, "query.role", [node])[0], lambda r: order.append("role of 202")
        )

    relay.submit([201], lambda node: messages_to(job, "query.role", [node])[0], role_of_other)
    relay.exchange(messages_to(job, "train", [201]), finished=lambda reply: order.append("trained"))
    assert order == ["role of 201", "role of 202", "trained"]


def test_what_goes_first_is_sent_before_all_that_waits_and_in_its_own_order(job: Job) -> None:
    users = range(300, 304)
    grid = InMemoryGrid(users)
    relay, order = relay_of(grid, job), []

    def submit(name: str, node: int, first: bool = False, then: Callable[[], None] = lambda: None) -> None:
        def finished(reply: Message) -> None:
            order.append(name)
            then()

        relay.submit([node], lambda node: messages_to(job, "query.role", [node])[0], finished, first)

    def two_more() -> None:
        for name in ("first", "second"):
            submit(name, 301, first=True)

    submit("began", 301, then=two_more)
    for name in ("third", "fourth"):
        submit(name, 301)
    submit("elsewhere", 302)
    relay.run()
    assert [name for name in order if name != "elsewhere"] == ["began", "first", "second", "third", "fourth"]
    # What goes first holds up nobody while it waits for its own node.
    assert order.index("elsewhere") <= 1
