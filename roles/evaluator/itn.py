"""The inverse-transformation network: a U-Net trained to undo a published h_theta (Section III-D and IV-B)."""

import math
from collections.abc import Callable
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from roles.common.augment import random_flip
from roles.common.batches import Batches
from roles.common.compute import Compute
from roles.common.images import to_unit
from roles.common.recipes import Frozen, Recipe, set_lr
from roles.common.seeds import derived_seed, generator
from roles.common.unet import UNet
from roles.common.weights import State, cpu_state

_VALIDATION_BATCH = 500

Progress = Callable[[int, int, float], None]


class ItnConfig(Frozen):
    """One inverse network and how it is trained."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]
    """What results call it; with the run's seed it decides initial weights, batches and augmentation."""
    training: Recipe
    width: Annotated[int, Field(ge=1)] = 64
    """Channels of the U-Net's first level."""
    depth: Annotated[int, Field(ge=2, le=6)] = 5
    """Levels of the U-Net; images need sides divisible by 2**(depth - 1)."""
    loss: Literal["mse", "l1"] = "mse"
    mirrors: Literal["pair", "image"] = "pair"
    """What augmentation mirrors where ``attack.flip`` lets it: ``pair``, a protected image together with its plain one,
    as the paper does, but not where a key protects; ``image``, the plain image, which is then protected. Few h_thetas
    treat left and right alike, so mirrored pairs are not what the network will be given. It takes an attacker who can
    protect images: pairs that were not of its own making are then not mirrored at all."""


def paired_flip(protected: Tensor, plain: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mirror each pair left to right with probability 1/2, both of its images or neither.

    Args:
        protected: ``(N, 3, H, W)``, any dtype.
        plain: like ``protected``.
        generator: CPU generator; ``N`` numbers are drawn from it.
    """
    flipped = random_flip(torch.cat([protected, plain], dim=1), generator)
    return flipped[:, : protected.shape[1]], flipped[:, protected.shape[1] :]


def instead(protected: Tensor, plain: Tensor, mirrored: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Take the mirror image of each plain one, and what that is protected to, with probability 1/2.

    Args:
        protected: ``(N, 3, H, W)``, any dtype.
        plain: like ``protected``.
        mirrored: like ``protected``: the mirror image of each plain one, protected.
        generator: CPU generator; ``N`` numbers are drawn from it.
    """
    chosen = (torch.rand(len(plain), generator=generator) < 0.5).to(plain.device).view(-1, 1, 1, 1)
    return torch.where(chosen, mirrored, protected), torch.where(chosen, plain.flip(3), plain)


def train_itn(
    config: ItnConfig,
    protected: Tensor,
    plain: Tensor,
    validation_protected: Tensor,
    validation_plain: Tensor,
    compute: Compute,
    seed: int,
    *,
    flip: bool,
    mirrored: Tensor | None = None,
    progress: Progress = lambda step, total, loss: None,
) -> tuple[UNet, list[dict[str, float]]]:
    """Train an inverse network on pairs and return the epoch with the lowest validation MSE (Section IV-B).

    Args:
        config: the network and its training.
        protected: uint8 ``(M, 3, H, W)``, protected images as they are stored; M at least 2.
        plain: uint8 ``(M, 3, H, W)``, the plain image of each.
        validation_protected: uint8 ``(V, 3, H, W)``, like ``protected``, held out to select the epoch by.
        validation_plain: uint8 ``(V, 3, H, W)``, the plain image of each.
        compute: where it is trained, and in which precision.
        seed: the run's seed.
        flip: whether augmentation mirrors (not for digits).
        mirrored: uint8 ``(M, 3, H, W)``, the mirror image of each plain one, protected: what augmentation takes in
            place of half the pairs. Without it, half the pairs are mirrored as they are.
        progress: called after every step with the steps done, their total, and the loss of the step.

    Returns:
        The network on the device of ``compute``, in eval mode, and a curve with one row an epoch: epoch, step,
        train_loss (the configured loss) and validation_loss (MSE whatever the loss, as PSNR is what is reported).

    Raises:
        ValueError: the loss is not finite any more, or H or W does not suit the network's depth.
    """
    torch.manual_seed(derived_seed(seed, "itn", config.name))
    itn = compute.module(UNet(config.width, config.depth))
    optimiser = config.training.optimiser_for(itn)
    order = derived_seed(seed, "itn", config.name, "order")
    batches = Batches(torch.arange(len(plain)), config.training.batch_size, order)
    total = config.training.total_steps(batches.per_epoch)
    objective = F.mse_loss if config.loss == "mse" else F.l1_loss

    curve: list[dict[str, float]] = []
    best: tuple[float, State] = (math.inf, {})
    summed = 0.0
    for step in range(total):
        itn.train()
        ids = batches.ids_at(step)
        inputs, targets = protected[ids], plain[ids]
        if flip:
            stream = generator(seed, "itn", config.name, "flip", step)
            if mirrored is None:
                inputs, targets = paired_flip(inputs, targets, stream)
            else:
                inputs, targets = instead(inputs, targets, mirrored[ids], stream)
        set_lr(optimiser, config.training.lr_at(step, total))
        with compute.autocast():
            estimates = itn(compute.batch(to_unit(inputs)))
        loss = objective(estimates, compute.batch(to_unit(targets)))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        value = _finite(loss.item(), config, step)
        summed += value
        progress(step + 1, total, value)
        if (step + 1) % batches.per_epoch == 0 or step + 1 == total:
            validation = _finite(_mse(itn, validation_protected, validation_plain, compute), config, step)
            curve.append(
                {
                    "epoch": len(curve) + 1,
                    "step": step + 1,
                    "train_loss": summed / (step % batches.per_epoch + 1),
                    "validation_loss": validation,
                }
            )
            if validation < best[0]:
                best = (validation, cpu_state(itn))
            summed = 0.0
    itn.load_state_dict(best[1])
    return itn.eval(), curve


def _finite(loss: float, config: ItnConfig, step: int) -> float:
    if not math.isfinite(loss):
        raise ValueError(f"inverse network {config.name!r} diverged: loss {loss} at step {step}; lower its training.lr")
    return loss


def _mse(itn: UNet, protected: Tensor, plain: Tensor, compute: Compute) -> float:
    itn.eval()
    summed = 0.0
    pairs = zip(torch.split(protected, _VALIDATION_BATCH), torch.split(plain, _VALIDATION_BATCH), strict=True)
    with torch.no_grad(), compute.autocast():
        for inputs, targets in pairs:
            estimates = itn(compute.batch(to_unit(inputs)))
            summed += F.mse_loss(estimates, compute.batch(to_unit(targets)), reduction="sum").item()
    return summed / plain.numel()
