"""The ServerApp: an experiment from psi to report, phase by phase.

Read this file first: everything that happens in a run is called from :func:`run_experiment`, in order.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from logging import ERROR, INFO
from pathlib import Path
from typing import cast

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy.strategy_utils import aggregate_metricrecords

from roles.common.seeds import derived_seed
from roles.common.unet import UNet
from roles.common.weights import cpu_state, without_statistics
from sim.checks import check
from sim.config import Experiment, one_line
from sim.config_files import load_experiment
from sim.evaluation import Evaluation
from sim.messages import LOAD, METRICS, PUBLISHED, Job, encode_job, encode_tensors, job_content
from sim.nodes import user_name
from sim.ownership import claim, watch_owner
from sim.progress import ProgressLine, Status
from sim.provider_load import ProviderLoad
from sim.relay import Relay, RelayGrid, reason_of
from sim.report import write_report
from sim.result_messages import decode_curve, decode_load
from sim.runs import RunFolder, answer_published
from sim.studies import run_studies
from sim.tracking import Tracker
from sim.user_node import forget_training
from strategies import STRATEGIES

app = ServerApp()

_LOG_INTERVAL_S = 20


class RunFailed(RuntimeError):
    """The run cannot go on; the message is one line."""


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the experiment that the run config names.

    ``config`` is a YAML file, ``set`` holds overrides separated by spaces, ``run`` is the folder of a run that
    ``veilsim run`` has prepared (else one is made under ``runs/``), ``owner`` the process that started it.
    """
    config = context.run_config
    watch_owner(int(cast(int, config["owner"])))
    nodes = len(list(grid.get_node_ids()))
    run = _open_run(str(config["run"]), str(config["config"]), str(config["set"]).split(), nodes)
    with claim(run.path, "server"):
        try:
            run_experiment(grid, run, run.experiment().with_users(nodes))
        except Exception as error:
            log(ERROR, "run %s failed: %s", run.path, error)
            Status("failed", error=one_line(error)).write(run.path)
            raise


def _open_run(run: str, config: str, overrides: list[str], nodes: int) -> RunFolder:
    if run:
        return RunFolder.open(Path(run))
    path = Path(config)
    if not path.is_absolute() and not path.exists():
        # Under `flwr run` the working directory is the SuperLink's: the configs travel with the app.
        path = Path(__file__).parent.parent / path
    experiment = load_experiment(path, overrides).resolved().with_users(nodes)
    check(experiment, path)
    folder = Path("runs").resolve() / f"{experiment.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    log(INFO, "run folder: %s", folder)
    return RunFolder.create(folder, experiment)


def run_experiment(grid: Grid, run: RunFolder, experiment: Experiment) -> None:
    """Train psi, let users train against it, publish, attack, report; skip what an earlier attempt has finished.

    Raises:
        RunFailed: the nodes are not those that it needs, psi cannot be had or is another than in an earlier attempt, no
            user finished its training or, under a strategy that averages, a round of it, or psi has changed.
    """
    job = Job(experiment, run.path, first_round=run.finished_rounds() if experiment.strategy.averages else 0)
    with run.timing("seconds") as note_seconds:
        roster = _roster(grid, job)
        load = ProviderLoad(run.load())
        relay = roster.relay(grid, job, _progress_log(run, load, note_seconds), load)

        digest = _train_classifier(relay, roster.provider, run, job)
        # A provider that evaluates as well has its users' questions to answer first.
        while_training = roster.evaluators != [roster.provider]
        tracker = Tracker(run, experiment)
        evaluation = Evaluation(relay, roster.users, roster.evaluators, run, job, while_training, tracker.published)
        if experiment.strategy.averages:
            _train_together(grid, relay, roster.users, run, job, evaluation)
        else:
            _train_alone(grid, relay, roster.users, run, job, evaluation)
        if not evaluation.finish():
            raise RunFailed(f"no user finished its training; the first said: {run.failure(user_name(0))}")
        run_studies(relay, roster.evaluators, run, job)
        last = _ask(relay, Message(job_content(job), roster.provider, "query.psi"))
        load.add(decode_load(last.metric_records[LOAD]))
        run.keep_load(load.rows())
        if last.config_records["psi"]["digest"] != digest:
            raise RunFailed("psi has changed while users trained: the results of this run mean nothing")

    Status("report").write(run.path)
    for line in write_report(run, experiment).splitlines():
        log(INFO, "%s", line)
    tracker.finished()
    for user in range(experiment.user_count):
        if run.is_published(user) and not run.failure(user_name(user)):
            forget_training(job, user)
    Status("complete").write(run.path)


