"""A user that trains against the attack itself: h_theta is to leave nothing that an inverse network could undo."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from roles.common.compute import Compute
from roles.common.config.user import AdversarialConfig
from roles.common.seeds import seeded
from roles.common.unet import UNet
from roles.common.weights import State, groups_of, prefixed, restore_training, training_state
from roles.user.features import OwnLoss


class InverseAdversary(OwnLoss):
    """The user's own loss ``weight * max(0, cap - MSE(g(x_hat), x))``, and inverse networks g trained beside it.

    Each g is what an ITN attack would train (Section III-D). They take their steps on every batch before h_theta does,
    which so always faces the attack on what it is now; of several, the one that errs least counts. From ``cap`` on
    nothing more is asked: an estimate that errs by as much as the mean image of the class tells nothing beyond the
    label. With ``restart`` they start anew in turn.

    Args:
        width, depth: of each g, a U-Net.
        seed: initial weights follow from it.

    Source: ours, after the adversarial games of privacy-preserving representation learning (Huang et al., 2018,
    arXiv:1807.05306) and of defences against inversion (ResSFL, Li et al., 2022, arXiv:2205.04007).
    """

    alpha = 0.0
    # Networks that train against each other have no objective to select by.
    selects = False
    # Each g takes steps of its own within a step.
    recorded = False

    def __init__(self, config: AdversarialConfig, width: int, depth: int, seed: int, compute: Compute) -> None:
        self._config, self._compute, self._size, self._seed = config, compute, (width, depth), seed
        self._rivals = [self._new(number, 0) for number in range(config.networks)]

    def gradient(self, plain: Tensor, protected: Tensor, step: int) -> tuple[Tensor | None, Tensor]:
        """See :class:`OwnLoss`: of the loss above, after the steps of every g."""
        config = self._config
        if config.restart and step and step % config.restart == 0:
            turn, number = divmod(step // config.restart - 1, config.networks)
            self._rivals[number] = self._new(number, turn + 1)
        for rival in self._rivals:
            for _ in range(config.steps):
                rival.learn(protected, plain)
        leaf = protected.detach().requires_grad_()
        error = torch.stack([rival.error(leaf, plain) for rival in self._rivals]).amin()
        (gradient,) = torch.autograd.grad(config.weight * F.relu(config.cap - error), leaf)
        return gradient.float(), gradient.new_full((), math.nan)

    def _new(self, number: int, turn: int) -> "_Rival":
        with seeded(self._seed, "inverse adversary", number, turn):
            return _Rival(UNet(*self._size), self._config.lr, self._compute)

    def checkpoint(self) -> State:
        """See :class:`OwnLoss`."""
        return {
            name: value
            for number, rival in enumerate(self._rivals)
            for name, value in prefixed(str(number), training_state("g", rival.g, rival.optimiser)).items()
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """See :class:`OwnLoss`."""
        groups = groups_of(tensors)
        for number, rival in enumerate(self._rivals):
            restore_training("g", rival.g, rival.optimiser, groups[str(number)], "checkpoint of an inverse adversary")


class _Rival:
    """One inverse network and its optimiser."""

    def __init__(self, g: UNet, lr: float, compute: Compute) -> None:
        self.g, self._compute = compute.module(g), compute
        self.optimiser = torch.optim.Adam(self.g.parameters(), lr=lr)

    def learn(self, protected: Tensor, plain: Tensor) -> None:
        self.g.train()
        self.optimiser.zero_grad(set_to_none=True)
        self.error(protected, plain).backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()

    def error(self, protected: Tensor, plain: Tensor) -> Tensor:
        with self._compute.autocast():
            estimates = self.g(protected)
        return F.mse_loss(estimates, plain)
