"""Optimisation recipes: how a network is trained, as data."""

import math
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import nn

from roles.common.config.base import Frozen


class Recipe(Frozen):
    """Optimiser, schedule and length of one training.

    Schedules, as a factor on ``lr`` at step ``t`` of ``T``: ``step`` multiplies by ``gamma`` at each of ``milestones``
    (fractions of the whole; the paper's 60, 120 and 160 of 200 epochs are 0.3, 0.6 and 0.8); ``one_cycle`` rises
    linearly over the first ``warmup`` and falls linearly to 0; ``cosine`` falls along half a cosine.
    """

    epochs: Annotated[float, Field(gt=0, le=100_000)]
    batch_size: Annotated[int, Field(ge=2, le=100_000)] = 128
    optimiser: Literal["sgd", "adam"] = "sgd"
    lr: Annotated[float, Field(gt=0)] = 0.1
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    nesterov: bool = False
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    schedule: Literal["step", "one_cycle", "cosine"] = "step"
    milestones: tuple[float, ...] = (0.3, 0.6, 0.8)
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.2
    warmup: Annotated[float, Field(gt=0, lt=1)] = 0.3

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if list(self.milestones) != sorted(set(self.milestones)) or not all(0 < m < 1 for m in self.milestones):
            raise ValueError("milestones must be rising fractions of the training, between 0 and 1")
        if self.nesterov and (self.optimiser != "sgd" or self.momentum == 0):
            raise ValueError("nesterov needs optimiser sgd and a momentum above 0")
        return self

    def total_steps(self, per_epoch: int) -> int:
        """Return the length of the training in steps, at ``per_epoch`` batches an epoch."""
        return max(1, round(self.epochs * per_epoch))

    def lr_at(self, step: int, total: int) -> float:
        """Return the learning rate of the 0-based ``step`` of ``total``.

        >>> paper = Recipe(epochs=200)
        >>> [round(paper.lr_at(epoch, 200), 6) for epoch in (0, 59, 60, 120, 160)]
        [0.1, 0.1, 0.02, 0.004, 0.0008]
        """
        progress = step / total
        if self.schedule == "step":
            # A milestone of 0.3 means "from step 60 of 200 on" although 0.3 is no binary fraction.
            return self.lr * self.gamma ** sum(step >= round(m * total) for m in self.milestones)
        if self.schedule == "cosine":
            return self.lr * 0.5 * (1 + math.cos(math.pi * progress))
        progress = (step + 1) / (total + 1)
        return self.lr * min(progress / self.warmup, (1 - progress) / (1 - self.warmup))

    def optimiser_for(self, module: nn.Module) -> torch.optim.Optimizer:
        """Return the optimiser over the parameters of ``module``; on a GPU, one whose steps can be recorded."""
        parameters = list(module.parameters())
        device, decay = parameters[0].device, self.weight_decay
        lr = torch.tensor(self.lr, device=device) if device.type == "cuda" else self.lr
        fused = True if device.type == "cuda" else None
        if self.optimiser == "adam":
            return torch.optim.Adam(parameters, lr, weight_decay=decay, fused=fused, capturable=bool(fused))
        return torch.optim.SGD(parameters, lr, self.momentum, weight_decay=decay, nesterov=self.nesterov, fused=fused)


def set_lr(optimiser: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of every parameter group."""
    for group in optimiser.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr
