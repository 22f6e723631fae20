"""What a classifier that is not psi says of estimates."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from roles.common.config.attack import AttackConfig, ItnConfig
from roles.common.config.data import Split
from roles.common.data import ImageStore
from roles.common.exchange import PSI, Answer, Classify, Predictions, Request, drive, other_classifier
from roles.common.labels import load_labels
from roles.evaluator import attacker as module
from roles.evaluator.attack import evaluate_protection
from roles.evaluator.attacker import Attacker
from roles.evaluator.nearest import retrieved
from roles.evaluator.results import Measured

JUDGE = other_classifier(0)


def invert(images: Tensor, split: Split, positions: Tensor) -> Tensor:
    return 255 - images


class Classifiers:
    """psi takes every image for a nought; the judge goes by brightness."""

    def __init__(self) -> None:
        self.requests: list[Classify] = []

    def __call__(self, request: Request) -> Answer:
        assert isinstance(request, Classify)
        self.requests.append(request)
        labels = (request.images.float().mean(dim=(1, 2, 3)) / 25.6).long()
        return Predictions(labels if request.user == JUDGE else torch.zeros_like(labels))


@pytest.fixture
def attacker(small_itn: ItnConfig, attacker_with: Callable[[AttackConfig], Attacker]) -> Attacker:
    config = AttackConfig(itns=(small_itn,), pairs=36, test_images=10, pictures=10, flip=False)
    return replace(attacker_with(config), judge=JUDGE)


def test_every_set_of_images_is_shown_to_the_judge_and_looked_up_and_guesses_cost_an_image_each(
    attacker: Attacker, store: ImageStore
) -> None:
    asked = Classifiers()
    result = drive(evaluate_protection(invert, None, attacker, {}), asked)
    plain, labels = store.images("test")[:10], load_labels(store.folder, "test")[:10]
    named = {"protected": result.protected, **result.estimates, "class_mean": result.baselines["class_mean"]}
    for name, measured in named.items():
        images = result.pictures[name]
        by_judge = (images.float().mean(dim=(1, 2, 3)) / 25.6).long()
        assert measured.recognised == (by_judge == labels).double().mean().item()
        assert measured.retrieved == retrieved(images, plain)
    assert result.protected.accuracy == (labels == 0).double().mean().item()
    assert len({measured.recognised for measured in named.values()}) > 1
    of_judge = [len(request.images) for request in asked.requests if request.user == JUDGE]
    assert of_judge == [10, 10, 1, len(labels.unique())]
    assert {request.user for request in asked.requests} == {PSI, JUDGE}


@pytest.mark.parametrize("without", [{"judge": None}, {"labels": None}])
def test_without_a_judge_or_labels_nobody_but_psi_is_asked(attacker: Attacker, without: dict[str, None]) -> None:
    asked = Classifiers()
    result = drive(evaluate_protection(invert, None, replace(attacker, **without), {}), asked)
    found: list[Measured] = [result.protected, *result.estimates.values(), *result.baselines.values()]
    assert all(measured.recognised is None for measured in found)
    assert all(measured.retrieved is not None for measured in found)
    assert all(request.user == PSI for request in asked.requests)


def test_dropped_at_every_yield_the_judge_is_asked_the_same_again(
    attacker: Attacker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CLASSIFY_BATCH", 4)
    undisturbed = Classifiers()
    expected = drive(evaluate_protection(invert, None, attacker, {}), undisturbed)
    asked, state = Classifiers(), dict[str, Tensor]()
    while True:
        state = {key: value.clone() for key, value in state.items()}
        work = evaluate_protection(invert, None, attacker, state)
        request = next(work)
        try:
            work.send(asked(request))
        except StopIteration as end:
            again = end.value
            break
    assert [request.user for request in asked.requests] == [request.user for request in undisturbed.requests]
    for one, other in zip(asked.requests, undisturbed.requests, strict=True):
        assert torch.equal(one.images, other.images)
    assert again.estimates["small"].recognised == expected.estimates["small"].recognised