def _progress_log(run: RunFolder, load: ProviderLoad, note_seconds: Callable[[], None]) -> Callable[[], None]:
    """Return a function that logs how far the run is, now and then: all that ``flwr run --stream`` shows of it.

    What the provider was asked and the time that it took are kept at the same times, for a run that is killed.
    """
    line, last = ProgressLine(run.path), time.monotonic()

    def tell() -> None:
        nonlocal last
        if time.monotonic() - last >= _LOG_INTERVAL_S:
            last = time.monotonic()
            log(INFO, "%s", line.of(Status.read(run.path)))
            run.keep_load(load.rows())
            note_seconds()

    return tell


def _ask(relay: Relay, message: Message) -> RecordDict:
    reply = relay.ask(message)
    if reply.has_error():
        raise RunFailed(reason_of(reply))
    return reply.content


@dataclass(frozen=True)
class _Roster:
    """Who the nodes are: node ids, of users and evaluators in the order of their index."""

    provider: int
    users: list[int]
    evaluators: list[int]
    simulated: bool

    def relay(self, grid: Grid, job: Job, idle: Callable[[], None], load: ProviderLoad) -> Relay:
        """Return the relay to these nodes."""
        attackers, workers = set(self.evaluators), job.experiment.runtime.worker_count
        # A node that attacks keeps no state between messages: in a simulation, all workers may act for it at once.
        ahead = 1 + math.ceil(workers / len(attackers)) if self.simulated else 1

        def per_node(node: int) -> int:
            return ahead if node in attackers else 1

        # One for each worker and one in hand; where users are relayed, for each worker one that it works on, one that
        # waits for it, and one that waits for the provider.
        busy = workers + 1 if job.experiment.runtime.exchange == "direct" else 3 * workers
        own = {PUBLISHED: partial(answer_published, job.run)}
        under_way = busy if self.simulated else None
        return Relay(grid, self.provider, encode_job(job), under_way, per_node, idle, own, load)


def _roster(grid: Grid, job: Job) -> _Roster:
    """Ask every node for its role.

    Raises:
        RunFailed: the roles are not those that the experiment needs, or cannot exchange as it says.
    """
    nodes = list(grid.get_node_ids())
    found: dict[str, dict[int, int]] = {"provider": {}, "user": {}, "evaluator": {}}
    simulated = False
    # The first tells how to ask the others.
    for some in (nodes[:1], nodes[1:]):
        relay = Relay(grid, 0, encode_job(job), 3 * job.experiment.runtime.worker_count if simulated else None)
        for reply in relay.exchange([Message(job_content(job), node, "query.role") for node in some]):
            if reply.has_error():
                raise RunFailed(reason_of(reply))
            role = reply.content.config_records["role"]
            found[str(role["name"])][int(cast(int, role["index"]))] = reply.metadata.src_node_id
            simulated = bool(role["simulated"])
    if job.experiment.runtime.exchange == "direct" and not simulated:
        raise RunFailed("direct exchange is for simulations: a deployment needs runtime.exchange=relay")
    wanted = {"provider": 1, "user": job.experiment.user_count, "evaluator": job.experiment.runtime.evaluators}
    for name, count in wanted.items():
        if sorted(found[name]) != list(range(count)):
            raise RunFailed(f"the nodes hold {name} roles {sorted(found[name])}, expected {list(range(count))}")
    provider, users, evaluators = ([found[name][index] for index in range(wanted[name])] for name in wanted)
    return _Roster(provider[0], users, evaluators or provider, simulated)


def _train_classifier(relay: Relay, provider: int, run: RunFolder, job: Job) -> str:
    """Section III-A, step 1.

    Raises:
        RunFailed: psi cannot be had, or is not the one that users have trained against in an earlier attempt.
    """
    Status("classifier", 0, 1, "classifier").write(run.path)
    began, before = time.time(), run.facts().get("psi")
    reply = _ask(relay, Message(job_content(job), provider, "train.classifier"))
    facts, digest = reply.metric_records[METRICS], str(reply.config_records["psi"]["digest"])
    if before is not None and before["digest"] != digest:
        raise RunFailed(
            f"psi is another one than in an earlier attempt (digest {digest[:8]}, was {before['digest'][:8]}), which "
            "users have trained against: start a new run"
        )
    run.keep_classifier_curve(decode_curve(reply.metric_records["curve"]))
    run.note(
        {
            "psi": {
                "digest": digest,
                "test_accuracy": facts["test-accuracy"],
                "plain_accuracy": facts["plain-accuracy"],
                "selected_epoch": facts["selected-epoch"],
                # An earlier attempt at this run may have trained it.
                "reused": bool(facts["reused"]) if before is None else before["reused"],
                "seconds": time.time() - began if before is None else before["seconds"],
            }
        }
    )
    log(INFO, "psi: %.2f%% of plain test images", 100 * cast(float, facts["test-accuracy"]))
    return digest


