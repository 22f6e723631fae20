"""The inverse-transformation network: a U-Net trained to undo a published h_theta (Section III-D and IV-B)."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from roles.common.augment import draw_flips, mirror, where
from roles.common.batches import Batches
from roles.common.compute import Compute, Number
from roles.common.config.attack import ItnConfig
from roles.common.fitting import Progress, fit
from roles.common.images import to_bitmap, to_unit
from roles.common.seeds import derived_seed, generator
from roles.common.unet import UNet

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
    mirrored: Tensor | None = None,
    noise: float = 0.0,
    progress: Progress = lambda step, total, loss: None,
) -> tuple[UNet, list[dict[str, float]]]:
    """Train an inverse network on pairs and return the epoch with the lowest validation MSE (Section IV-B).

    Args:
        seed: of all attacks of the run.
        flip: whether augmentation mirrors (not for digits).
        mirrored: the mirror image of each plain one, protected, uint8 ``(N, 3, H, W)``: what augmentation takes in
            place of half the pairs. Without it, half the pairs are mirrored as they are.
        noise: standard deviation, of values in [0, 1], of Gaussian noise that protected images get whenever they are
            trained on, and are then clipped: where the protection adds such, and pairs and ``mirrored`` are without.
            Validation pairs are taken as they are.

    Returns:
        The network on the device of ``compute``, in eval mode, and a curve with one row an epoch: epoch, step,
        train_loss (the configured loss) and validation_loss (MSE whatever the loss, as PSNR is what is reported).

    Raises:
        ValueError: the loss is not finite any more, or H or W does not suit the network's depth.
    """
    torch.manual_seed(derived_seed(seed, "itn", config.name))
    itn = compute.module(UNet(config.width, config.depth, config.upsampling))
    order = derived_seed(seed, "itn", config.name, "order")
    batches = Batches(torch.arange(len(pairs.plain)), config.training.batch_size, order)
    objective = F.mse_loss if config.loss == "mse" else F.l1_loss
    protected, plain = pairs.protected.to(compute.device), pairs.plain.to(compute.device)
    mirrored = mirrored if mirrored is None else mirrored.to(compute.device)

    def draw(number: int, ids: Tensor) -> tuple[Tensor, ...]:
        drawn = [ids]
        if flip:
            drawn.append(draw_flips(len(ids), generator(seed, "itn", config.name, "flip", number)))
        if noise:
            stream = generator(seed, "itn", config.name, "noise", number)
            drawn.append(noise * torch.randn(len(ids), *pairs.plain.shape[1:], generator=stream))
        return tuple(drawn)

    def loss_of(ids: Tensor, *drawn: Tensor) -> Tensor:
        inputs, targets = protected[ids], plain[ids]
        if flip and mirrored is None:
            inputs, targets = paired_flip(inputs, targets, drawn[0])
        elif flip and mirrored is not None:
            inputs, targets = instead(inputs, targets, mirrored[ids], drawn[0])
        inputs = compute.batch(to_unit(inputs))
        if noise:
            inputs = to_unit(to_bitmap(inputs + drawn[-1].to(inputs.device)))
        with compute.autocast():
            estimates = itn(inputs)
        return objective(estimates, compute.batch(to_unit(targets)))

    def validate() -> dict[str, float]:
        return {"validation_loss": _mse(itn, pairs.validation_protected, pairs.validation_plain, compute)}

    names = {"name": f"inverse network {config.name!r}", "rate": "its training.lr"}
    fitted = fit(itn, config.training, batches, draw, loss_of, validate, progress, compute, **names)
    return itn, fitted.curve


def _mse(itn: UNet, protected: Tensor, plain: Tensor, compute: Compute) -> float:
    itn.eval()
    summed: Number = 0.0
    pairs = zip(torch.split(protected, _VALIDATION_BATCH), torch.split(plain, _VALIDATION_BATCH), strict=True)
    with torch.no_grad(), compute.autocast():
        for inputs, targets in pairs:
            estimates = itn(compute.batch(to_unit(inputs)))
            errors = F.mse_loss(estimates, compute.batch(to_unit(targets)), reduction="sum")
            summed = summed + compute.number(errors)
    return float(summed) / plain.numel()
