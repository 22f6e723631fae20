"""The ServerApp: an experiment from psi to report, phase by phase.

Read this file first: everything that happens in a run is called from :func:`run_experiment`, in order.
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from logging import ERROR, INFO
from pathlib import Path
from typing import cast

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid, ServerApp

from roles.common.seeds import derived_seed
from roles.common.unet import UNet
from roles.common.weights import State, cpu_state
from sim.config import Experiment, check, load_experiment, one_line
from sim.evaluator_node import BLUR
from sim.messages import (
    ARRAYS,
    METRICS,
    Job,
    decode_attack,
    decode_curve,
    decode_tensors,
    encode_job,
    encode_tensors,
)
from sim.ownership import claim, watch_owner
from sim.progress import ProgressLine, Status
from sim.relay import Relay, RelayGrid
from sim.report import write_report
from sim.runs import PublishedTransformer, RunFolder, subject_of, user_name
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
        RunFailed: psi cannot be had, no user finished, or psi has changed.
    """
    job = Job(experiment, run.path, first_round=run.finished_rounds())
    provider, users, evaluators = _roster(grid, job)
    relay = Relay(grid, provider, encode_job(job), _progress_log(run))
    clock = _Clock(run)

    digest = _train_classifier(relay, provider, run, job)
    _train_users(RelayGrid(grid, relay, users), relay, users, run, job)
    clock.note()
    published = _publish(relay, users, run, replace(job, first_round=experiment.strategy.rounds))
    if _ask(relay, Message(_content(job), provider, "query.psi")).config_records["psi"]["digest"] != digest:
        raise RunFailed("psi has changed while users trained: the results of this run mean nothing")
    _classify_test_images(relay, users, run, job, published)
    _attack(relay, evaluators or [provider], run, job, published)

    Status("report").write(run.path)
    clock.note()
    for line in write_report(run, experiment).splitlines():
        log(INFO, "%s", line)
    Status("complete").write(run.path)


class _Clock:
    """Seconds that a run has taken, over all attempts at it."""

    def __init__(self, run: RunFolder) -> None:
        self._run, self._last = run, time.time()

    def note(self) -> None:
        """Add the seconds since the last note."""
        now = time.time()
        self._run.note({"seconds": self._run.facts().get("seconds", 0.0) + now - self._last})
        self._last = now


def _progress_log(run: RunFolder) -> Callable[[], None]:
    """Return a function that logs how far the run is, now and then: all that ``flwr run --stream`` shows of it."""
    line, last = ProgressLine(run.path), time.monotonic()

    def tell() -> None:
        nonlocal last
        if time.monotonic() - last >= _LOG_INTERVAL_S:
            last = time.monotonic()
            log(INFO, "%s", line.of(Status.read(run.path)))

    return tell


def _content(job: Job, **records: ArrayRecord) -> RecordDict:
    return RecordDict({"config": encode_job(job), **records})


def _ask(relay: Relay, message: Message) -> RecordDict:
    reply = relay.ask(message)
    if reply.has_error():
        raise RunFailed(_reason(reply))
    return reply.content


def _reason(reply: Message) -> str:
    return _last_line(reply.error.reason or "no reason given")


def _last_line(reason: str) -> str:
    """Return the last line of what went wrong in a node, without the wrapping that a simulation puts around it."""
    last = reason.strip().splitlines()[-1].strip().removesuffix("'>")
    for wrapping in ("Message: ", "Error: "):
        last = last.partition(wrapping)[2] or last
    return last


def _roster(grid: Grid, job: Job) -> tuple[int, list[int], list[int]]:
    """Return the node ids of the provider, of the users and of the evaluators, in the order of their index."""
    nodes = list(grid.get_node_ids())
    relay = Relay(grid, 0, encode_job(job))
    found: dict[str, dict[int, int]] = {"provider": {}, "user": {}, "evaluator": {}}
    for reply in relay.exchange([Message(_content(job), node, "query.role") for node in nodes]):
        if reply.has_error():
            raise RunFailed(_reason(reply))
        role = reply.content.config_records["role"]
        found[str(role["name"])][int(cast(int, role["index"]))] = reply.metadata.src_node_id
    wanted = {"provider": 1, "user": job.experiment.user_count, "evaluator": job.experiment.runtime.evaluators}
    for name, count in wanted.items():
        if sorted(found[name]) != list(range(count)):
            raise RunFailed(f"the nodes hold {name} roles {sorted(found[name])}, expected {list(range(count))}")
    ordered = {name: [found[name][index] for index in range(wanted[name])] for name in wanted}
    return ordered["provider"][0], ordered["user"], ordered["evaluator"]


def _train_classifier(relay: Relay, provider: int, run: RunFolder, job: Job) -> str:
    """Section III-A, step 1."""
    Status("classifier", 0, 1, "classifier").write(run.path)
    began, before = time.time(), run.facts().get("psi")
    reply = _ask(relay, Message(_content(job), provider, "train.classifier"))
    facts, digest = reply.metric_records[METRICS], str(reply.config_records["psi"]["digest"])
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


