"""What a hostile provider trains, and the gradients that it steers h_theta by: one class for each kind of hijack."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from itertools import pairwise, product
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from roles.common.augment import augment
from roles.common.compute import Compute
from roles.common.config.data import Split
from roles.common.config.provider import HijackConfig
from roles.common.config.recipe import set_lr
from roles.common.data import ImageStore
from roles.common.images import to_unit
from roles.common.unet import UNet
from roles.common.weights import State, groups_of, prefixed, restore_training, training_state

_PENALTY = 10.0
"""Weight of the gradient penalty: Gulrajani et al., 2017 (arXiv:1704.00028)."""

_NOISE = 0.1
"""Standard deviation of the noise between f and g, in units of the range of x_hat. Without it, f may say all it has to
in outputs that hardly vary, which h_theta does not learn to imitate, and g takes nothing but f's own."""

_PRETRAINING_LR = 1e-2
"""Of the Adam of f and g before the first answer: at a rate that suits a g that follows h_theta, f hardly learns."""

_SOME = 1000
"""Train images that show how much images vary."""


class Steering(ABC):
    """The networks of one hijack, in fp32, with their optimisers."""

    as_long_as_psis: ClassVar[bool] = True
    """Whether what :meth:`gradient` returns is sent with the length of psi's gradient and not with its own."""

    def __init__(self, config: HijackConfig, store: ImageStore, compute: Compute) -> None:
        self._config, self._store, self._compute = config, store, compute
        self.inverse = self._new(UNet(config.width, config.depth))
        """g, from x_hat to x."""
        adam = torch.optim.Adam(self.inverse.parameters(), config.lr)
        self._trained: dict[str, tuple[nn.Module, torch.optim.Optimizer]] = {"inverse": (self.inverse, adam)}

    @abstractmethod
    def gradient(self, protected: Tensor, ids: Tensor, stream: torch.Generator) -> Tensor:
        """Train on a request, and return the gradient of the hijacking loss with respect to x_hat.

        Args:
            protected: x_hat, float32 ``(N, 3, H, W)`` in [0, 1].
            ids: of its images in the train set, int64 ``(N,)``.
            stream: what all that is random follows from.
        """

    def error(self, protected: Tensor, ids: Tensor, split: Split) -> float:
        """Return the squared error of what g makes of x_hat, float32 ``(N, 3, H, W)``, over what images vary by.

        Args:
            ids: of its images in ``split``; those of the train set the user has moved.
        """
        plain = to_unit(self._store.images(split, self._compute.device)[ids])
        self.inverse.eval()
        with torch.no_grad():
            estimates = self.inverse(self._compute.batch(protected))
        self.inverse.train()
        moves = (self._config.shift, self._config.flip) if split == "train" else (0, False)
        return F.mse_loss(estimates, nearest_move(estimates, plain, *moves)).item() / self._spread

    @cached_property
    def _spread(self) -> float:
        """The mean squared distance of images to their mean, of values in [0, 1]."""
        some = to_unit(self._store.images("train")[:_SOME])
        return float((some - some.mean(0)).square().mean())

    def checkpoint(self) -> State:
        """Return the state of all networks and optimisers."""
        return {
            name: value
            for group, (module, optimiser) in self._trained.items()
            for name, value in prefixed(group, training_state("network", module, optimiser)).items()
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up a :meth:`checkpoint`; a ValueError if it is of other networks."""
        groups = groups_of(tensors)
        for group, (module, optimiser) in self._trained.items():
            restore_training("network", module, optimiser, groups[group], f"a hijacker's {group}")

    def _new(self, module: UNet) -> UNet:
        return self._compute.module(module).train()

    def _step(self, loss: Tensor, *names: str) -> None:
        for name in names:
            self._trained[name][1].zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        for name in names:
            self._trained[name][1].step()

    def _plain(self, ids: Tensor) -> Tensor:
        return self._store.images("train", self._compute.device)[ids]


class Pairs(Steering):
    """``pairs``: g is trained to make of x_hat the image whose id came with it, and h_theta to help.

    How the user has moved the image the provider is not told: of all moves, the one counts that is nearest to what g
    makes of x_hat at present. Together, h_theta and g are an autoencoder that is trained in two places.
    """

    def gradient(self, protected: Tensor, ids: Tensor, stream: torch.Generator) -> Tensor:
        """See :class:`Steering`: of MSE(g(x_hat), x)."""
        plain = to_unit(self._plain(ids))
        for _ in range(self._config.steps):
            self._step(self._error(protected, plain), "inverse")
        leaf = protected.requires_grad_()
        (gradient,) = torch.autograd.grad(self._error(leaf, plain), leaf)
        return gradient

    def _error(self, protected: Tensor, plain: Tensor) -> Tensor:
        estimates = self.inverse(protected)
        return F.mse_loss(estimates, nearest_move(estimates.detach(), plain, self._config.shift, self._config.flip))


def nearest_move(estimates: Tensor, plain: Tensor, shift: int, flip: bool) -> Tensor:
    """Return each of ``plain``, cropped and perhaps mirrored as a user does, nearest to its estimate.

    Args:
        estimates: float32 ``(N, 3, H, W)``, like ``plain``.
        shift: pixels, the largest move in any direction; what comes in from outside is black.
        flip: whether images may be mirrored.
    """
    height, width = plain.shape[2:]
    nearest = torch.full((len(plain),), torch.inf, device=plain.device)
    found = plain
    for mirrored in (plain, plain.flip(3)) if flip else (plain,):
        padded = F.pad(mirrored, (shift, shift, shift, shift))
        for down, right in product(range(2 * shift + 1), repeat=2):
            moved = padded[:, :, down : down + height, right : right + width]
            distance = (moved - estimates).square().sum((1, 2, 3))
            found = torch.where((distance < nearest).view(-1, 1, 1, 1), moved, found)
            nearest = torch.minimum(nearest, distance)
    return found


class Critic(nn.Module):
    """What tells f(x) from x_hat: images ``(N, 3, H, W)`` of at least 8 pixels a side to a score each, ``(N,)``.

    Without batch normalisation, which a gradient penalty does not go with.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        channels = (3, width, 2 * width, 4 * width)
        convolutions = [nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in pairwise(channels)]
        self.layers = nn.Sequential(*(each for one in convolutions for each in (one, nn.LeakyReLU(0.2))))
        self.head = nn.Conv2d(channels[-1], 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return the scores, higher for what looks like f(x): a mean over places."""
        scores: Tensor = self.head(self.layers(images)).mean((1, 2, 3))
        return scores


class Fsha(Steering):
    """``fsha``: feature-space hijacking (Pasquini et al., 2021, arXiv:2012.02670, Section 3), without a pair.

    f and g learn MSE(g(f(x)), x) on images of the provider's that the request is not about, before the first answer;
    then f stands still, for what h_theta is to imitate must not move away. A Wasserstein critic with a gradient penalty
    tells f(x) from x_hat; h_theta gets the gradient of -critic(x_hat), and g goes on. Ids and labels play no part.
    """

    as_long_as_psis: ClassVar[bool] = False
    """psi's gradient grows as h_theta goes dishonest, so that steps would be longest where they ought to end."""

    def __init__(self, config: HijackConfig, store: ImageStore, compute: Compute) -> None:
        super().__init__(config, store, compute)
        self._pilot = self._new(UNet(config.width, config.depth))
        self._critic = compute.module(Critic(2 * config.width))
        adam = torch.optim.Adam(self._critic.parameters(), config.critic_lr, betas=(0.5, 0.9))
        self._trained["pilot"] = (self._pilot, torch.optim.Adam(self._pilot.parameters(), _PRETRAINING_LR))
        self._trained["critic"] = (self._critic, adam)

    def gradient(self, protected: Tensor, ids: Tensor, stream: torch.Generator) -> Tensor:
        """See :class:`Steering`: of minus the critic's mean score."""
        # Its optimiser remembers steps, in a checkpoint too: whether f is trained needs no mark of its own.
        if not self._trained["pilot"][1].state:
            set_lr(self._trained["inverse"][1], _PRETRAINING_LR)
            for _ in range(self._config.pretraining):
                x = self._public(ids, stream)
                self._step(self._error(self._pilot(x), x, stream), "inverse", "pilot")
            set_lr(self._trained["inverse"][1], self._config.lr)
        for _ in range(self._config.steps):
            x = self._public(ids, stream)
            smashed = self._pilot(x).detach()
            self._step(self._error(smashed, x, stream), "inverse")
            self._step(self._critic_loss(smashed, protected, stream), "critic")
        leaf = protected.requires_grad_()
        (gradient,) = torch.autograd.grad(-self._critic(leaf).mean(), leaf)
        return self._config.strength * gradient

    def _error(self, smashed: Tensor, x: Tensor, stream: torch.Generator) -> Tensor:
        noise = torch.randn(smashed.shape, generator=stream).to(smashed.device)
        return F.mse_loss(self.inverse(smashed + _NOISE * noise), x)

    def _public(self, ids: Tensor, stream: torch.Generator) -> Tensor:
        """Return as many images of the provider's own, none of them asked about, moved as users move theirs."""
        order = torch.randperm(self._store.counts["train"], generator=stream)
        chosen = order[~torch.isin(order, ids)][: len(ids)]
        moved = augment(self._plain(chosen), self._config.shift, stream, flip=self._config.flip)
        return self._compute.batch(to_unit(moved))

    def _critic_loss(self, real: Tensor, protected: Tensor, stream: torch.Generator) -> Tensor:
        few = min(len(real), len(protected))
        real, own = real[:few], protected.detach()[:few]
        share = torch.rand(few, 1, 1, 1, generator=stream).to(real.device)
        between = (share * real + (1 - share) * own).requires_grad_()
        (slope,) = torch.autograd.grad(self._critic(between).sum(), between, create_graph=True)
        penalty = (slope.flatten(1).norm(dim=1) - 1).square().mean()
        loss: Tensor = self._critic(own).mean() - self._critic(real).mean() + _PENALTY * penalty
        return loss


STEERINGS: dict[str, type[Steering]] = {"fsha": Fsha, "pairs": Pairs}
"""By the ``kind`` of a config's hijack."""
