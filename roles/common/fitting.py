"""How a network is fitted: one step, and a training that keeps the epoch with the best validation."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from roles.common.batches import Batches
from roles.common.compute import Compute, Number
from roles.common.config.recipe import Recipe, set_lr
from roles.common.weights import State, cpu_state

Progress = Callable[[int, int, Number], None]
"""Called after every step with the steps done, their total, and the loss of the step."""


def descend(optimiser: torch.optim.Optimizer, loss: Tensor) -> Tensor:
    """Take one step down the gradient of ``loss``; return the loss before it, without its graph."""
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    return loss.detach()


@dataclass(frozen=True, eq=False)
class Fitted:
    """What a training gives: the weights of the epoch with the lowest validation loss (Section IV-A)."""

    state: State
    curve: list[dict[str, float]]
    """One row an epoch: epoch and step from 1, train_loss, and what validation gives."""
    selected_epoch: int
    """The 1-based epoch of ``state``."""


def fit(
    network: nn.Module,
    recipe: Recipe,
    batches: Batches,
    draw: Callable[[int, Tensor], tuple[Tensor, ...]],
    loss_of: Callable[..., Tensor],
    validate: Callable[[], Mapping[str, float]],
    progress: Progress,
    compute: Compute,
    *,
    name: str,
    rate: str,
) -> Fitted:
    """Train ``network`` by a recipe, and leave it in evaluation mode with the weights that are returned.

    Args:
        draw: from the 0-based number of a step and the ids of its images to what its loss is computed from, on the CPU.
        loss_of: from that to the loss; on a GPU it is recorded (graphs.py).
        validate: columns of the curve for the network as it is after an epoch, ``validation_loss`` among them.
        name: what errors call the training.
        rate: the key of its learning rate, for errors.

    Raises:
        ValueError: a loss is not finite.
    """

    def finite(loss: float) -> float:
        if not math.isfinite(loss):
            raise ValueError(f"{name} diverged: loss {loss} at step {number}; lower {rate}")
        return loss

    def update(*inputs: Tensor) -> tuple[Tensor]:
        return (descend(optimiser, loss_of(*inputs)),)

    optimiser, step = recipe.optimiser_for(network), compute.captured(update)
    total = recipe.total_steps(batches.per_epoch)
    curve: list[dict[str, float]] = []
    state, selected, best, summed = State(), 0, math.inf, cast(Number, 0.0)
    for number in range(total):
        network.train()
        set_lr(optimiser, recipe.lr_at(number, total))
        value = compute.number(step(*draw(number, batches.ids_at(number)))[0])
        summed = summed + value
        progress(number + 1, total, value)
        ends = (number + 1) % batches.per_epoch == 0 or number + 1 == total
        if ends or compute.reads(number):
            finite(float(summed))
        if not ends:
            continue
        steps = number % batches.per_epoch + 1
        curve.append({"epoch": len(curve) + 1, "step": number + 1, "train_loss": float(summed) / steps, **validate()})
        validation, summed = finite(curve[-1]["validation_loss"]), 0.0
        if validation < best:
            state, selected, best = cpu_state(network), len(curve), validation
    network.load_state_dict(state)
    network.eval()
    return Fitted(state, curve, selected)