def _train_alone(grid: Grid, relay: Relay, users: list[int], run: RunFolder, job: Job, evaluation: Evaluation) -> None:
    """Steps 2 and 3, each user by itself: it goes through all rounds without waiting, and is evaluated once trained.

    Users that failed before a resume are tried again.
    """
    rounds, user_of = job.experiment.strategy.rounds, {node: user for user, node in enumerate(users)}
    missing: list[int] = []
    for user, node in enumerate(users):
        if run.is_published(user):
            evaluation.add(user)
        else:
            missing.append(node)
    done = len(users) - len(missing)

    def finished(reply: Message) -> None:
        nonlocal done
        user, done = user_of[reply.metadata.src_node_id], done + 1
        if _is_trained(reply, user, run):
            evaluation.add(user)
        Status("users", done, len(users), "users", len(users)).write(run.path)

    Status("users", done, len(users), "users", len(users)).write(run.path)
    if missing:
        with run.timing("users_seconds"):
            STRATEGIES["independent"](len(missing), 0).start(
                RelayGrid(grid, relay, missing, finished),
                ArrayRecord(),
                num_rounds=1,
                timeout=float("inf"),
                train_config=encode_job(replace(job, rounds=rounds)),
            )


def _is_trained(reply: Message, user: int, run: RunFolder) -> bool:
    """Return whether a user's training has succeeded, and keep why if it has not."""
    if reply.has_error():
        run.keep_failure(user_name(user), reason_of(reply))
        return False
    run.forget_failure(user_name(user))
    return True


def _train_together(
    grid: Grid, relay: Relay, users: list[int], run: RunFolder, job: Job, evaluation: Evaluation
) -> None:
    """Steps 2 and 3 under a strategy that averages: all users go round by round, and publish the last average.

    Raises:
        RunFailed: no user has finished a round, which a resumed run tries again.
    """
    experiment = job.experiment
    rounds, done, trained = experiment.strategy.rounds, job.first_round, 0
    # All have the same validation images: of one theta, one user finds what any other would.
    validating = 1 if experiment.strategy.publishes_one else len(users)
    validated: list[RecordDict] = []
    user_of = {node: user for user, node in enumerate(users)}

    def finished(reply: Message) -> None:
        nonlocal trained
        # What a user says when it is asked to evaluate is no word on its training.
        if reply.metadata.message_type.partition(".")[0] == "train":
            trained += _is_trained(reply, user_of[reply.metadata.src_node_id], run)
        elif not reply.has_error():
            validated.append(reply.content)

    def after_round(number: int, arrays: ArrayRecord) -> MetricRecord | None:
        nonlocal trained
        # Flower calls this before the first round (number 0) and after each, whoever has failed.
        if number:
            if not trained:
                reason = run.failure(user_name(0))
                raise RunFailed(f"no user finished round {done + number}; the first said: {reason}")
            means = aggregate_metricrecords(validated, "num-examples") if validated else {}
            run.keep_round(done + number, arrays, {f"validation_{key}": cast(float, means[key]) for key in means})
            trained = 0
            validated.clear()
        Status("users", done + number, rounds, "rounds", len(users)).write(run.path)
        return None

    if done < rounds:
        with run.timing("users_seconds"):
            STRATEGIES[experiment.strategy.name](len(users), validating).start(
                RelayGrid(grid, relay, users, finished),
                run.round_arrays() or _initial_theta(experiment),
                num_rounds=rounds - done,
                timeout=float("inf"),
                train_config=encode_job(job),
                evaluate_config=encode_job(job),
                evaluate_fn=after_round,
            )
    average = run.round_arrays()
    for user in range(len(users)):
        evaluation.add(user, average)


def _initial_theta(experiment: Experiment) -> ArrayRecord:
    """Return what an averaging strategy starts from."""
    torch.manual_seed(derived_seed(experiment.seed, "theta"))
    config = experiment.user_config(0)
    theta = cpu_state(UNet(config.width, config.depth))
    return encode_tensors(theta if experiment.strategy.batch_norm == "shared" else without_statistics(theta))
