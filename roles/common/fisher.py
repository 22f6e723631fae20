"""How much a protected image may tell of the plain one, without an attack: the diagonal Fisher information leakage."""

import torch
from torch import Tensor, nn

from roles.common.compute import Compute

_ROUNDING = 1 / (12 * 255**2)
"""Variance of what rounding to 8 bits adds to a value in [0, 1]: the only noise on images that get none."""


def jacobian_energy(h: nn.Module, plain: Tensor, compute: Compute, stream: torch.Generator) -> Tensor:
    """Return the mean of ||dh/dx||_F^2 / d over images of d values, a tensor without dimensions.

    For each image one random direction v of signs is drawn: the expectation of ||J^T v||^2 is ||J||_F^2. Nothing here
    waits for a GPU.

    Args:
        h: frozen or not, in eval mode, from and to ``(N, 3, H, W)``.
        plain: float32 in [0, 1], ``(N, 3, H, W)`` on the device of ``compute``.
        stream: which directions are drawn.
    """
    signs = torch.randint(2, plain.shape, generator=stream).to(plain) * 2 - 1
    leaf = plain.detach().requires_grad_()
    with torch.enable_grad():
        with compute.autocast():
            protected = h(leaf)
        (product,) = torch.autograd.grad(protected, leaf, signs)
    return product.float().square().mean()


def leakage(energy: Tensor, noise: Tensor | float) -> Tensor:
    """Return dFIL, ||dh/dx||_F^2 / (d sigma^2) (Eq. 5 of the source), given :func:`jacobian_energy`.

    No unbiased estimate of x from x_hat has a mean squared error, of values in [0, 1], below 1 / dFIL. An attacker with
    a prior, such as an inverse network, is biased, and may come nearer.

    Args:
        noise: standard deviation of Gaussian noise on x_hat, of values in [0, 1]; that of 8 bits is added.

    Source: Maeng et al., Bounding the Invertibility of Privacy-preserving Instance Encoding using Fisher Information,
    2023 (arXiv:2305.04146).

    >>> round(leakage(torch.tensor(1.0), 0.5).item(), 3)
    4.0
    """
    return energy / (torch.as_tensor(noise) ** 2 + _ROUNDING)


def noise_for(energy: Tensor, dfil: float) -> Tensor:
    """Return the standard deviation of the noise with which :func:`leakage` is ``dfil``; 0 where 8 bits are enough."""
    return (energy / dfil - _ROUNDING).clamp(min=0).sqrt()
