from typing import Any

import pytest
import torch
from torch import Tensor

from roles.common.compute import Compute
from roles.common.config.recipe import Recipe
from roles.common.config.user import FeaturesConfig, UserConfig
from roles.common.data import ImageStore
from roles.common.exchange import drive
from roles.common.weights import State, cpu_state
from roles.provider.classifiers import Classifier
from roles.provider.provider import Provider
from roles.provider.user_classifiers import UserClassifiers
from roles.user.training import TransformerTraining
from sim.config.experiment import Experiment
from sim.config.sections import RuntimeConfig
from tests.reference_loop import train_reference

USER = 2
IDS = torch.arange(40, 63)  # an epoch of batches of 6 is 6, 6, 6 and 5
VALIDATION = torch.tensor([0, 3, 4, 9, 10, 17])
BASE = UserConfig(
    alpha=0.02,
    width=4,
    depth=3,
    features=FeaturesConfig(layer="relu1_2"),
    training=Recipe(epochs=2, batch_size=6, lr=0.1),
    crop_padding=2,
)


@pytest.fixture(scope="module")
def psi() -> State:
    torch.manual_seed(0)
    classifier = Classifier("resnet20", classes=10)
    classifier(torch.rand(64, 3, 8, 8))
    return cpu_state(classifier)


def experiment(precision: Any = "fp32", **changes: Any) -> Experiment:
    user = BASE.model_copy(update=changes)
    return Experiment(name="reference", seed=3, user=user, runtime=RuntimeConfig(precision=precision))


def train_through_the_exchange(
    experiment: Experiment, psi: State, store: ImageStore, no_user_classifiers: UserClassifiers
) -> TransformerTraining:
    compute = Compute(experiment.runtime.precision, "cpu")  # type: ignore[arg-type]
    assignment = [torch.arange(2), torch.arange(2), IDS]
    provider = Provider(experiment.classifier.name, psi, store, compute, assignment, VALIDATION, no_user_classifiers)
    training = TransformerTraining(experiment.user, USER, experiment.seed, store, compute)
    drive(training.run(1, 1), provider.answer)
    return training


def assert_identical(theta: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert theta.keys() == expected.keys()
    different = [name for name in expected if not torch.equal(theta[name], expected[name])]
    assert not different


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="paper's optimiser"),
        pytest.param({"features": FeaturesConfig(layer="relu2_2"), "alpha": 0.3}, id="relu2_2"),
        pytest.param({"alpha": 0.0, "flip": False, "crop_padding": 0}, id="no feature loss"),
        pytest.param({"training": Recipe(epochs=2.4, batch_size=7, lr=0.01, optimiser="adam")}, id="adam"),
        pytest.param(
            {"training": Recipe(epochs=2, batch_size=11, lr=0.1, nesterov=True, schedule="one_cycle")}, id="one-cycle"
        ),
    ],
)
def test_provider_and_user_end_with_the_weights_of_a_plain_loop_to_the_last_bit(
    changes: dict[str, Any], psi: State, tiny: ImageStore, no_user_classifiers: UserClassifiers
) -> None:
    case = experiment(**changes)
    training = train_through_the_exchange(case, psi, tiny, no_user_classifiers)
    assert_identical(training.selected_theta(), train_reference(case, USER, psi, tiny, IDS, VALIDATION))


def test_an_earlier_epoch_is_selected_by_both(
    psi: State, tiny: ImageStore, no_user_classifiers: UserClassifiers
) -> None:
    # A rate that spoils what the epochs before have learned.
    case = experiment(training=Recipe(epochs=3, batch_size=6, lr=0.6, milestones=()))
    training = train_through_the_exchange(case, psi, tiny, no_user_classifiers)
    assert training.selected_epoch == 2
    reference = train_reference(case, USER, psi, tiny, IDS, VALIDATION)
    assert_identical(training.selected_theta(), reference)
    assert not torch.equal(training.theta()["head.weight"], reference["head.weight"])


def test_in_bfloat16_they_agree_to_the_last_bit_as_well(
    psi: State, tiny: ImageStore, no_user_classifiers: UserClassifiers
) -> None:
    case = experiment(precision="bf16", training=Recipe(epochs=1, batch_size=12))
    training = train_through_the_exchange(case, psi, tiny, no_user_classifiers)
    assert_identical(training.selected_theta(), train_reference(case, USER, psi, tiny, IDS, VALIDATION))


def test_one_backward_pass_of_the_whole_objective_gives_the_same_weights_up_to_rounding(
    psi: State, tiny: ImageStore, no_user_classifiers: UserClassifiers
) -> None:
    # One epoch: batch norm over six images doubles a rounding difference with every step.
    case = experiment(training=Recipe(epochs=1, batch_size=6, lr=0.1))
    training = train_through_the_exchange(case, psi, tiny, no_user_classifiers)
    reference = train_reference(case, USER, psi, tiny, IDS, VALIDATION, backward="at_once")
    start = TransformerTraining(case.user, USER, case.seed, tiny, Compute("fp32", "cpu")).theta()
    for name, value in training.selected_theta().items():
        assert torch.allclose(value, reference[name], rtol=1e-3, atol=1e-4), name
    moved = max((reference[name] - start[name]).abs().max().item() for name in ("head.weight", "head.bias"))
    assert moved > 0.01  # far more than the tolerance


@pytest.mark.parametrize("what", ["user", "alpha", "ids", "psi"])
def test_a_small_difference_in_any_ingredient_shows(what: str, psi: State, tiny: ImageStore) -> None:
    training = Recipe(epochs=0.5, batch_size=12, lr=0.1)
    reference = train_reference(experiment(training=training), USER, psi, tiny, IDS, VALIDATION)
    case, ids, user, weights = experiment(training=training), IDS, USER, dict(psi)
    if what == "alpha":
        case = experiment(training=training, alpha=1.001 * BASE.alpha)
    elif what == "ids":
        ids = IDS + 1
    elif what == "user":
        user = USER + 1
    else:
        weights["layers.0.weight"] = 1.001 * psi["layers.0.weight"]
    other = train_reference(case, user, weights, tiny, ids, VALIDATION)
    assert not torch.equal(other["head.weight"], reference["head.weight"])
