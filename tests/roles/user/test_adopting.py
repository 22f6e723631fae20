"""A training that goes on from another theta."""

import pytest

from roles.common.exchange import drive
from roles.common.weights import digest, without_statistics
from tests.roles.user.conftest import PlainProvider, StartTraining


def test_adopting_another_theta_starts_the_optimiser_afresh(start: StartTraining, provider: PlainProvider) -> None:
    training, other = start(), start(user=2)
    drive(training.run(1, 3), provider.answer)
    assert any(name.startswith("optimiser/") for name in training.checkpoint()[0])
    training.adopt(other.theta())
    assert digest(training.theta()) == digest(other.theta())
    tensors, numbers = training.checkpoint()
    assert not any(name.startswith("optimiser/") for name in tensors)
    assert (numbers["step"], training.step) == (3, 3)

    drive(training.run(2, 3), provider.answer)
    fresh = start()
    fresh.restore(tensors, numbers)  # the same step with an optimiser that has never stepped
    drive(fresh.run(2, 3), provider.answer)
    assert digest(fresh.theta()) == digest(training.theta())


def test_weights_may_be_adopted_without_the_statistics_of_batch_normalisation(
    start: StartTraining, provider: PlainProvider
) -> None:
    training, weights = start(), without_statistics(start(user=2).theta())
    drive(training.run(1, 3), provider.answer)
    own = training.theta()
    with pytest.raises(ValueError, match=r"^theta sent to user 1: .*missing \['down.0.1.num_batches_tracked"):
        training.adopt(weights)
    assert digest(training.theta()) == digest(own)
    training.adopt(weights, own_statistics=True)
    assert len(weights) < len(own)
    assert digest(training.theta()) == digest(own | weights)
    # They are those of a checkpoint and of the next step as well.
    other = start()
    other.restore(*training.checkpoint())
    for each in (training, other):
        drive(each.run(2, 3), provider.answer)
    assert digest(training.theta()) == digest(other.theta())


def test_a_theta_of_another_network_is_refused_and_changes_nothing(start: StartTraining) -> None:
    training = start()
    before = digest(training.theta())
    with pytest.raises(ValueError, match=r"^theta sent to user 1: .*has shape"):
        training.adopt(start(width=3).theta())
    with pytest.raises(ValueError, match=r"^theta sent to user 1: .*unexpected"):
        training.adopt(start(depth=3).theta())
    assert digest(training.theta()) == before
