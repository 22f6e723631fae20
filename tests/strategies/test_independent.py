from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Strategy

from strategies import STRATEGIES, Independent


class Nodes(Grid):
    """A grid of which a strategy needs nothing but the ids of the nodes."""

    def __init__(self, *nodes: int) -> None:
        self._nodes = nodes

    def get_node_ids(self) -> Iterable[int]:
        return self._nodes

    def set_run(self, run: Any) -> None:
        raise NotImplementedError

    @property
    def run(self) -> Any:
        raise NotImplementedError

    def create_message(self, *arguments: Any, **options: Any) -> Message:
        raise NotImplementedError

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        raise NotImplementedError

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        raise NotImplementedError

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        raise NotImplementedError


THETA = ArrayRecord({"weight": Array(np.ones(2, dtype=np.float32))})


def reply(node: int, images: int, loss: float) -> Message:
    metrics = MetricRecord({"num-examples": images, "loss": loss})
    content = RecordDict({"arrays": THETA, "metrics": metrics})
    return Message(content, reply_to=Message(RecordDict(), node, "train"))


def failure(node: int) -> Message:
    return Message(Error(0, "no more disk"), reply_to=Message(RecordDict(), node, "train"))


def test_every_user_is_told_to_train_in_order_and_without_a_theta() -> None:
    config = ConfigRecord({"run": "/runs/one"})
    messages = list(Independent().configure_train(3, THETA, config, Nodes(7, 5, 9)))
    assert [message.metadata.dst_node_id for message in messages] == [7, 5, 9]
    for message in messages:
        assert message.metadata.message_type == "train"
        assert message.metadata.group_id == "3"
        assert list(message.content) == ["config"]
        assert dict(message.content.config_records["config"]) == {"run": "/runs/one", "server-round": 3}


def test_metrics_are_averaged_by_images_and_thetas_stay_with_their_users() -> None:
    arrays, metrics = Independent().aggregate_train(1, [reply(1, 10, 2.0), reply(2, 30, 1.0)])
    assert arrays is None
    assert metrics is not None
    assert metrics["loss"] == pytest.approx(1.25)  # (10 * 2 + 30 * 1) / 40


def test_users_that_failed_are_left_out_and_named(caplog: pytest.LogCaptureFixture) -> None:
    # Flower's logger does not propagate to the root logger, where pytest listens.
    import logging

    logger = logging.getLogger("flwr")
    logger.addHandler(caplog.handler)
    try:
        _, metrics = Independent().aggregate_train(2, [failure(1), reply(2, 30, 1.0)])
    finally:
        logger.removeHandler(caplog.handler)
    assert metrics is not None
    assert metrics["loss"] == 1.0
    assert "node 1 failed in round 2: no more disk" in caplog.text


def test_a_round_in_which_every_user_failed_has_no_metrics() -> None:
    assert Independent().aggregate_train(1, [failure(1)]) == (None, None)
    assert Independent().aggregate_train(1, []) == (None, None)


def test_nobody_is_asked_to_evaluate() -> None:
    strategy = Independent()
    assert list(strategy.configure_evaluate(1, THETA, ConfigRecord(), Nodes(1, 2))) == []
    assert strategy.aggregate_evaluate(1, []) is None
    strategy.summary()


@pytest.mark.parametrize(("name", "kind"), [("independent", Independent), ("fedavg", FedAvg)])
def test_a_strategy_of_every_name_trains_all_users(name: str, kind: type[Strategy]) -> None:
    strategy = STRATEGIES[name](3, 1)
    assert type(strategy) is kind
    messages = list(strategy.configure_train(1, THETA, ConfigRecord(), Nodes(4, 5, 6)))
    assert sorted(message.metadata.dst_node_id for message in messages) == [4, 5, 6]


@pytest.mark.parametrize("validating", [1, 3])
def test_a_strategy_that_averages_asks_as_many_users_as_it_is_told_how_the_average_does(validating: int) -> None:
    messages = list(STRATEGIES["fedavg"](3, validating).configure_evaluate(1, THETA, ConfigRecord(), Nodes(4, 5, 6)))
    assert len(messages) == validating


def test_every_name_that_a_config_may_hold_has_a_strategy() -> None:
    from sim.config.sections import StrategyConfig

    annotation = StrategyConfig.model_fields["name"].annotation
    assert set(STRATEGIES) == set(annotation.__args__)  # type: ignore[union-attr]
