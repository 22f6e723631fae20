"""Which role a node has, and where it writes."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from flwr.app import Context

from sim.config.experiment import Experiment
from sim.config.places import state_folder
from sim.exchange.job import Job
from sim.exchange.messages import MessageError

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
    if is_deployed(context):
        name = str(config["role"])
        if name not in ("provider", "user", "evaluator"):
            raise MessageError(f"node_config role {name!r}: must be provider, user or evaluator")
        return Role(cast(RoleName, name), partition)
    if "partition-id" in config and "num-partitions" not in config:
        raise MessageError(
            "this node's config names no role: start it with --node-config \"role='user' partition-id=0\""
        )
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


def is_deployed(context: Context) -> bool:
    """Return whether this is a node of a deployment, which names its role; a simulation gives a number only."""
    return "role" in context.node_config


def run_of(context: Context, job: Job, role: Role) -> Path:
    """Return where a node keeps what belongs to the run of a job.

    In a simulation that is the run's folder. In a deployment a node writes nowhere but in a folder of its own, which
    its ``--node-config "state='FOLDER'"`` names, whatever path the ServerApp's message has.
    """
    if not is_deployed(context):
        return job.run
    own = context.node_config.get("state")
    folder = Path(str(own)).expanduser().resolve() if own else state_folder() / f"{role.name}-{role.index}"
    return folder / hashlib.sha256(str(job.run).encode()).hexdigest()[:16]
