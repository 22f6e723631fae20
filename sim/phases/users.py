"""Section III-A, steps 2 and 3: users train, each by itself or all together, and are handed on to evaluation."""

import math
from dataclasses import replace
from logging import WARNING
from typing import cast

import torch
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.common.logger import log
from flwr.serverapp.strategy.strategy_utils import aggregate_metricrecords

from roles.common.naming import user_name
from roles.common.seeds import derived_seed
from roles.common.unet import UNet
from roles.common.weights import cpu_state, without_statistics
from sim.config.experiment import Experiment
from sim.exchange.client import reason_of
from sim.exchange.job import encode_job
from sim.exchange.messages import encode_tensors
from sim.exchange.relay_grid import RelayGrid
from sim.phases.evaluation import Evaluation
from sim.phases.roster import Roster, RunFailed
from sim.run.folder import RunFolder
from strategies import STRATEGIES


def train_alone(roster: Roster, evaluation: Evaluation) -> None:
    """Have each user train by itself: it goes through all rounds without waiting, and is evaluated once trained.

    Users that failed before a resume are tried again.
    """
    run, users = roster.run, roster.users
    user_of = {node: user for user, node in enumerate(users)}
    published = run.published()
    for user in published:
        evaluation.add(user)
    missing = [node for user, node in enumerate(users) if user not in published]
    trained: list[int] = []

    def show() -> None:
        done = len(published) + len(trained)
        roster.board.show("users", "training users", done, len(users), users=len(users) - done)

    def finished(reply: Message) -> None:
        user = user_of[reply.metadata.src_node_id]
        trained.append(user)
        if _is_trained(reply, user, run):
            evaluation.add(user)
        show()

    show()
    if missing:
        job = replace(roster.job, rounds=roster.job.experiment.strategy.rounds)
        with run.timing("users_seconds"):
            STRATEGIES["independent"](len(missing), 0).start(
                RelayGrid(roster.grid, roster.relay, missing, finished),
                ArrayRecord(),
                num_rounds=1,
                timeout=float("inf"),
                train_config=encode_job(job),
            )


def _is_trained(reply: Message, user: int, run: RunFolder) -> bool:
    """Return whether a user's training has succeeded, and keep why if it has not."""
    if reply.has_error():
        run.keep_failure(user_name(user), reason_of(reply))
        return False
    run.forget_failure(user_name(user))
    return True


def train_together(roster: Roster, evaluation: Evaluation) -> None:
    """Have all users go round by round, under a strategy that averages, and publish the last average.

    Raises:
        RunFailed: no user has finished a round, which a resumed run tries again.
    """
    run, users, experiment = roster.run, roster.users, roster.job.experiment
    rounds = _Rounds(roster)
    # All have the same validation images: of one theta, one user finds what any other would.
    validating = 1 if experiment.strategy.publishes_one else len(users)
    if rounds.left:
        with run.timing("users_seconds"):
            STRATEGIES[experiment.strategy.name](len(users), validating).start(
                RelayGrid(roster.grid, roster.relay, users, rounds.replied),
                run.round_arrays() or _initial_theta(experiment),
                num_rounds=rounds.left,
                timeout=experiment.strategy.deadline or math.inf,
                train_config=encode_job(roster.job),
                evaluate_config=encode_job(roster.job),
                evaluate_fn=rounds.ended,
            )
    average = run.round_arrays()
    for user in range(len(users)):
        evaluation.add(user, average)


class _Rounds:
    """What users say in the rounds of a strategy that averages, and what is kept of each round."""

    def __init__(self, roster: Roster) -> None:
        self._run, self._users, self._board = roster.run, roster.users, roster.board
        self._before, self._total = roster.job.first_round, roster.job.experiment.strategy.rounds
        self._trained: list[int] = []
        self._validated: list[RecordDict] = []

    @property
    def left(self) -> int:
        """How many rounds no earlier attempt has finished."""
        return self._total - self._before

    def replied(self, reply: Message) -> None:
        """Note what a user says at the end of its part in a round."""
        user = self._users.index(reply.metadata.src_node_id)
        # What a user says when it is asked to evaluate is no word on its training.
        if reply.metadata.message_type.partition(".")[0] != "train":
            self._validated += [] if reply.has_error() else [reply.content]
        elif _is_trained(reply, user, self._run):
            self._trained.append(user)

    def ended(self, number: int, arrays: ArrayRecord) -> MetricRecord | None:
        """Keep the average: Flower calls this before the first round (number 0) and after each, whoever has failed."""
        finished = self._before + number
        if number:
            if not self._trained:
                reason = self._run.failure(user_name(0))
                raise RunFailed(f"no user finished round {finished}; the first said: {reason}")
            if late := [user for user in range(len(self._users)) if user not in self._trained]:
                log(WARNING, "round %d went on without %s", finished, ", ".join(map(user_name, late)))
            means = aggregate_metricrecords(self._validated, "num-examples") if self._validated else {}
            self._run.keep_round(
                finished, arrays, {f"validation_{key}": cast(float, mean) for key, mean in means.items()}
            )
            self._trained.clear()
            self._validated.clear()
        left = len(self._users) * (1 - finished / self._total)
        self._board.show("users", "training users, rounds", finished, self._total, users=left)
        return None


def _initial_theta(experiment: Experiment) -> ArrayRecord:
    """Return what an averaging strategy starts from."""
    torch.manual_seed(derived_seed(experiment.seed, "theta"))
    config = experiment.user_config(0)
    theta = cpu_state(UNet(config.width, config.depth, config.upsampling))
    return encode_tensors(theta if experiment.strategy.batch_norm == "shared" else without_statistics(theta))
