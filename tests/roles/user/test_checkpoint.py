"""A training that stops and goes on."""

import contextlib
from pathlib import Path

import pytest
import torch
from torch import Tensor

from roles.common.config.recipe import Recipe
from roles.common.exchange import Request, drive
from roles.common.weights import digest
from roles.user import training as module
from tests.roles.user.conftest import PlainProvider, StartTraining
from tests.roles.user.trainings import PLAIN_SGD, through_disk


def assert_same(request: Request, expected: Request) -> None:
    assert type(request) is type(expected)
    for name, value in vars(expected).items():
        got = getattr(request, name)
        assert torch.equal(got, value) if isinstance(value, Tensor) else got == value


RECIPES = {
    "momentum": Recipe(epochs=3, batch_size=4, lr=0.05),
    "plain": PLAIN_SGD,
    "nesterov": Recipe(epochs=2.5, batch_size=4, lr=0.05, nesterov=True, schedule="one_cycle"),
    "adam": Recipe(epochs=3, batch_size=4, lr=0.01, optimiser="adam", schedule="cosine"),
}


@pytest.mark.parametrize("alpha", [0.0, 0.02])
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("parts", [3, 4])
def test_training_in_parts_through_json_and_disk_is_training_at_once(
    alpha: float, recipe: str, parts: int, start: StartTraining, provider: PlainProvider, tmp_path: Path
) -> None:
    changes = {"alpha": alpha, "training": RECIPES[recipe]}
    whole = start(**changes)
    drive(whole.run(1, 1), provider.answer)
    steps = [0]
    kept = through_disk(start(**changes), tmp_path)
    for part in range(1, parts + 1):
        training = start(**changes)
        training.restore(*kept)
        drive(training.run(part, parts), provider.answer)
        steps.append(training.step)
        kept = through_disk(training, tmp_path)
    assert steps == [whole.total_steps * part // parts for part in range(parts + 1)]
    assert digest(training.theta()) == digest(whole.theta())
    assert digest(training.selected_theta()) == digest(whole.selected_theta())
    assert training.curve == whole.curve
    assert training.selected_epoch == whole.selected_epoch
    assert kept[0].keys() == whole.checkpoint()[0].keys()


@pytest.mark.parametrize("elsewhere", [True, False])
def test_dropped_at_any_yield_it_yields_the_same_request_again_and_ends_with_the_same_theta(
    elsewhere: bool, start: StartTraining, provider: PlainProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_VALIDATION_BATCH", 4)  # so that a validation is two requests
    undisturbed = start()
    drive(undisturbed.run(1, 1), provider.answer)
    expected = list(provider.requests)
    assert len(expected) == 1 + 3 * (3 + 2)

    training = start()
    for request in expected:
        for _ in range(2):
            if elsewhere:
                kept = through_disk(training, tmp_path)
                training = start()
                training.restore(*kept)
            work = training.run(1, 1)
            assert_same(next(work), request)  # the first time it gets no answer
        with contextlib.suppress(StopIteration):
            work.send(provider.answer(request))
        work.close()
    assert digest(training.theta()) == digest(undisturbed.theta())
    assert digest(training.selected_theta()) == digest(undisturbed.selected_theta())
    assert training.curve == undisturbed.curve
    assert training.step == training.total_steps == 9


def test_a_training_that_has_ended_asks_for_nothing(start: StartTraining, provider: PlainProvider) -> None:
    training = start()
    drive(training.run(1, 1), provider.answer)
    theta, asked = digest(training.theta()), len(provider.requests)
    drive(training.run(1, 1), provider.answer)
    assert (digest(training.theta()), len(provider.requests)) == (theta, asked)


def test_a_checkpoint_of_another_network_is_refused(start: StartTraining) -> None:
    with pytest.raises(ValueError, match=r"^checkpoint of user 1: "):
        start().restore(*start(width=3).checkpoint())


def test_traffic_is_kept_with_the_state(start: StartTraining, tmp_path: Path) -> None:
    training, other = start(), start()
    training.traffic.queries, training.traffic.sent_bytes = 3, 2**40
    other.restore(*through_disk(training, tmp_path))
    assert other.traffic == training.traffic
