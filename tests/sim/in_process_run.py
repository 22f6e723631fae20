"""A whole run in this process: the real ServerApp, the real ClientApp, and a Grid that can be made to fail anywhere."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
from flwr.app import Error, Message

from sim.config import Experiment
from sim.runs import RunFolder
from sim.server_app import run_experiment
from tests.sim.in_memory_grid import PROVIDER, USERS, InMemoryGrid

Tamper = Callable[[Message, Message], Message]
EVALUATOR = 203

STRATEGIES: dict[str, dict[str, str]] = {
    "independent": {"name": "independent"},
    "fedavg": {"name": "fedavg"},
    "fedavg, local batch norm": {"name": "fedavg", "batch_norm": "local"},
}


def with_strategy(experiment: Experiment, name: str) -> Experiment:
    strategy = experiment.strategy.model_copy(update=STRATEGIES[name])
    return experiment.model_copy(update={"strategy": strategy})


def run_in(folder: Path, experiment: Experiment, tamper: Tamper | None = None) -> tuple[RunFolder, InMemoryGrid]:
    """Run, or go on with the run in ``folder``."""
    run = RunFolder(folder)
    if not (folder / "config.yaml").exists():
        run = RunFolder.create(folder, experiment)
    nodes = [PROVIDER, *range(USERS[0], USERS[0] + experiment.user_count + 1)]  # the last one evaluates
    grid = InMemoryGrid(nodes, **({} if tamper is None else {"tamper": tamper}))
    run_experiment(grid, run, run.experiment())
    return run, grid


def table_of(run: RunFolder) -> pd.DataFrame:
    return pd.read_parquet(run.path / "table.parquet").set_index("subject")


def failing(message_type: str, node: int = 201, reason: str = "no more disk") -> Tamper:
    def tamper(message: Message, reply: Message) -> Message:
        metadata = message.metadata
        failed = metadata.message_type == message_type and metadata.dst_node_id == node
        return Message(Error(0, reason), reply_to=message) if failed else reply

    return tamper


def attack_failing(subject: str) -> Tamper:
    def tamper(message: Message, reply: Message) -> Message:
        asked = message.content.config_records.get("config", {}).get("subject")
        return Message(Error(0, "out of memory"), reply_to=message) if asked == subject else reply

    return tamper


class KilledError(Exception):
    """The process is gone."""


def killed_after(replies: int) -> Tamper:
    left = replies

    def tamper(message: Message, reply: Message) -> Message:
        nonlocal left
        left -= 1
        if left < 0:
            raise KilledError
        return reply

    return tamper
