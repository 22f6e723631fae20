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
from torch import Tensor

from roles.common.exchange import (
    Classify,
    ExchangeError,
    Gradient,
    ImageIds,
    LossGradient,
    TrainingImages,
    expect,
    guest,
)
from roles.common.weights import cpu_state, save
from roles.provider.classifiers import Classifier
from sim.config.experiment import Experiment
from sim.exchange.job import Job
from sim.exchange.line import METHOD, TOKEN, UNLIMITED, Access, Line, LineDown, from_bytes, to_bytes
from sim.exchange.messages import decode_answer, encode_request
from sim.exchange.rights import Asker
from sim.nodes.provider.opening import LOOPBACK, Opened, close, opened
from sim.nodes.provider.replica import ledger_of
from sim.nodes.provider.serving import assign_images
from tests.sim.nodes.provider.hostile_requests import HOSTILE, bitmaps, huge, images

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
