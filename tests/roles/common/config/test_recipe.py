import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn

from roles.common.config.recipe import Recipe, set_lr

PAPER = Recipe(epochs=200)


def test_the_default_is_the_papers_optimiser() -> None:
    layer = nn.Linear(2, 2)
    optimiser = PAPER.optimiser_for(layer)
    assert isinstance(optimiser, torch.optim.SGD)
    group = optimiser.param_groups[0]
    assert (group["lr"], group["momentum"], group["weight_decay"], group["nesterov"]) == (0.1, 0.9, 5e-4, False)
    assert PAPER.batch_size == 128
    assert [id(value) for value in group["params"]] == [id(value) for value in layer.parameters()]


@pytest.mark.parametrize("per_epoch", [1, 7, 352])
def test_the_papers_rate_falls_to_a_fifth_at_epochs_60_120_and_160_of_200(per_epoch: int) -> None:
    total = PAPER.total_steps(per_epoch)
    assert total == 200 * per_epoch
    for epoch, lr in ((60, 0.02), (120, 0.004), (160, 0.0008)):
        assert PAPER.lr_at(epoch * per_epoch, total) == pytest.approx(lr)
        assert PAPER.lr_at(epoch * per_epoch - 1, total) == pytest.approx(5 * lr)
    assert PAPER.lr_at(0, total) == 0.1
    assert PAPER.lr_at(total - 1, total) == pytest.approx(0.0008)


def test_one_cycle_by_hand() -> None:
    recipe = Recipe(epochs=1, schedule="one_cycle", lr=1.0, warmup=0.5)
    # 3 steps are at 1/4, 2/4 and 3/4 of the triangle.
    assert [recipe.lr_at(step, 3) for step in range(3)] == pytest.approx([0.5, 1.0, 0.5])


@given(total=st.integers(20, 2000), warmup=st.floats(0.1, 0.9))
def test_one_cycle_rises_to_the_peak_then_falls_to_near_zero(total: int, warmup: float) -> None:
    recipe = Recipe(epochs=1, schedule="one_cycle", lr=0.4, warmup=warmup)
    rates = [recipe.lr_at(step, total) for step in range(total)]
    peak = rates.index(max(rates))
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert abs(peak / total - warmup) <= 2 / total
    assert 0.4 * 0.4 < max(rates) <= 0.4
    assert 0 < rates[0] <= 0.4 / (total * warmup)
    assert 0 < rates[-1] <= 0.4 / (total * (1 - warmup))


def test_cosine_starts_at_the_rate_is_half_of_it_midway_and_ends_near_zero() -> None:
    recipe = Recipe(epochs=1, schedule="cosine", lr=0.2)
    assert recipe.lr_at(0, 100) == 0.2
    assert recipe.lr_at(50, 100) == pytest.approx(0.1)
    assert recipe.lr_at(99, 100) == pytest.approx(0.1 * (1 + math.cos(0.99 * math.pi)))


def test_a_training_has_at_least_one_step_and_may_end_within_an_epoch() -> None:
    assert Recipe(epochs=0.01).total_steps(5) == 1
    assert Recipe(epochs=1.5).total_steps(10) == 15


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"milestones": (0.6, 0.3)}, "rising fractions"),
        ({"milestones": (0.3, 0.3)}, "rising fractions"),
        ({"milestones": (0.0, 0.5)}, "between 0 and 1"),
        ({"milestones": (60, 120)}, "between 0 and 1"),
        ({"nesterov": True, "momentum": 0}, "nesterov needs optimiser sgd"),
        ({"nesterov": True, "optimiser": "adam"}, "nesterov needs optimiser sgd"),
        ({"epochs": 0}, "greater than 0"),
        ({"lr": -0.1}, "greater than 0"),
        ({"batch_size": 1}, "greater than or equal to 2"),
        ({"momentum": 1}, "less than 1"),
        ({"schedule": "linear"}, "one_cycle"),
        ({"learning_rate": 0.1}, "Extra inputs"),
    ],
)
def test_an_invalid_recipe_is_refused_with_the_reason(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Recipe(**{"epochs": 1, **values})


def test_a_recipe_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        PAPER.lr = 1.0  # type: ignore[misc]


def test_adam_and_nesterov_are_what_they_are_called() -> None:
    layer = nn.Linear(1, 1)
    adam = Recipe(epochs=1, optimiser="adam", lr=0.001, weight_decay=0).optimiser_for(layer)
    assert isinstance(adam, torch.optim.Adam)
    assert adam.param_groups[0]["lr"] == 0.001
    assert Recipe(epochs=1, nesterov=True).optimiser_for(layer).param_groups[0]["nesterov"]


def test_the_rate_is_set_in_every_group() -> None:
    optimiser = torch.optim.SGD([{"params": nn.Linear(1, 1).parameters()}, {"params": nn.Linear(1, 1).parameters()}])
    set_lr(optimiser, 0.25)
    assert [group["lr"] for group in optimiser.param_groups] == [0.25, 0.25]
