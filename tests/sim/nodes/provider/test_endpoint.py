"""The provider's endpoint, a real process that real lines lead to."""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from torch import Tensor

from roles.common.exchange import (
    PSI,
    Classify,
    ExchangeError,
    FitClassifier,
    Gradient,
    ImageIds,
    Losses,
    LossGradient,
    Recall,
    Reconstruct,
    Request,
    TrainingImages,
    ValidateClassifier,
    expect,
    guest,
)
from roles.common.weights import cpu_state, save
from roles.provider.classifiers import Classifier
from sim.config.experiment import Experiment
from sim.exchange.job import Job
from sim.exchange.line import METHOD, TOKEN, UNLIMITED, Access, Line, LineDown, from_bytes, to_bytes
from sim.exchange.messages import ANSWER, ARRAYS, decode_answer, encode_request
from sim.exchange.rights import Asker
from sim.nodes.provider.opening import LOOPBACK, Opened, close, opened
from sim.nodes.provider.replica import ledger_of
from sim.nodes.provider.serving import assign_images

USER, OTHER, EVALUATOR = ("user", 0), ("user", 1), ("evaluator", 0)
_LIMITS = {"images": 64, "message_mb": 1}


def small(folder: Path) -> Job:
    torch.manual_seed(0)
    save(folder / "provider" / "psi.safetensors", cpu_state(Classifier("resnet20", 10)))
    experiment = {
        "name": "small",
        "data": {"size": 8},
        "users": {"count": 2, "partition": {"kind": "sizes", "sizes": [24, 36]}, "validation_images": 20},
        "provider": {"limits": _LIMITS},
        "runtime": {"exchange": "endpoint", "evaluators": 1, "workers": 1, "precision": "fp32"},
    }
    return Job(Experiment.model_validate(experiment), folder, server_round=1)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return small(tmp_path_factory.mktemp("endpoint") / "run")


@pytest.fixture(scope="module")
def access(job: Job) -> Iterator[dict[Asker, Access]]:
    yield opened(job, LOOPBACK, os.getpid())
    close(job)


@pytest.fixture(scope="module")
def own(job: Job) -> Tensor:
    return assign_images(job)[0]


@pytest.fixture
def line(access: dict[Asker, Access]) -> Iterator[Line]:
    with Line(access[USER]) as line:
        yield line


def images(count: int = 4) -> Tensor:
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def bitmaps(count: int = 4) -> Tensor:
    return (255 * images(count)).byte()


def process_of(job: Job) -> psutil.Process:
    found = Opened.read(job.run / "state" / "provider" / "endpoint")
    assert found is not None
    return psutil.Process(found.process.pid)


def test_an_endpoint_answers_as_the_provider_does(line: Line, job: Job, own: Tensor) -> None:
    assert torch.equal(expect(line.ask(TrainingImages(0)), ImageIds).train, own)
    answers = [expect(line.ask(LossGradient(images(), own[:4], 0, 0)), Gradient) for _ in range(2)]
    assert torch.equal(answers[0].gradient, answers[1].gradient) and answers[0].gradient.abs().max() > 0


def test_a_run_has_one_endpoint_however_often_it_is_opened(access: dict[Asker, Access], job: Job) -> None:
    assert opened(job, LOOPBACK, os.getpid()) == access


def test_only_the_node_itself_reads_the_tokens(access: dict[Asker, Access], job: Job) -> None:
    folder = job.run / "state" / "provider" / "endpoint"
    assert folder.stat().st_mode & 0o077 == 0
    assert len({one.token for one in access.values()}) == len(access) == 3


def test_a_certificate_of_another_endpoint_is_not_trusted(access: dict[Asker, Access], tmp_path: Path) -> None:
    from sim.nodes.provider.opening import certificate_for

    other = certificate_for("127.0.0.1")[1].decode()
    with Line(replace(access[USER], certificate=other)) as line, pytest.raises(LineDown):
        line.ask(TrainingImages(0))


