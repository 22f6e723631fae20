"""Which role a node has, and what a role's node keeps between messages."""

import gc
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import torch
from flwr.app import Context

from roles.common.compute import Compute
from roles.common.data import ImageStore, prepare
from sim.config import Experiment, cache_folder
from sim.messages import Job, MessageError

RoleName = Literal["provider", "user", "evaluator"]


@dataclass(frozen=True)
class Role:
    """A node's role, and its number among the nodes of that role (from 0)."""

    name: RoleName
    index: int


def role_of(context: Context, experiment: Experiment) -> Role:
    """Return the role of a node.

    A deployment names it: ``--node-config "role='user' partition-id=3"``. In a simulation, partition 0 is the provider,
    then come the users, then the evaluators.

    Raises:
        MessageError: the node has neither a role nor a partition id, or one that the experiment has no role for.
    """
    config = context.node_config
    partition = int(cast(int, config.get("partition-id", 0)))
    if "role" in config:
        name = str(config["role"])
        if name not in ("provider", "user", "evaluator"):
            raise MessageError(f"node_config role {name!r}: must be provider, user or evaluator")
        return Role(cast(RoleName, name), partition)
    if "partition-id" not in config:
        raise MessageError("the node has no role: set node_config role (provider, user or evaluator) and partition-id")
    if partition == 0:
        return Role("provider", 0)
    users, evaluators = experiment.user_count, experiment.runtime.evaluators
    if not 0 < partition <= users + evaluators:
        raise MessageError(
            f"partition-id {partition} has no role: 0 is the provider, and there are {users} users and "
            f"{evaluators} evaluators"
        )
    return Role("user", partition - 1) if partition <= users else Role("evaluator", partition - 1 - users)


def user_name(user: int) -> str:
    """Return what tables, folders and messages call a user."""
    return f"user-{user:04d}"


def user_of(subject: str) -> int:
    """Return whose transformer a subject is; one of all users is as much the first's as anybody's.

    >>> user_of("user-0003"), user_of("shared")
    (3, 0)
    """
    return int(subject.removeprefix("user-")) if subject.startswith("user-") else 0


def subject_title(subject: str) -> str:
    """Return what figures and summaries call a subject of attacks.

    >>> subject_title("user-0003"), subject_title("control-blur")
    ('user 3', 'control-blur')
    """
    name, dash, number = subject.partition("-")
    return f"{name} {int(number)}" if dash and number.isdecimal() else subject


def store_of(experiment: Experiment) -> ImageStore:
    """Return this machine's copy of the data, made on first use."""
    return prepare(experiment.data, cache_folder() / "data")


def compute_of(experiment: Experiment) -> Compute:
    """Return the arithmetic of this process, with its thread count set."""
    torch.set_num_threads(experiment.runtime.threads)
    precision = experiment.runtime.precision
    if precision == "auto":
        raise MessageError("runtime.precision is still auto: the experiment was not resolved")
    return Compute(precision, None if experiment.runtime.gpu_fraction else "cpu")


def settle() -> None:
    """Tell the garbage collector that what this process has imported stays: it would go through all of it again."""
    gc.freeze()


def state_folder(job: Job) -> Path:
    """Return where nodes keep the state of ``job``'s run."""
    return job.run / "state"
