"""Replicas of the provider: each answers as the one at the end of a wire does, and all keep one ledger."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Message

import sim.nodes.provider.partition
import sim.nodes.provider.serving
from roles.common.exchange import (
    Answer,
    Classify,
    ExchangeError,
    FitClassifier,
    Losses,
    LossGradient,
    Published,
    Recall,
    Reconstruct,
    Request,
    TrainingImages,
    ValidateClassifier,
)
from roles.common.labels import load_labels
from roles.provider.provider import Provider
from sim.config.experiment import Experiment
from sim.exchange.job import Job, encode_job
from sim.exchange.load import ProviderLoad
from sim.exchange.messages import LOAD, decode_answer, encode_request
from sim.exchange.payloads import decode_load
from sim.exchange.relay import Relay
from sim.nodes.provider.partition import partition_images
from sim.nodes.provider.replica import Replica, ledger_of
from sim.nodes.provider.serving import answer_one, assign_images, build_provider, replica_of
from sim.phases.roster import RunFailed
from sim.run.folder import RunFolder
from sim.run.machine import store_of
from tests.sim.exchange.wire import assert_same
from tests.sim.in_memory_grid import PROVIDER, InMemoryGrid
from tests.sim.in_process_run import failing, run_in, table_of
from tests.sim.relaying import messages_to

pytestmark = pytest.mark.usefixtures("without_figures")
IDS = torch.tensor([7, 0, 11, 7])
PARTITIONS: list[dict[str, Any]] = [
    {"kind": "iid"},
    {"kind": "dirichlet", "alpha": 1.0},
    {"kind": "shards", "per_user": 2},
    {"kind": "sizes", "sizes": [100, 60, 40]},
    {"kind": "sample", "images": 30},
    {"kind": "all"},
]


def protected(count: int = 4, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def bitmaps(count: int) -> torch.Tensor:
    return (255 * protected(count)).to(torch.uint8)


def wired(provider: Provider) -> Callable[[Request], Answer]:
    return lambda request: decode_answer(answer_one(provider, *encode_request(request)))


@pytest.fixture
def curious(job: Job) -> Job:
    """The first of two users encrypts its images, the second is hijacked, and the provider keeps what it sees."""
    users = job.experiment.users.model_dump() | {"settings": [{"protection": {"kind": "pixel"}}, {}]}
    studies = [{"kind": "curious", "pairs": 18, "images": 6}]
    hijack = {"kind": "pairs", "users": [1], "width": 2, "depth": 2}
    changed = job.experiment.model_dump() | {"users": users, "studies": studies, "provider": {"hijack": [hijack]}}
    return replace(job, experiment=Experiment.model_validate(changed))


def test_a_replica_answers_as_a_provider_at_the_end_of_a_wire_does(curious: Job, tmp_path: Path) -> None:
    elsewhere = replace(curious, run=tmp_path / "elsewhere")
    shutil.copytree(curious.run / "provider", elsewhere.run / "provider")
    here, there = Replica(build_provider(curious), curious.run).answer, wired(build_provider(elsewhere))
    own, others = assign_images(curious)[:2]
    requests: list[Request] = [
        TrainingImages(1),
        LossGradient(protected(), others[:4], 1, 0),
        # As a network gives them: channels last.
        LossGradient(protected().contiguous(memory_format=torch.channels_last), others[2:6], 1, 4),
        Losses(protected(), IDS),
        Classify(bitmaps(5)),
        FitClassifier(0, 0, bitmaps(len(own)), own),
        ValidateClassifier(0, 1, bitmaps(3), torch.tensor([1, 2, 3])),
        Classify(bitmaps(5), 0),
        Recall(1),
        Reconstruct(1, bitmaps(5)),
    ]
    assert {type(request) for request in requests} | {Published} == set(Request.__args__)
    for request in requests:
        assert_same(here(request), there(request))


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (TrainingImages(2), "user 2 is unknown: users are 0 to 1"),
        (LossGradient(protected(scale=2.0), IDS, 0, 0), "protected images must hold finite values in [0, 1]"),
        (Losses(protected(3), IDS), "image ids are torch.int64 (4,), expected torch.int64 (3,)"),
        (LossGradient(protected(), IDS + 10**6, 0, 0), "image id 1000007 is unknown: ids are 0 to 1292"),
        (Classify(bitmaps(2)[:, :, :4]), "images are torch.uint8 (2, 3, 4, 8)"),
        (Recall(0), "this provider keeps nothing of what its users send"),
        (Reconstruct(0, bitmaps(2)), "this provider is honest: it has nothing to reconstruct images with"),
        (Published(0), "the provider does not know what users have published: the ServerApp does"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_a_replica_refuses_in_the_words_of_a_provider_at_the_end_of_a_wire(
    job: Job, provider: Provider, request_: Request, reason: str
) -> None:
    said = []
    for answer in (Replica(provider, job.run).answer, wired(provider)):
        with pytest.raises(ExchangeError) as caught:
            answer(request_)
        said.append(str(caught.value))
    assert said[0] == said[1]
    assert said[0].startswith("the provider refused: ") and reason in said[0]
    assert "\n" not in said[0]


def totals(load: ProviderLoad) -> tuple[int, ...]:
    return tuple(sum(row[name] for row in load.rows()) for name in ("requests", "images", "bytes"))


def test_the_ledger_of_several_replicas_adds_up_to_all_requests(job: Job, provider: Provider) -> None:
    assert ledger_of(job.run)[0] == set()
    replicas, own = [Replica(provider, job.run) for _ in range(3)], assign_images(job)[0]
    for number, replica in enumerate(replicas):
        for _ in range(number):
            replica.answer(LossGradient(protected(), own[:4], 0, 0))
            replica.keep_account()  # what is asked later is added
        replica.answer(TrainingImages(0))
        with pytest.raises(ExchangeError):
            replica.answer(TrainingImages(9))  # a request all the same
        replica.keep_account()
    digests, load = ledger_of(job.run)
    assert digests == {provider.digest()}
    # Three batches of four images, 192 values of 4 bytes and an id of 8 each; and two requests without any a replica.
    assert totals(load) == (3 + 6, 12, 12 * (192 * 4 + 8))


def spoil(replica: Replica) -> None:
    with torch.no_grad():
        next(replica.provider._psi.parameters()).add_(1e-6)


def test_the_provider_reports_the_psi_of_a_replica_that_holds_another(job: Job) -> None:
    def reported() -> str:
        (message,) = messages_to(job, "query.psi", [PROVIDER])
        reply = Relay(InMemoryGrid([PROVIDER]), PROVIDER, encode_job(job)).ask(message)
        assert decode_load(reply.content.metric_records[LOAD]) == ledger_of(job.run)[1].rows()
        return str(reply.content.config_records["psi"]["digest"])

    replicas = [Replica(build_provider(job), job.run) for _ in range(2)]
    for replica in replicas:
        replica.answer(TrainingImages(0))
        replica.keep_account()
    assert reported() == replica_of(job).provider.digest() == replicas[0].provider.digest()
    spoil(replicas[1])
    replicas[1].keep_account()
    digests = [replica.provider.digest() for replica in replicas]
    assert reported() == " ".join(sorted(digests))
    replicas[1].provider = replicas[0].provider
    replicas[1].keep_account()
    assert reported() == digests[0]
    # The one that is asked to report may itself be the one that has changed.
    spoil(replica_of(job))
    replica_of(job).keep_account()
    assert set(reported().split()) == {digests[0], replica_of(job).provider.digest()} != {digests[0]}


# ---- whole runs --------------------------------------------------------------------------------------------------


@pytest.fixture
def direct(small: Experiment) -> Experiment:
    return small.model_copy(update={"runtime": small.runtime.model_copy(update={"exchange": "direct"})})


def in_a_process_of_its_own(message: Message, reply: Message) -> Message:
    """Forget what answered: the next message comes to another worker."""
    sim.nodes.provider.serving._replicas.clear()
    return reply


def test_a_run_of_replicas_ends_as_a_relayed_one_does(small: Experiment, direct: Experiment, tmp_path: Path) -> None:
    run, _ = run_in(tmp_path / "direct", direct, in_a_process_of_its_own)
    relayed, _ = run_in(tmp_path / "relayed", small)
    table, other = (table_of(each).drop(columns="seconds", errors="ignore") for each in (run, relayed))
    assert table.equals(other)
    counted = [tuple(sum(row[name] for row in each.load()) for name in ("images", "bytes")) for each in (run, relayed)]
    assert counted[0] == counted[1]


def test_what_replicas_were_asked_counts_over_all_attempts_and_once(
    direct: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, undisturbed = list[Request](), Replica.answer

    def noting(replica: Replica, request: Request) -> Answer:
        asked.append(request)
        return undisturbed(replica, request)

    monkeypatch.setattr(Replica, "answer", noting)
    for tamper in (failing("evaluate.test"), in_a_process_of_its_own):
        before = len(asked)
        run, _ = run_in(tmp_path / "run", direct, tamper)
        assert len(asked) > before
        assert sum(row["requests"] for row in run.load()) == len(asked)
    assert run.is_done()


def test_a_run_in_which_one_replica_has_held_another_psi_fails(
    direct: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = Replica.answer

    def spoiling(replica: Replica, request: Request) -> Answer:
        if isinstance(request, LossGradient) and request.user == 1:
            spoil(replica)
        return undisturbed(replica, request)

    monkeypatch.setattr(Replica, "answer", spoiling)
    with pytest.raises(RunFailed, match=r"^psi has changed while users trained: the results of this run mean nothing$"):
        run_in(tmp_path / "run", direct, in_a_process_of_its_own)
    assert not RunFolder(tmp_path / "run").has_table()


# ---- which images are whose --------------------------------------------------------------------------------------


def shared_by(job: Job, partition: dict[str, Any]) -> Job:
    users = {"count": 3, "partition": partition, "validation_images": 20}
    return replace(job, experiment=Experiment.model_validate(job.experiment.model_dump() | {"users": users}))


@pytest.mark.parametrize("partition", PARTITIONS, ids=lambda partition: partition["kind"])
def test_whoever_asks_first_decides_which_images_are_whose(
    job: Job, partition: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = shared_by(job, partition)
    experiment = job.experiment
    labels = load_labels(store_of(experiment).folder, "train")
    expected = partition_images(labels, experiment.users, 3, experiment.seed)
    first = assign_images(job)

    def again(*_: object) -> None:
        raise AssertionError("shared out once more")

    monkeypatch.setattr(sim.nodes.provider.partition, "partition_images", again)
    for parts in (first, assign_images(job)):
        assert [part.dtype for part in parts] == [torch.int64] * 3
        assert all(torch.equal(part, other) for part, other in zip(parts, expected, strict=True))
        # Where all have all images, these fill memory once.
        assert len({part.data_ptr() for part in parts}) == (1 if partition["kind"] == "all" else 3)
    assert torch.equal(wired(build_provider(job))(TrainingImages(2)).train, expected[2])  # type: ignore[union-attr]


WORKER = """
import sys
from pathlib import Path
from sim.client_app import app
from sim.config.experiment import Experiment
from sim.exchange.job import Job
from sim.nodes.provider.serving import assign_images, replica_of
experiment, run = (Path(given) for given in sys.argv[1:])
job = Job(Experiment.model_validate_json(experiment.read_text()), run, server_round=1)
replica_of(job)
print("flwr_datasets" in sys.modules)
(run / "state" / "provider" / "assignment.safetensors").unlink()
assign_images(job)
print("flwr_datasets" in sys.modules)
"""


def test_a_worker_that_finds_the_images_shared_out_is_spared_the_import_of_what_shares_them(
    job: Job, tmp_path: Path
) -> None:
    assign_images(job)
    experiment = tmp_path / "experiment.json"
    experiment.write_text(job.experiment.model_dump_json())
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    said = subprocess.check_output([sys.executable, "-c", WORKER, experiment, job.run], env=environment, text=True)
    assert said.split()[-2:] == ["False", "True"]