def huge(own: Tensor, user: int = 0) -> RecordDict:
    """A request whose header claims 10 GB of images, few enough and of one user's."""
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (60, 3, 4000, 3500), }\n"
    data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"\0" * 64
    content = encode_request(LossGradient(images(), own[:4], user, 0))[1]
    content.array_records[ARRAYS]["protected"] = Array("float32", (60, 3, 4000, 3500), "numpy.ndarray", data)
    return content


def with_field(own: Tensor, name: str, value: Any) -> RecordDict:
    """A request for a gradient with one field of another kind, or without it."""
    content = encode_request(LossGradient(images(), own[:4], 0, 0))[1]
    if isinstance(value, Tensor):
        content.array_records[ARRAYS][name] = Array(value.numpy())
    elif name in ("protected", "ids"):
        del content.array_records[ARRAYS][name]
    elif value is None:
        del content.config_records[ANSWER][name]
    else:
        content.config_records[ANSWER][name] = value
    return content


HOSTILE: dict[str, Callable[[Tensor, Tensor], Request | tuple[str, RecordDict] | bytes]] = {
    "another user's ids": lambda own, other: TrainingImages(1),
    "nobody's ids": lambda own, other: TrainingImages(7),
    "a gradient as another user": lambda own, other: LossGradient(images(), other[:4], 1, 0),
    "a gradient as a guest": lambda own, other: LossGradient(images(), own[:4], guest(0), 0),
    "another user's images": lambda own, other: LossGradient(images(), other[:4], 0, 0),
    "one image of another user": lambda own, other: LossGradient(images(), torch.cat([own[:3], other[:1]]), 0, 0),
    "an id that is none": lambda own, other: LossGradient(images(), own[:4] + 10**6, 0, 0),
    "a negative id": lambda own, other: LossGradient(images(), own[:4] - 10**6, 0, 0),
    "too few ids": lambda own, other: LossGradient(images(), own[:2], 0, 0),
    "no image": lambda own, other: LossGradient(images(0), own[:0], 0, 0),
    "larger images": lambda own, other: LossGradient(torch.rand(4, 3, 9, 9), own[:4], 0, 0),
    "flat images": lambda own, other: LossGradient(torch.rand(4, 192), own[:4], 0, 0),
    "grey images": lambda own, other: LossGradient(images()[:, :1], own[:4], 0, 0),
    "bitmaps for images": lambda own, other: LossGradient(bitmaps(), own[:4], 0, 0),
    "double precision": lambda own, other: LossGradient(images().double(), own[:4], 0, 0),
    "values above 1": lambda own, other: LossGradient(images() + 1, own[:4], 0, 0),
    "values below 0": lambda own, other: LossGradient(images() - 1, own[:4], 0, 0),
    "no number": lambda own, other: LossGradient(images() * torch.nan, own[:4], 0, 0),
    "infinite values": lambda own, other: LossGradient(images() + torch.inf, own[:4], 0, 0),
    "more images than a request may have": lambda own, other: LossGradient(
        images(65), own[torch.zeros(65).long()], 0, 0
    ),
    "losses as another user": lambda own, other: Losses(images(), torch.arange(4), 1),
    "losses as psi": lambda own, other: Losses(images(), torch.arange(4), PSI),
    "losses of images that are not there": lambda own, other: Losses(images(), torch.arange(4) + 10**6, 0),
    "to train another's classifier": lambda own, other: FitClassifier(1, 0, bitmaps(), other[:4]),
    "to train a classifier it has not": lambda own, other: FitClassifier(0, 0, bitmaps(), own[:4]),
    "to validate another's classifier": lambda own, other: ValidateClassifier(1, 0, bitmaps(), torch.arange(4)),
    "to validate a classifier it has not": lambda own, other: ValidateClassifier(0, 0, bitmaps(), torch.arange(4)),
    "labels by another's classifier": lambda own, other: Classify(bitmaps(), 1),
    "labels by a classifier it has not": lambda own, other: Classify(bitmaps(), 0),
    "labels by the evaluator's classifier": lambda own, other: Classify(bitmaps(), -2),
    "labels of no image": lambda own, other: Classify(bitmaps(0), PSI),
    "what was seen of another": lambda own, other: Recall(1),
    "what was seen of itself": lambda own, other: Recall(0),
    "another's reconstructions": lambda own, other: Reconstruct(1, bitmaps()),
    "its own reconstructions": lambda own, other: Reconstruct(0, bitmaps()),
    "a header that claims 10 GB": lambda own, other: ("query.loss_gradient", huge(own)),
    "no images at all": lambda own, other: ("query.loss_gradient", with_field(own, "protected", None)),
    "no ids at all": lambda own, other: ("query.loss_gradient", with_field(own, "ids", None)),
    "no user at all": lambda own, other: ("query.loss_gradient", with_field(own, "user", None)),
    "a user that is text": lambda own, other: ("query.loss_gradient", with_field(own, "user", "0")),
    "a user that is a fraction": lambda own, other: ("query.loss_gradient", with_field(own, "user", 0.0)),
    "a count that is text": lambda own, other: ("query.loss_gradient", with_field(own, "asked", "0")),
    "ids that are fractions": lambda own, other: ("query.loss_gradient", with_field(own, "ids", own[:4].double())),
    "a message that there is not": lambda own, other: ("query.theta", RecordDict()),
    "a message of another node": lambda own, other: ("train", RecordDict()),
    "the ServerApp's answer": lambda own, other: ("query.published", RecordDict({ANSWER: ConfigRecord({"user": 0})})),
    "nothing": lambda own, other: b"",
    "nonsense": lambda own, other: b"nonsense" * 100,
    "arrays that are none": lambda own, other: (
        "query.loss_gradient",
        RecordDict(
            {
                ANSWER: ConfigRecord({"user": 0, "asked": 0}),
                ARRAYS: ArrayRecord({"protected": Array("float32", (1,), "numpy.ndarray", b"nonsense")}),
            }
        ),
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_request_is_refused_in_one_line_and_the_next_good_one_is_answered(
    kind: str, access: dict[Asker, Access], job: Job, own: Tensor
) -> None:
    asked = HOSTILE[kind](own, assign_images(job)[1])
    if not isinstance(asked, bytes):
        asked = to_bytes(*(asked if isinstance(asked, tuple) else encode_request(asked)))
    good = to_bytes(*encode_request(LossGradient(images(), own[:4], 0, 0)))
    with raw(access[USER], [asked, good]) as answers:
        with pytest.raises(ExchangeError, match=r"the provider refused: \S") as caught:
            decode_answer(from_bytes(next(answers))[1])
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 300
        expect(decode_answer(from_bytes(next(answers))[1]), Gradient)


class raw:  # noqa: N801 - used like a function
    """A line on which any bytes are sent."""

    def __init__(self, access: Access, messages: list[bytes], tokens: tuple[str, ...] | None = None) -> None:
        trusted = grpc.ssl_channel_credentials(access.certificate.encode())
        self._channel = grpc.secure_channel(access.address, trusted, UNLIMITED)
        call: Any = self._channel.stream_stream(METHOD)
        told = (access.token,) if tokens is None else tokens
        self._answers = call(iter(messages), metadata=tuple((TOKEN, token) for token in told))

    def __enter__(self) -> Iterator[bytes]:
        return self._answers

    def __exit__(self, *raised: Any) -> None:
        self._channel.close()


@pytest.mark.parametrize("tokens", [(), ("made up",), ("",)])
def test_who_has_no_token_of_this_run_is_refused(tokens: tuple[str, ...], access: dict[Asker, Access]) -> None:
    with raw(access[USER], [to_bytes(*encode_request(TrainingImages(0)))], tokens) as answers:
        with pytest.raises(grpc.RpcError) as caught:
            next(answers)
        assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
    with Line(replace(access[USER], token="made up")) as line, pytest.raises(ExchangeError, match="is no node's"):
        line.ask(TrainingImages(0))


def test_a_message_beyond_the_limit_ends_its_line_with_a_word_and_no_other(
    access: dict[Asker, Access], line: Line, own: Tensor
) -> None:
    large = Classify(torch.zeros(6000, 3, 8, 8, dtype=torch.uint8))
    with Line(access[OTHER]) as other, pytest.raises(ExchangeError, match="larger than max"):
        other.ask(large)
    expect(line.ask(LossGradient(images(), own[:4], 0, 0)), Gradient)


def test_an_evaluator_may_ask_what_attacks_need(access: dict[Asker, Access], own: Tensor) -> None:
    with Line(access[EVALUATOR]) as line:
        line.ask(Classify(bitmaps()))
        line.ask(LossGradient(images(), own[:4], guest(0), 0))
        with pytest.raises(ExchangeError, match="as user 0, and it is none"):
            line.ask(LossGradient(images(), own[:4], 0, 0))


def test_answers_do_not_depend_on_who_else_asks(access: dict[Asker, Access], own: Tensor, job: Job) -> None:
    def answered() -> list[Tensor]:
        with Line(access[USER]) as line:
            asked = [LossGradient(images(8), own[n : n + 8], 0, 8 * n) for n in range(16)]
            return [expect(line.ask(request), Gradient).gradient for request in asked]

    alone, ended = answered(), threading.Event()

    def attack() -> None:
        while not ended.is_set():
            with raw(access[OTHER], [b"nonsense", to_bytes("query.loss_gradient", huge(own, 1))] * 20) as answers:
                list(answers)

    attacker = threading.Thread(target=attack)
    attacker.start()
    beside = answered()
    ended.set()
    attacker.join()
    assert all(torch.equal(one, other) for one, other in zip(alone, beside, strict=True))


def test_what_was_asked_is_in_the_providers_ledger(line: Line, job: Job) -> None:
    def requests() -> int:
        return sum(row["requests"] for row in ledger_of(job.run)[1].rows())

    time.sleep(5)  # what was asked before is written down
    before = requests()
    for _ in range(3):
        line.ask(TrainingImages(0))
    assert eventually(lambda: requests() == before + 3)


def test_a_node_has_eight_lines_and_a_newer_one_ends_its_oldest(access: dict[Asker, Access]) -> None:
    with contextlib.ExitStack() as lines:
        another, own = lines.enter_context(Line(access[OTHER])), list[Line]()
        another.ask(TrainingImages(1))
        for _ in range(9):
            own.append(lines.enter_context(Line(access[USER])))
            own[-1].ask(TrainingImages(0))
        with pytest.raises(LineDown, match="newer lines"):
            own[0].ask(TrainingImages(0))
        for line in own[1:]:
            line.ask(TrainingImages(0))
        another.ask(TrainingImages(1))


def test_an_endpoint_that_was_killed_is_opened_again_with_the_same_tokens(tmp_path: Path) -> None:
    job = small(tmp_path / "run")
    before = opened(job, LOOPBACK, os.getpid())
    with Line(before[USER]) as line:
        line.ask(TrainingImages(0))
        process_of(job).kill()
        with pytest.raises(LineDown, match="cannot be reached"):
            line.ask(TrainingImages(0))
    after = opened(job, LOOPBACK, os.getpid())
    assert {who: one.token for who, one in after.items()} == {who: one.token for who, one in before.items()}
    assert after[USER].certificate != before[USER].certificate
    with Line(after[USER]) as line:
        line.ask(TrainingImages(0))
    process = process_of(job)
    close(job)
    assert eventually(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)


def eventually(true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while not true() and time.monotonic() < deadline:
        time.sleep(0.1)
    return true()
