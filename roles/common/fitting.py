"""How a network is fitted to images: a single step, and a training that keeps the epoch with the best validation."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from roles.common.batches import Batches
from roles.common.compute import Compute
from roles.common.config.recipe import Recipe, set_lr
from roles.common.images import to_unit
from roles.common.weights import State, cpu_state

Progress = Callable[[int, int, float], None]
"""Called after every step with the steps done, their total, and the loss of the step."""


def fit_step(
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    lr: float,
    images: Tensor,
    targets: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    compute: Compute,
) -> tuple[Tensor, Tensor]:
    """Take one step down the gradient of ``loss(network(images), targets)``; return outputs and loss before it.

    ``images`` are uint8 ``(N, 3, H, W)``, in [0, 1] for the network; ``targets`` lie on the device of ``compute``.
    """
    set_lr(optimiser, lr)
    with compute.autocast():
        outputs = network(compute.batch(to_unit(images)))
    value = loss(outputs, targets)
    optimiser.zero_grad(set_to_none=True)
    value.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    return outputs.detach(), value.detach()


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
    step: Callable[[int, Tensor, float], Tensor],
    validate: Callable[[], Mapping[str, float]],
    progress: Progress,
    *,
    name: str,
    rate: str,
) -> Fitted:
    """Train ``network`` by a recipe, and leave it in evaluation mode with the weights that are returned.

    Args:
        step: from its 0-based number, the ids of its images and the learning rate to its loss.
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

    total = recipe.total_steps(batches.per_epoch)
    curve: list[dict[str, float]] = []
    state, selected, best, summed = State(), 0, math.inf, 0.0
    for number in range(total):
        network.train()
        value = finite(step(number, batches.ids_at(number), recipe.lr_at(number, total)).item())
        summed += value
        progress(number + 1, total, value)
        if (number + 1) % batches.per_epoch and number + 1 < total:
            continue
        steps = number % batches.per_epoch + 1
        curve.append({"epoch": len(curve) + 1, "step": number + 1, "train_loss": summed / steps, **validate()})
        validation, summed = finite(curve[-1]["validation_loss"]), 0.0
        if validation < best:
            state, selected, best = cpu_state(network), len(curve), validation
    network.load_state_dict(state)
    network.eval()
    return Fitted(state, curve, selected)
