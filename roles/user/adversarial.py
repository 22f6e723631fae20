"""A user that trains against the attack itself: h_theta is to leave nothing that an inverse network could undo."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from roles.common.compute import Compute
from roles.common.config.user import AdversarialConfig
from roles.common.seeds import derived_seed
from roles.common.unet import UNet
from roles.common.weights import State, restore_training, training_state
from roles.user.features import OwnLoss


class InverseAdversary(OwnLoss):
    """The user's own loss ``weight * max(0, cap - MSE(g(x_hat), x))``, and the inverse network g trained beside it.

    g is what an ITN attack would train (Section III-D). It takes its steps on every batch before h_theta does, which
    so always faces the attack on what it is now. From ``cap`` on nothing more is asked: an estimate that errs by
    as much as the mean image of the class tells nothing beyond the label.

    Args:
        width, depth: of g, a U-Net.
        seed: g's initial weights follow from it.

    Source: ours, after the adversarial games of privacy-preserving representation learning (Huang et al., 2018,
    arXiv:1807.05306) and of defences against inversion (ResSFL, Li et al., 2022, arXiv:2205.04007).
    """

    alpha = 0.0
    # Two networks that train against each other have no objective to select by.
    selects = False
    # g takes steps of its own within a step.
    recorded = False

    def __init__(self, config: AdversarialConfig, width: int, depth: int, seed: int, compute: Compute) -> None:
        self._config, self._compute = config, compute
        torch.manual_seed(derived_seed(seed, "inverse adversary"))
        self._g = compute.module(UNet(width, depth))
        self._optimiser = torch.optim.Adam(self._g.parameters(), lr=config.lr)

    def gradient(self, plain: Tensor, protected: Tensor, step: int) -> tuple[Tensor | None, Tensor]:
        """See :class:`OwnLoss`: of the loss above, after g's own steps."""
        self._g.train()
        for _ in range(self._config.steps):
            self._optimiser.zero_grad(set_to_none=True)
            self._error(protected, plain).backward()  # type: ignore[no-untyped-call]
            self._optimiser.step()
        leaf = protected.detach().requires_grad_()
        loss = self._config.weight * F.relu(self._config.cap - self._error(leaf, plain))
        (gradient,) = torch.autograd.grad(loss, leaf)
        return gradient.float(), gradient.new_full((), math.nan)

    def _error(self, protected: Tensor, plain: Tensor) -> Tensor:
        with self._compute.autocast():
            estimates = self._g(protected)
        return F.mse_loss(estimates, plain)

    def checkpoint(self) -> State:
        """See :class:`OwnLoss`."""
        return training_state("inverse adversary", self._g, self._optimiser)

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """See :class:`OwnLoss`."""
        restore_training("inverse adversary", self._g, self._optimiser, tensors, "checkpoint of an inverse adversary")
