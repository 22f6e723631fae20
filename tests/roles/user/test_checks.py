"""A user that checks its provider: what it asks, what that costs, and that its h_theta is none the worse for it."""

import contextlib
from pathlib import Path

import pytest
import torch

from roles.common.config.checks import ChecksConfig
from roles.common.exchange import Gradient, LossGradient, Request, drive
from roles.common.weights import digest
from roles.user.checks import Checks
from tests.roles.made_up_gpu import MadeUpGpu
from tests.roles.user.conftest import PlainProvider, StartTraining
from tests.roles.user.test_checkpoint import assert_same
from tests.roles.user.trainings import through_disk

CHECKS = ChecksConfig(every=4, ids=9)


def asked(provider: PlainProvider) -> list[LossGradient]:
    return [request for request in provider.requests if isinstance(request, LossGradient)]


def test_theta_is_the_same_with_and_without_checks(start: StartTraining) -> None:
    thetas, curves = [], []
    for checks in (None, CHECKS):
        training = start(checks=checks)
        drive(training.run(1, 1), PlainProvider().answer)
        thetas.append((digest(training.theta()), digest(training.selected_theta()), training.selected_epoch))
        curves.append([{k: v for k, v in row.items() if not k.startswith("suspicion")} for row in training.curve])
    assert thetas[0] == thetas[1]
    assert curves[0] == curves[1]


def test_a_batch_is_asked_about_again_then_under_wrong_ids_then_one_image_of_it_under_many(
    start: StartTraining, provider: PlainProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = start(checks=CHECKS)
    monkeypatch.setattr(training._checks, "_classes", 8)
    drive(training.run(1, 1), provider.answer)
    step, again, wrong, many, following = asked(provider)[:5]
    own = set(provider.ids.train.tolist())
    for check in (again, wrong):
        assert torch.equal(check.protected, step.protected)
    assert torch.equal(again.ids, step.ids)
    assert not (wrong.ids == step.ids).any()
    assert len(set(many.ids.tolist())) == 9
    assert {*wrong.ids.tolist(), *many.ids.tolist()} <= own
    assert any(torch.equal(many.protected, image.expand(9, -1, -1, -1)) for image in step.protected)
    assert not torch.equal(following.protected, step.protected)
    # Of 9 steps those after 0, 4 and 8 are checked; every request says how many images there were before it.
    assert [row["step"] for row in training._checks.rows] == [1, 5, 9]
    assert len(asked(provider)) == 9 + 3 * 3
    counted = 0
    for request in asked(provider):
        assert request.asked == counted
        counted += len(request.ids)


def test_of_fewer_ids_than_classes_only_wrong_ids_are_scored(start: StartTraining, provider: PlainProvider) -> None:
    training = start(checks=CHECKS)  # 9 ids, and 10 classes
    drive(training.run(1, 1), provider.answer)
    assert all(row.keys() == {"step", "wrong_ids"} for row in training._checks.rows)
    assert all("suspicion_wrong_ids" in row and "suspicion_answers" not in row for row in training.curve)


def test_dropped_at_any_yield_it_yields_the_same_request_again_and_finds_the_same(
    start: StartTraining, provider: PlainProvider, tmp_path: Path
) -> None:
    undisturbed = start(checks=CHECKS)
    drive(undisturbed.run(1, 1), provider.answer)
    expected: list[Request] = list(provider.requests)
    training = start(checks=CHECKS)
    for request in expected:
        kept = through_disk(training, tmp_path)
        training = start(checks=CHECKS)
        training.restore(*kept)
        work = training.run(1, 1)
        got = next(work)
        assert_same(got, request)
        with pytest.raises(StopIteration) if request is expected[-1] else contextlib.nullcontext():
            work.send(provider.answer(got))
    assert digest(training.theta()) == digest(undisturbed.theta())
    assert training.curve == undisturbed.curve
    assert training._checks.rows == undisturbed._checks.rows


def test_on_a_gpu_it_goes_on_with_a_check_from_its_state(gpu: MadeUpGpu, provider: PlainProvider) -> None:
    device, own = torch.device("cuda"), torch.arange(5, 15)
    stream = torch.Generator().manual_seed(0)
    protected, ids = torch.rand(4, 3, 8, 8, generator=stream), torch.arange(5, 9)

    def answer(request: LossGradient) -> Gradient:
        on_cpu = LossGradient(request.protected.cpu(), request.ids, request.user, request.asked)
        found = provider.answer(on_cpu)
        assert isinstance(found, Gradient)
        return Gradient(found.gradient.to(device), found.loss, found.correct)

    def begun() -> Checks:
        checks = Checks(CHECKS, 0, 0, 8)
        first = answer(LossGradient(protected, ids, 0, 0))
        checks.begin(0, protected.to(device), ids, first.gradient)
        return checks

    undisturbed = begun()
    drive(undisturbed.finish(own, 4), answer)  # type: ignore[arg-type]
    for dropped_at in range(3):
        checks = begun()
        work = checks.finish(own, 4)
        request = next(work)
        for _ in range(dropped_at):
            assert isinstance(request, LossGradient)
            request = work.send(answer(request))
        # A state comes back on the CPU, and is scored with the answers that follow.
        assert not any(value.is_cuda for value in checks._known.values())
        resumed = Checks(CHECKS, 0, 0, 8)
        resumed.restore(*checks.checkpoint())
        drive(resumed.finish(own, 4), answer)  # type: ignore[arg-type]
        assert resumed.rows == undisturbed.rows
        assert resumed.images == undisturbed.images


def test_a_part_of_a_training_ends_with_its_check(start: StartTraining, provider: PlainProvider) -> None:
    training = start(checks=ChecksConfig(every=1, ids=9))
    drive(training.run(1, 9), provider.answer)
    assert training.step == 1
    assert len(training._checks.rows) == 1
    assert not training._checks.pending
