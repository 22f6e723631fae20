"""The inverse-transformation network: a U-Net trained to undo a published h_theta (Section III-D and IV-B)."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from roles.common.augment import draw_flips, mirror, where
from roles.common.batches import Batches
from roles.common.compute import Compute, Number
from roles.common.config.attack import ItnConfig
from roles.common.fitting import Progress, fit
from roles.common.images import to_bitmap, to_unit
from roles.common.seeds import derived_seed, generator
from roles.common.unet import UNet
from roles.common.weights import State, load_into
from roles.evaluator.losses import Loss, loss_of, selecting_loss_of

_VALIDATION_BATCH = 500


class Pairs(NamedTuple):
    """What an inverse network is trained on, and what its epoch is selected by: uint8 ``(N, 3, H, W)``, N at least 2.

    Protected images are as they are stored, and plain ones in the same order.
    """

    protected: Tensor
    plain: Tensor
    validation_protected: Tensor
    validation_plain: Tensor


def paired_flip(protected: Tensor, plain: Tensor, flipped: Tensor) -> tuple[Tensor, Tensor]:
    """Mirror those pairs of ``(N, 3, H, W)`` that are ``flipped``, bool ``(N,)``: both images or neither."""
    protected, plain = mirror(torch.cat([protected, plain], dim=1), flipped).chunk(2, dim=1)
    return protected, plain


def instead(protected: Tensor, plain: Tensor, mirrored: Tensor, flipped: Tensor) -> tuple[Tensor, Tensor]:
    """Take, where ``flipped``, bool ``(N,)``, the mirror image of a plain one, and what that is protected to.

    All others are ``(N, 3, H, W)``; ``mirrored`` are the protected mirror images.
    """
    return where(flipped, mirrored, protected), mirror(plain, flipped)


def train_itn(
    config: ItnConfig,
    pairs: Pairs,
    compute: Compute,
    seed: int,
    *,
    flip: bool,
    start: State | None = None,
    mirrored: Tensor | None = None,
    noise: float | Tensor = 0.0,
    progress: Progress = lambda step, total, loss: None,
) -> tuple[UNet, list[dict[str, float]]]:
    """Train an inverse network on pairs and return the epoch with the lowest validation loss (Section IV-B).

    Args:
        seed: of all attacks of the run.
        flip: whether augmentation mirrors (not for digits).
        start: weights to start from, which are kept if no epoch does better; by default fresh ones, which follow from
            the seed and the config's name.
        mirrored: the mirror image of each plain one, protected, uint8 ``(N, 3, H, W)``: what augmentation takes in
            place of half the pairs. Without it, half the pairs are mirrored as they are.
        noise: standard deviation, of values in [0, 1], of Gaussian noise that protected images get whenever they are
            trained on, and are then clipped: where the protection adds such, and pairs and ``mirrored`` are without.
            One for all, or one for each pair, float32 ``(N,)``. Validation pairs are taken as they are.

    Returns:
        The network on the device of ``compute``, in eval mode, and a curve with one row an epoch: epoch, step,
        train_loss (the configured loss) and validation_loss, which selects the epoch: MSE, as PSNR is what is reported,
        but with the losses ``ssim`` and ``perceptual`` these, as by MSE a blur would win.

    Raises:
        ValueError: the loss is not finite any more, H or W does not suit the network's depth, ``start`` is not of such
            a network, or weights of the loss's features cannot be had.
    """
    torch.manual_seed(derived_seed(seed, "itn", config.name))
    itn = compute.module(UNet(config.width, config.depth, config.upsampling))
    where = f"inverse network {config.name!r} to start from"
    if start is not None:
        load_into(itn, start, where)
    order = derived_seed(seed, "itn", config.name, "order")
    batches = Batches(torch.arange(len(pairs.plain)), config.training.batch_size, order)
    objective, selecting = loss_of(config, compute), selecting_loss_of(config, compute)
    protected, plain = pairs.protected.to(compute.device), pairs.plain.to(compute.device)
    mirrored = mirrored if mirrored is None else mirrored.to(compute.device)
    levels = torch.as_tensor(noise, dtype=torch.float32).expand(len(pairs.plain))
    noisy = bool(levels.any())

    def draw(number: int, ids: Tensor) -> tuple[Tensor, ...]:
        drawn = [ids]
        if flip:
            drawn.append(draw_flips(len(ids), generator(seed, "itn", config.name, "flip", number)))
        if noisy:
            stream = generator(seed, "itn", config.name, "noise", number)
            added = torch.randn(len(ids), *pairs.plain.shape[1:], generator=stream)
            drawn.append(levels[ids].view(-1, 1, 1, 1) * added)
        return tuple(drawn)

    def batch_loss(ids: Tensor, *drawn: Tensor) -> Tensor:
        inputs, targets = protected[ids], plain[ids]
        if flip and mirrored is None:
            inputs, targets = paired_flip(inputs, targets, drawn[0])
        elif flip and mirrored is not None:
            inputs, targets = instead(inputs, targets, mirrored[ids], drawn[0])
        inputs = compute.batch(to_unit(inputs))
        if noisy:
            inputs = to_unit(to_bitmap(inputs + drawn[-1].to(inputs.device)))
        with compute.autocast():
            estimates = itn(inputs)
        return objective(estimates, compute.batch(to_unit(targets)))

    def validate() -> dict[str, float]:
        return {"validation_loss": _mean(selecting, itn, pairs, compute)}

    names = {"name": f"inverse network {config.name!r}", "rate": "its training.lr"}
    before = math.inf if start is None else validate()["validation_loss"]
    fitted = fit(itn, config.training, batches, draw, batch_loss, validate, progress, compute, **names)
    if start is not None and before <= min(row["validation_loss"] for row in fitted.curve):
        load_into(itn, start, where)
    return itn, fitted.curve


def _mean(loss: Loss, itn: UNet, pairs: Pairs, compute: Compute) -> float:
    """Return the mean of a loss over the validation pairs."""
    itn.eval()
    summed: Number = 0.0
    validation = (torch.split(images, _VALIDATION_BATCH) for images in pairs[2:])
    with torch.no_grad():
        for protected, plain in zip(*validation, strict=True):
            with compute.autocast():
                estimates = itn(compute.batch(to_unit(protected)))
            summed = summed + compute.number(loss(estimates, compute.batch(to_unit(plain)))) * len(plain)
    return float(summed) / len(pairs.validation_plain)
