"""What a user adds to the gradient that the provider sends: by default, what phi sees (Section III-B, Eq. 4 and 6)."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from roles.common.compute import Compute
from roles.common.features import Features
from roles.common.weights import State


def feature_loss(phi_protected: Tensor, phi_plain: Tensor) -> Tensor:
    """L_feat of Eq. 6, averaged over the batch: the mean squared distance of two feature maps of one shape.

    >>> feature_loss(torch.zeros(2, 1, 1, 2), torch.tensor([1.0, 3.0]).expand(2, 1, 1, 2)).item()
    5.0
    """
    return F.mse_loss(phi_protected.float(), phi_plain.float())


class OwnLoss(ABC):
    """A loss of the user's own on protected images."""

    alpha: float
    """Weight of L_feat in the objective (Eq. 4) that validation measures."""
    selects: bool
    """Whether the epoch with the lowest objective is published; else the last one is."""
    recorded: bool
    """Whether :meth:`gradient` can be part of a recording (graphs.py): it is the same for every step."""

    @abstractmethod
    def gradient(self, plain: Tensor, protected: Tensor, step: int) -> tuple[Tensor | None, Tensor]:
        """Return the gradient to add to dL_class/dx_hat, float32 or None for none, and L_feat or NaN.

        Args:
            plain: ``(N, 3, H, W)`` in [0, 1].
            protected: the same images protected, detached.
            step: its number, from 0: the same one again gives the same, from the same state.
        """

    def checkpoint(self) -> State:
        """Return the state, which by default is none."""
        return {}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:  # noqa: B027 - most have no state
        """Take up the state of a :meth:`checkpoint`.

        Raises:
            ValueError: it is not one of this loss.
        """


class FeatureLoss(OwnLoss):
    """The paper's: protected images are to differ from plain ones in what phi sees, -alpha L_feat (Eq. 4 and 6)."""

    selects = True
    recorded = True

    def __init__(self, alpha: float, phi: Features, compute: Compute) -> None:
        self.alpha, self._phi, self._compute = alpha, phi, compute

    def gradient(self, plain: Tensor, protected: Tensor, step: int) -> tuple[Tensor | None, Tensor]:
        """See :class:`OwnLoss`: -alpha dL_feat/dx_hat."""
        if self.alpha == 0:
            return None, protected.new_full((), math.nan)
        leaf = protected.detach().requires_grad_()
        with torch.no_grad(), self._compute.autocast():
            phi_plain = self._phi(plain)
        with self._compute.autocast():
            phi_protected = self._phi(leaf)
        loss = feature_loss(phi_protected, phi_plain)
        (gradient,) = torch.autograd.grad(loss, leaf)
        return -self.alpha * gradient, loss.detach()
