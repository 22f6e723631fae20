"""Who takes part in a run: every node says its role, and from then on phases reach nodes by role."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import cast

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from sim.exchange.client import reason_of
from sim.exchange.job import Job, encode_job, job_content
from sim.exchange.load import ProviderLoad
from sim.exchange.messages import PUBLISHED
from sim.exchange.relay import Relay
from sim.exchange.rights import Gate
from sim.run.folder import RunFolder
from sim.run.progress import Board
from sim.run.published import answer_published


class RunFailed(RuntimeError):
    """The run cannot go on; the message is one line."""


@dataclass(frozen=True)
class Roster:
    """The nodes of a run by their roles, and what its phases work with."""

    grid: Grid
    run: RunFolder
    job: Job
    provider: int
    """Node id; so are those of users and evaluators, in the order of their index."""
    users: list[int]
    evaluators: list[int]
    """The provider's node, where the experiment has none of its own."""
    relay: Relay
    board: Board

    def ask_provider(self, message_type: str) -> RecordDict:
        """Send the job to the provider, and return the content of its reply.

        Raises:
            RunFailed: the reply is an error.
        """
        reply = self.relay.ask(Message(job_content(self.job), self.provider, message_type))
        if reply.has_error():
            raise RunFailed(reason_of(reply))
        return reply.content


def call_roll(
    grid: Grid, run: RunFolder, job: Job, idle: Callable[[], None], load: ProviderLoad, board: Board
) -> Roster:
    """Ask every node for its role.

    Args:
        grid: reaches the nodes.
        run: where results go.
        job: what is to be done.
        idle: called now and then while the relay waits.
        load: told of every request to the provider.
        board: where the run's phases say what they do.

    Raises:
        RunFailed: the roles are not those that the experiment needs, or cannot exchange as it says.
    """
    experiment, workers = job.experiment, job.experiment.runtime.worker_count
    nodes = list(grid.get_node_ids())
    found: dict[str, dict[int, int]] = {"provider": {}, "user": {}, "evaluator": {}}
    simulated = False
    # The first tells how to ask the others.
    for some in (nodes[:1], nodes[1:]):
        patience = None if simulated else experiment.runtime.patience
        relay = Relay(grid, 0, encode_job(job), 3 * workers if simulated else None, patience=patience)
        for reply in relay.exchange([Message(job_content(job), node, "query.role") for node in some]):
            if reply.has_error():
                raise RunFailed(reason_of(reply))
            role, node = reply.content.config_records["role"], reply.metadata.src_node_id
            name, index = str(role["name"]), int(cast(int, role["index"]))
            if name not in found:
                raise RunFailed(f"node {node} says that it is {name!r}: must be one of {', '.join(found)}")
            if index in found[name]:
                raise RunFailed(f"nodes {found[name][index]} and {node} both say that they are {name} {index}")
            found[name][index] = node
            simulated = bool(role["simulated"])
    if experiment.runtime.exchange == "direct" and not simulated:
        raise RunFailed("direct exchange is for simulations: a deployment needs runtime.exchange=endpoint (or relay)")
    wanted = {"provider": 1, "user": experiment.user_count, "evaluator": experiment.runtime.evaluators}
    for name, count in wanted.items():
        if sorted(found[name]) != list(range(count)):
            raise RunFailed(f"the nodes hold {name} roles {sorted(found[name])}, expected {list(range(count))}")
    (provider,), users, evaluators = ([found[name][index] for index in range(wanted[name])] for name in wanted)
    evaluators = evaluators or [provider]

    # A node that attacks keeps no state between messages: in a simulation, all workers may act for it at once.
    ahead = 1 + math.ceil(workers / len(evaluators)) if simulated else 1
    # One for each worker and one in hand; where users are relayed, for each worker one that it works on, one that
    # waits for it, and one that waits for the provider.
    busy = 3 * workers if experiment.runtime.exchange == "relay" else workers + 1
    askers = {node: ("user", index) for index, node in enumerate(users)}
    askers |= {node: ("evaluator", index) for index, node in enumerate(evaluators)}
    relay = Relay(
        grid,
        provider,
        encode_job(job),
        busy if simulated else None,
        lambda node: ahead if node in evaluators else 1,
        idle,
        {PUBLISHED: partial(answer_published, run.path)},
        load,
        Gate(askers, experiment.provider.limits),
        None if simulated else experiment.runtime.patience,
    )
    if not simulated:
        board.nodes_are_elsewhere()
    return Roster(grid, run, job, provider, users, evaluators, relay, board)
