"""Scores of a user's checks, worked out by hand and on gradients of a small classifier."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from roles.common.suspicion import answers_score, suspicions, wrong_ids_score

CLASSES = 4


def classifier() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(48, 16), nn.Tanh(), nn.Linear(16, CLASSES))


def honest(images: Tensor, labels: Tensor) -> Tensor:
    leaf = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(classifier()(leaf), labels), leaf)
    return gradient


def images(count: int) -> Tensor:
    return torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(1))


def of_one(count: int) -> tuple[Tensor, Tensor]:
    return images(1).repeat(count, 1, 1, 1), torch.arange(count) % CLASSES


def test_answers_that_do_not_depend_on_ids_have_score_one_and_a_right_angle_has_score_nought() -> None:
    a = torch.zeros(1, 3, 1, 1)
    a[:, 0] = 1
    b = torch.zeros(1, 3, 1, 1)
    b[:, 1] = 5
    assert wrong_ids_score(a, a, a) == pytest.approx(1)
    assert wrong_ids_score(a, a, 3 * a) == pytest.approx(1)
    assert wrong_ids_score(a, a, b) == pytest.approx(0)
    assert wrong_ids_score(a, a, -a) == pytest.approx(-1)
    # What changes from one answer to the next anyway counts for nothing.
    assert wrong_ids_score(a, b, b) == pytest.approx(1)


def test_a_classifiers_gradients_point_elsewhere_under_wrong_labels() -> None:
    x, labels = images(16), torch.arange(16) % CLASSES
    right, wrong = honest(x, labels), honest(x, (labels + 1) % CLASSES)
    assert wrong_ids_score(right, right, wrong) < 0.2
    assert wrong_ids_score(right.sign(), right.sign(), wrong.sign()) < 0.4  # signs leave angles, and no lengths


def test_a_classifiers_gradients_of_one_image_lie_in_one_dimension_less_than_there_are_classes() -> None:
    gradients = honest(*of_one(12))
    assert answers_score(gradients, CLASSES) < 1e-8
    assert answers_score(gradients, CLASSES - 1) > 1e-3  # in no fewer
    for changed in (gradients.sign(), gradients.clamp(-1e-3, 1e-3)):
        assert answers_score(changed, CLASSES) < 1e-8


def test_answers_of_their_own_for_every_id_are_suspicious_and_one_for_all_is_not() -> None:
    x, _ = of_one(12)
    own = images(12) - x
    assert answers_score(own, CLASSES) > 0.3
    assert answers_score(0.5 * own / own.norm() + 0.5 * F.normalize(honest(*of_one(12)), dim=0), CLASSES) > 1e-3
    assert answers_score(x, CLASSES) == 0


def test_a_provider_that_adds_noise_to_each_gradient_looks_suspicious() -> None:
    gradients = honest(*of_one(12))
    noise = torch.randn(gradients.shape, generator=torch.Generator().manual_seed(2))
    assert 0.3 < answers_score(gradients + 10 * noise, CLASSES) < 1 - (CLASSES - 1) / 11


def test_the_suspicion_of_a_user_is_the_median_over_its_checks() -> None:
    rows = [{"step": 1.0, "wrong_ids": 0.1, "answers": 0.0}, {"step": 2.0, "wrong_ids": 0.3}]
    assert suspicions(rows) == {"suspicion_wrong_ids": pytest.approx(0.2), "suspicion_answers": 0.0}
    assert suspicions([]) == {}


def test_small_angles_are_not_lost_to_rounding() -> None:
    a = torch.ones(1, 3, 2, 2)
    b = a.clone()
    b[0, 0, 0, 0] += 1e-4
    angle = (1 - wrong_ids_score(a, a, b)) * math.pi / 2
    assert angle == pytest.approx(1e-4 * math.sqrt(11) / 12, rel=1e-2)
