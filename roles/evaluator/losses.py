"""What an inverse network is trained for."""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

from roles.common.compute import Compute
from roles.common.config.attack import ItnConfig
from roles.common.features import shared_features
from roles.evaluator.measures import ssim

Loss = Callable[[Tensor, Tensor], Tensor]
"""From estimates and plain images, float32 ``(N, 3, H, W)`` in [0, 1], to a mean over them, float32 ``()``."""


def loss_of(config: ItnConfig, compute: Compute) -> Loss:
    """Return the loss that a config names, on the device of ``compute``.

    - ``mse`` (the paper's) and ``l1``: where many images are possible, their mean or median is best, a blur.
    - ``ssim``: (1 - SSIM) + MSE; SSIM alone leaves flat areas open (Zhao et al., 2017, arXiv:1511.08861, mix L1 in).
    - ``perceptual``: the MSE of phi's feature maps + MSE (Johnson et al., 2016, arXiv:1603.08155, Eq. 2).

    Raises:
        ValueError: phi's weights cannot be had.
    """
    if config.loss == "mse":
        return F.mse_loss
    if config.loss == "l1":
        return F.l1_loss
    if config.features is None:
        return lambda estimates, plain: 1 - ssim(estimates, plain).mean() + F.mse_loss(estimates, plain)
    phi = compute.module(shared_features(config.features))

    def perceptual(estimates: Tensor, plain: Tensor) -> Tensor:
        with compute.autocast():
            seen, sought = phi(estimates), phi(plain)
        return F.mse_loss(seen.float(), sought.float()) + F.mse_loss(estimates, plain)

    return perceptual


def selecting_loss_of(config: ItnConfig, compute: Compute) -> Loss:
    """Return the loss that the epoch is selected by: MSE where the config's is ``mse`` or ``l1``, else the config's."""
    return F.mse_loss if config.loss == "l1" else loss_of(config, compute)
