"""Nodes of a deployment that go away and come back."""

import itertools
from collections.abc import Iterable
from typing import Any

import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from sim.exchange.messages import JOB
from sim.exchange.patience import PatientClient

NODE = 7


class Deployment(Grid):
    """A node that works on one message at a time, as Flower carries them; a test kills it and starts it again."""

    def __init__(self) -> None:
        self.now, self.online, self.slow = 0.0, True, 10.0
        self._numbers, self._sent = itertools.count(1), dict[str, Message]()
        self._working: tuple[str, float] | None = None
        self.took: list[str] = []
        self._crashed: str | None = None

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        names = []
        for message in messages:
            names.append(f"message {next(self._numbers)}")
            self._sent[names[-1]] = message
        return names

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        waiting = [name for name in self._sent if name in set(message_ids)]
        if not self.online:
            error = Error(ErrorCode.NODE_UNAVAILABLE, "the node is unavailable")
            return [self._reply(name, error) for name in waiting]
        if self._crashed in waiting:
            crashed, self._crashed = str(self._crashed), None
            return [self._reply(crashed, Error(ErrorCode.CLIENT_APP_CRASHED, "the ClientApp crashed"))]
        if self._working is None:
            untouched = [name for name in self._sent if name not in self.took]
            if not untouched:
                return []
            self._working = untouched[0], self.now
            self.took.append(untouched[0])
        name, began = self._working
        long = self.slow if self._sent[name].metadata.message_type == "train" else 1.0
        if self.now - began < long or name not in waiting:
            return []
        self._working = None
        return [self._reply(name, RecordDict())]

    def kill(self) -> None:
        self._working, self.online = None, False

    def start(self) -> None:
        self.online = True

    def crash(self) -> None:
        assert self._working is not None
        self._crashed, self._working = self._working[0], None

    def _reply(self, name: str, said: Any) -> Message:
        sent = self._sent.pop(name)
        sent.metadata.__dict__["_message_id"] = name
        return Message(said, reply_to=sent)

    set_run = run = create_message = get_node_ids = send_and_receive = None  # type: ignore[assignment]


Deployment.__abstractmethods__ = frozenset()


def train() -> Message:
    return Message(RecordDict({JOB: ConfigRecord({})}), NODE, "train")


def replies_to(grid: Deployment, client: PatientClient, until: float, **events: float) -> list[Message]:
    """Send a training, let time pass, and return what it is answered."""
    name, found = client.push(train()), []
    while grid.now < until and not found:
        for event, at in events.items():
            if at == grid.now:
                getattr(grid, event)()
        found = client.pull([name])
        grid.now += 1
    assert all(reply.metadata.reply_to_message_id == name for reply in found)
    return found


@pytest.fixture
def grid() -> Deployment:
    return Deployment()


@pytest.fixture
def client(grid: Deployment) -> PatientClient:
    return PatientClient(grid, patience=120, names={NODE: "user 0"}, clock=lambda: grid.now)


def test_a_node_that_works_is_left_alone(grid: Deployment, client: PatientClient) -> None:
    grid.slow = 3600
    (reply,) = replies_to(grid, client, 4000)
    assert not reply.has_error() and grid.now > 3600
    assert len(grid.took) == 1  # the second message waits behind the work


def test_a_node_that_was_started_again_within_a_minute_gets_its_work_again(
    grid: Deployment, client: PatientClient
) -> None:
    grid.slow = 100
    (reply,) = replies_to(grid, client, 1000, kill=40, start=40)
    assert not reply.has_error()
    assert 140 < grid.now < 100 + 40 + 60  # noticed within a minute


def test_a_node_that_is_gone_is_waited_for_and_gets_its_work_again(grid: Deployment, client: PatientClient) -> None:
    (reply,) = replies_to(grid, client, 1000, kill=5, start=100)
    assert not reply.has_error() and 110 < grid.now < 140


def test_a_node_is_waited_for_each_time_that_it_is_gone(grid: Deployment, client: PatientClient) -> None:
    grid.slow = 300
    name, found, events = client.push(train()), [], {5: grid.kill, 100: grid.start, 250: grid.kill, 350: grid.start}
    while grid.now < 2000 and not found:
        events.get(int(grid.now), lambda: None)()
        found = client.pull([name])
        grid.now += 1
    assert found and not found[0].has_error()
    assert grid.now > 650


def test_a_node_that_does_not_come_back_is_an_error_once_patience_ends(grid: Deployment, client: PatientClient) -> None:
    (reply,) = replies_to(grid, client, 1000, kill=5)
    assert reply.has_error() and reply.error.code == ErrorCode.NODE_UNAVAILABLE
    assert 120 < grid.now < 150


def test_work_whose_process_crashed_is_sent_again_twice_and_then_that_is_the_reply(
    grid: Deployment, client: PatientClient
) -> None:
    (reply,) = replies_to(grid, client, 1000, crash=5)
    assert not reply.has_error() and len(grid.took) == 2
    name, found, crashes = client.push(train()), [], 0
    grid.slow = 300
    while grid.now < 3000 and not found:
        found = client.pull([name])
        if grid._working is not None and grid._sent[grid._working[0]].metadata.message_type == "train":
            grid.crash()
            crashes += 1
        grid.now += 1
    assert crashes == 3
    assert found[0].error.code == ErrorCode.CLIENT_APP_CRASHED


def test_an_error_of_the_work_itself_is_the_reply(grid: Deployment, client: PatientClient) -> None:
    grid._reply = lambda name, said: Message(Error(0, "no"), reply_to=_named(grid._sent.pop(name), name))  # type: ignore[method-assign]
    (reply,) = replies_to(grid, client, 100)
    assert reply.error.reason == "no"


def _named(message: Message, name: str) -> Message:
    message.metadata.__dict__["_message_id"] = name
    return message
