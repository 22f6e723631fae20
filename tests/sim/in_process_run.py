"""A whole run in this process: the real ServerApp, the real ClientApp, and a Grid that can be made to fail anywhere."""

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from flwr.app import Error, Message

import sim.client_app
import sim.nodes.provider.serving
from sim.config.experiment import Experiment
from sim.run.folder import RunFolder
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


def run_in(
    folder: Path, experiment: Experiment, tamper: Tamper | None = None, **options: Any
) -> tuple[RunFolder, InMemoryGrid]:
    """Run, or go on with the run in ``folder``, as a process would that has nothing in memory.

    Args:
        tamper: see :class:`InMemoryGrid`.
        options: others of it.
    """
    sim.client_app._store.forget()
    sim.nodes.provider.serving._replicas.clear()
    run = RunFolder(folder)
    if not (folder / "config.yaml").exists():
        run = RunFolder.create(folder, experiment)
    nodes = [PROVIDER, *range(USERS[0], USERS[0] + experiment.user_count + 1)]  # the last one evaluates
    grid = InMemoryGrid(nodes, **({} if tamper is None else {"tamper": tamper}), **options)
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


def evaluation_failing(subject: str, reason: str = "out of memory") -> Tamper:
    """Lose what an evaluator says of a subject: an attack, or a part of a study."""

    def tamper(message: Message, reply: Message) -> Message:
        records = message.content.config_records
        named = "/".join(str(records["study"][key]) for key in ("kind", "part")) if "study" in records else None
        asked = records["subject"]["name"] if "subject" in records else named
        return Message(Error(0, reason), reply_to=message) if asked == subject else reply

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


@dataclass(frozen=True)
class Whole:
    """A run that was not killed, how many replies it took, and what its folder was after each share of them."""

    run: RunFolder
    replies: int
    killed: dict[float, Path]


def whole_run(folder: Path, experiment: Experiment, shares: Iterable[float]) -> Whole:
    """Run twice: to count replies, and to copy the folder as a process that is killed then would leave it."""
    run, grid = run_in(folder / "whole", experiment)
    replies = len(grid.replies)
    at = {round(share * replies): folder / f"killed-{share}" for share in shares}
    seen = 0

    def copying(message: Message, reply: Message) -> Message:
        nonlocal seen
        # The reply has been made, and nobody has it.
        if seen in at:
            shutil.copytree(folder / "copied", at[seen])
        seen += 1
        return reply

    run_in(folder / "copied", experiment, copying)
    return Whole(run, replies, {share: at[round(share * replies)] for share in shares})
