"""The GAN-based transformation [20] as a rival of the paper's: the same network, other losses of the user's own.

A re-implementation from its published description (adversarial, classification, perceptual and pixel-wise losses, no
key to manage); architecture of the discriminator, weights and target are ours.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from roles.common.compute import Compute
from roles.common.config.user import GanConfig, PixelConfig
from roles.common.encryption import PixelEncryption
from roles.common.features import Features
from roles.common.images import to_bitmap, to_unit
from roles.common.seeds import seeded
from roles.common.weights import State, restore_training, training_state
from roles.user.features import OwnLoss, feature_loss

_KEYS_A_STEP = 10**6


class Discriminator(nn.Module):
    """Is it an encrypted image? ``(N, 3, H, W)`` in [0, 1] to logits ``(N,)``."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in ((3, 32), (32, 64), (64, 128)):
            layers += [nn.Conv2d(inputs, outputs, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, float32 whatever the autocast mode."""
        logits: Tensor = self.layers(2 * images - 1)
        return logits.float().squeeze(1)


class Adversary(OwnLoss):
    """The user's own losses of this scheme, and the discriminator that is trained beside the network.

    The encrypted image that a protected one is drawn to is the plain one under pixel-based encryption with shuffled
    channels and a key of its own, drawn anew at every step: there is nothing in it to copy.

    Args:
        seed: initial weights and keys follow from it.
    """

    alpha = 0.0
    # Two networks that train against each other have no objective to select by.
    selects = False
    # Keys are drawn on the CPU, anew at every step.
    recorded = False

    def __init__(self, config: GanConfig, phi: Features, seed: int, compute: Compute) -> None:
        self._config, self._phi, self._compute = config, phi, compute
        self._encryption = PixelEncryption(PixelConfig(kind="pixel", key="per_image", shuffle=True), seed)
        with seeded(seed, "discriminator"):
            self._discriminator = compute.module(Discriminator())
        self._optimiser = torch.optim.Adam(self._discriminator.parameters(), lr=config.lr, betas=(0.5, 0.999))

    def gradient(self, plain: Tensor, protected: Tensor, step: int) -> tuple[Tensor | None, Tensor]:
        """See :class:`OwnLoss`: of the losses above, after a step of the discriminator."""
        numbers = step * _KEYS_A_STEP + torch.arange(len(plain))
        target = self._compute.batch(to_unit(self._encryption.protect(to_bitmap(plain.cpu()), numbers)))
        self._train(target, protected)
        leaf = protected.detach().requires_grad_()
        with self._compute.autocast():
            verdict = self._discriminator(leaf)
            seen = self._phi(leaf)
            with torch.no_grad():
                wanted = self._phi(target)
        loss = (
            self._config.adversarial * F.binary_cross_entropy_with_logits(verdict, torch.ones_like(verdict))
            + self._config.perceptual * feature_loss(seen, wanted)
            + self._config.pixel * F.mse_loss(leaf, target)
        )
        (gradient,) = torch.autograd.grad(loss, leaf)
        return gradient.float(), gradient.new_full((), math.nan)

    def _train(self, encrypted: Tensor, protected: Tensor) -> None:
        with self._compute.autocast():
            real, fake = self._discriminator(encrypted), self._discriminator(protected)
        loss = F.binary_cross_entropy_with_logits(real, torch.ones_like(real))
        loss = loss + F.binary_cross_entropy_with_logits(fake, torch.zeros_like(fake))
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()

    def checkpoint(self) -> State:
        """See :class:`OwnLoss`."""
        return training_state("discriminator", self._discriminator, self._optimiser)

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """See :class:`OwnLoss`."""
        network, optimiser = self._discriminator, self._optimiser
        restore_training("discriminator", network, optimiser, tensors, "checkpoint of a discriminator")
