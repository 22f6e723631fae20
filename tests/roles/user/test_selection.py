"""Which epoch of a training is selected."""

from collections.abc import Callable
from pathlib import Path

import pytest

from roles.common.exchange import Answer, Losses, LossValues, Request, drive
from roles.common.weights import digest
from tests.roles.user.conftest import PlainProvider, StartTraining
from tests.roles.user.trainings import through_disk


def scripted(provider: PlainProvider, *losses: float) -> Callable[[Request], Answer]:
    script = iter(losses)

    def answer(request: Request) -> Answer:
        if isinstance(request, Losses):
            return LossValues(loss=next(script), correct=2)
        return provider.answer(request)

    return answer


def test_the_epoch_with_the_lowest_validation_loss_is_selected_at_alpha_0(
    start: StartTraining, provider: PlainProvider
) -> None:
    training, answer, thetas = start(alpha=0.0), scripted(provider, 3.0, 1.0, 2.0), []
    assert training.selected_epoch == 0
    assert digest(training.selected_theta()) == digest(training.theta())

    def watch(request: Request) -> Answer:
        if isinstance(request, Losses):
            thetas.append(digest(training.theta()))
        return answer(request)

    drive(training.run(1, 1), watch)
    assert training.selected_epoch == 2
    assert digest(training.selected_theta()) == thetas[1]
    assert digest(training.theta()) == thetas[2] != thetas[1]
    assert [row["validation_objective"] for row in training.curve] == [3.0, 1.0, 2.0]


def test_of_two_epochs_with_the_same_loss_the_one_with_the_larger_feature_loss_is_selected(
    start: StartTraining, provider: PlainProvider
) -> None:
    training = start(alpha=0.02)
    drive(training.run(1, 1), scripted(provider, 2.0, 2.0, 2.0))
    distances = [row["validation_feature_loss"] for row in training.curve]
    assert len(set(distances)) == 3
    assert training.selected_epoch == distances.index(max(distances)) + 1
    objectives = [row["validation_objective"] for row in training.curve]
    assert objectives == pytest.approx([2 - 0.02 * distance for distance in distances])


def test_the_selected_theta_outlives_the_process_it_was_selected_in(
    start: StartTraining, provider: PlainProvider, tmp_path: Path
) -> None:
    training, answer = start(alpha=0.0), scripted(provider, 1.0, 2.0, 3.0)
    drive(training.run(1, 3), answer)
    selected = digest(training.theta())
    for part in (2, 3):
        kept = through_disk(training, tmp_path)
        training = start(alpha=0.0)
        training.restore(*kept)
        drive(training.run(part, 3), answer)
        assert digest(training.selected_theta()) == selected != digest(training.theta())
        assert training.selected_epoch == 1


def test_a_first_epoch_is_selected_until_a_better_one_comes(start: StartTraining, provider: PlainProvider) -> None:
    training = start(alpha=0.0)
    drive(training.run(1, 1), scripted(provider, 1.0, 1.0, 1.0))
    assert training.selected_epoch == 1
