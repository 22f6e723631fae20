"""What nodes are told of the provider's endpoint."""

import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from sim.exchange.access import Directions, name_of
from sim.exchange.line import ACCESS
from sim.exchange.messages import MessageError
from tests.sim.in_memory_grid import ASKERS, USERS


@pytest.fixture
def directions() -> Directions:
    directions = Directions(ASKERS)
    directions.learn(RecordDict({name_of(who): ConfigRecord({"token": name_of(who)}) for who in ASKERS.values()}))
    return directions


def test_of_messages_that_share_their_content_each_tells_its_own_node_its_own_token(directions: Directions) -> None:
    shared = RecordDict({"config": ConfigRecord({"lr": 0.1})})
    messages = [Message(shared, node, "train") for node in USERS]
    for message in messages:
        directions.tell(message)
    told = [message.content.config_records[ACCESS]["token"] for message in messages]
    assert told == ["user/0", "user/1"]
    assert list(shared) == ["config"]
    assert all(message.content["config"] == shared["config"] for message in messages)


def test_who_is_told_nothing_more_is_told_nothing_old(directions: Directions) -> None:
    message = Message(RecordDict(), USERS[0], "train")
    directions.tell(message)
    assert ACCESS in message.content
    directions.forget()
    directions.tell(message)
    assert ACCESS not in message.content


def test_an_endpoint_that_does_not_know_a_node_is_refused() -> None:
    with pytest.raises(MessageError, match=r"is open, but not to user/0, user/1$"):
        Directions(ASKERS).learn(RecordDict())