def _train_users(grid: RelayGrid, relay: Relay, users: list[int], run: RunFolder, job: Job) -> None:
    """Steps 2 and 3: any Flower strategy over the users; users that failed before a resume are tried again."""
    experiment = job.experiment
    rounds, done = experiment.strategy.rounds, job.first_round
    began = time.time()
    if done < rounds:
        initial = run.round_arrays() or _initial_theta(experiment)

        def after_round(number: int, arrays: ArrayRecord) -> MetricRecord | None:
            # Flower calls this before the first round (number 0) and after each.
            if number:
                run.keep_round(done + number, arrays)
                for user, node in enumerate(users):
                    if node in grid.failures:
                        run.keep_failure(user_name(user), _last_line(grid.failures[node]))
            Status("users", done + number, rounds, "rounds", len(users)).write(run.path)
            return None

        STRATEGIES[experiment.strategy.name](len(users)).start(
            grid,
            initial,
            num_rounds=rounds - done,
            timeout=float("inf"),
            train_config=encode_job(job),
            evaluate_config=encode_job(job),
            evaluate_fn=after_round,
        )
        run.note({"users_seconds": run.facts().get("users_seconds", 0.0) + time.time() - began})
    elif experiment.strategy.name == "independent":
        failed = [user for user in range(len(users)) if run.user(user) is None and run.failure(user_name(user))]
        last_round = encode_job(replace(job, first_round=rounds - 1, server_round=1))
        messages = [Message(RecordDict({"config": last_round}), users[user], "train") for user in failed]
        _collect(relay, run, messages, failed, "users", lambda user, content: run.forget_failure(user_name(user)))


def _initial_theta(experiment: Experiment) -> ArrayRecord:
    """Return what an averaging strategy starts from; independent users have initial weights of their own."""
    if experiment.strategy.name == "independent":
        return ArrayRecord()
    torch.manual_seed(derived_seed(experiment.seed, "theta"))
    return encode_tensors(cpu_state(UNet(experiment.user.width, experiment.user.depth)))


def _publish(relay: Relay, users: list[int], run: RunFolder, job: Job) -> dict[int, PublishedTransformer]:
    """What users make public is their own theta, or the one that their strategy has made of all."""
    shared: State | None = None
    if job.experiment.strategy.name != "independent":
        shared = decode_tensors(run.round_arrays())
    missing = [user for user in range(len(users)) if run.user(user) is None]
    messages = [Message(_content(job), users[user], "query.publish") for user in missing]

    def keep(user: int, content: RecordDict) -> None:
        theta = shared if shared is not None else decode_tensors(content.array_records[ARRAYS])
        facts = {name: float(cast(float, value)) for name, value in content.metric_records[METRICS].items()}
        run.keep_user(user, PublishedTransformer(theta, facts, decode_curve(content.metric_records["curve"])))

    _collect(relay, run, messages, missing, "publication", keep)
    published = {user: known for user in range(len(users)) if (known := run.user(user)) is not None}
    if not published:
        raise RunFailed(f"no user finished its training; the first said: {run.failure(user_name(0))}")
    return published


def _classify_test_images(
    relay: Relay, users: list[int], run: RunFolder, job: Job, published: dict[int, PublishedTransformer]
) -> None:
    """Steps 4 and 5: users protect test images, the provider classifies them."""
    missing = [user for user in published if run.predictions(user) is None]
    content = {
        user: _content(replace(job, subject="test"), arrays=encode_tensors(published[user].theta)) for user in missing
    }
    messages = [Message(content[user], users[user], "evaluate.test") for user in missing]

    def keep(user: int, content: RecordDict) -> None:
        run.keep_predictions(user, decode_tensors(content.array_records[ARRAYS])["labels"])

    _collect(relay, run, messages, missing, "classification", keep)


def _attack(
    relay: Relay, evaluators: list[int], run: RunFolder, job: Job, published: dict[int, PublishedTransformer]
) -> None:
    """Section IV-B, for every published transformer, and for blurred images as a positive control."""
    subjects: dict[str, int | None] = {BLUR: None}
    for user in published:
        subjects.setdefault(subject_of(job.experiment, user), user)
    waiting = deque(subject for subject in subjects if run.attack(subject) is None)
    total, began = len(subjects), time.time()
    Status("attacks", total - len(waiting), total, "attacks").write(run.path)

    def next_message(node: int) -> Message | None:
        if not waiting:
            return None
        subject = waiting.popleft()
        user = subjects[subject]
        records: dict[str, ArrayRecord] = {}
        if user is not None:
            records[ARRAYS] = encode_tensors(published[user].theta)
            predictions = run.predictions(user)
            if predictions is not None:
                records["predictions"] = encode_tensors({"labels": predictions})
        return Message(_content(replace(job, subject=subject), **records), node, "evaluate.itn")

    done = total - len(waiting)

    def finished(message: Message, reply: Message) -> None:
        nonlocal done
        subject = str(message.content.config_records["config"]["subject"])
        if reply.has_error():
            log(ERROR, "attack on %s failed: %s", subject, _reason(reply))
            run.keep_failure(subject, _reason(reply))
        else:
            run.keep_attack(subject, decode_attack(reply.content))
            run.forget_failure(subject)
        done += 1
        Status("attacks", done, total, "attacks").write(run.path)

    relay.converse(next_message, evaluators, finished)
    run.note({"attacks_seconds": run.facts().get("attacks_seconds", 0.0) + time.time() - began})


def _collect(
    relay: Relay,
    run: RunFolder,
    messages: list[Message],
    numbers: list[int],
    phase: str,
    keep: Callable[[int, RecordDict], None],
) -> None:
    """Send one message to each of some users and keep each reply as it comes; a user that fails is noted, not fatal."""
    user_of = {id(message): user for message, user in zip(messages, numbers, strict=True)}
    queue = {message.metadata.dst_node_id: message for message in messages}
    done = 0
    Status(phase, 0, len(messages), "users").write(run.path)

    def finished(message: Message, reply: Message) -> None:
        nonlocal done
        user = user_of[id(message)]
        if reply.has_error():
            log(ERROR, "user %d: %s", user, _reason(reply))
            # Why its training failed says more than that it has nothing to publish.
            run.keep_failure(user_name(user), run.failure(user_name(user)) or _reason(reply))
        else:
            keep(user, reply.content)
        done += 1
        Status(phase, done, len(messages), "users").write(run.path)

    relay.converse(lambda node: queue.pop(node, None), list(queue), finished)
