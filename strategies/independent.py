"""Each user trains and keeps an h_theta of its own: the paper's setting, for many users."""

from collections.abc import Iterable
from logging import INFO, WARNING

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from flwr.serverapp.strategy.strategy_utils import aggregate_metricrecords


class Independent(Strategy):
    """No theta is shared: users get none, keep their own, and go on from it in the next round."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Tell every user to train for a round, without a theta to start from."""
        config["server-round"] = server_round
        return [
            Message(RecordDict({"config": config}), node, MessageType.TRAIN, group_id=str(server_round))
            for node in grid.get_node_ids()
        ]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average the metrics, weighted by images; leave the thetas with their users."""
        usable: list[RecordDict] = []
        for reply in replies:
            if reply.has_error():
                log(
                    WARNING,
                    "node %d failed in round %d: %s",
                    reply.metadata.src_node_id,
                    server_round,
                    reply.error.reason,
                )
            else:
                usable.append(reply.content)
        return None, aggregate_metricrecords(usable, "num-examples") if usable else None

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask for nothing: users validate their own theta while they train."""
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Return nothing: nothing was asked."""
        return None

    def summary(self) -> None:
        """Log what this strategy does."""
        log(INFO, "\t└──> every user trains and keeps its own transformer")
