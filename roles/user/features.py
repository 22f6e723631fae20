"""What a user adds to the gradient that the provider sends: by default, what phi sees (Section III-B, Eq. 4 and 6)."""

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from roles.common.compute import Compute
from roles.common.config.user import FeatureLayer, FeaturesConfig
from roles.common.images import normalise
from roles.common.weights import State, load, load_into

_CUT: dict[FeatureLayer, int] = {"relu1_2": 4, "relu2_2": 9}


class Features(nn.Module):
    """phi_k (Section IV-A): ``(N, 3, H, W)`` in [0, 1] to a feature map ``(N, C_k, H_k, W_k)``, frozen.

    Raises:
        ValueError: the weights cannot be had, or are not VGG16's; one line that names them.
    """

    def __init__(self, config: FeaturesConfig) -> None:
        super().__init__()
        cut = _CUT[config.layer]
        with torch.random.fork_rng(devices=[]):
            self.layers = _vgg16_front()[:cut]
            torch.manual_seed(0)
            for module in self.layers:
                if isinstance(module, nn.Conv2d) and module.bias is not None:
                    nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                    nn.init.zeros_(module.bias)
        if config.weights != "random":
            load_into(self.layers, _front(_vgg16_state(config.weights), cut), f"features.weights {config.weights!r}")
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Return the feature map of ``images``."""
        features: Tensor = self.layers(normalise(images))
        return features


@functools.lru_cache(maxsize=4)
def shared_features(config: FeaturesConfig) -> Features:
    """Return this process's :class:`Features`: phi is frozen, so one serves all its users."""
    return Features(config)


def _vgg16_front() -> nn.Sequential:
    """VGG16 up to relu2_2, with the names of torchvision's ``vgg16().features``."""
    return nn.Sequential(
        *(nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU()),
        nn.MaxPool2d(2),
        *(nn.Conv2d(64, 128, 3, padding=1), nn.ReLU(), nn.Conv2d(128, 128, 3, padding=1), nn.ReLU()),
    )


def _vgg16_state(weights: str) -> State:
    if weights != "imagenet":
        return load(Path(weights).expanduser())[0]
    # Imported here: it takes seconds, and only these weights need it.
    from torchvision.models import VGG16_Weights

    try:
        return dict(VGG16_Weights.IMAGENET1K_V1.get_state_dict(progress=False))
    except OSError as error:
        raise ValueError(
            f"features.weights 'imagenet': torchvision's VGG16 weights cannot be downloaded ({error}); "
            "name a local safetensors file, or 'random'"
        ) from error


def _front(state: State, cut: int) -> State:
    """Keep the convolutions before the cut, from a state dict of VGG16 or of its ``features``."""
    stripped = {name.removeprefix("features."): value for name, value in state.items()}
    numbers = {name: name.split(".")[0] for name in stripped}
    return {name: stripped[name] for name, number in numbers.items() if number.isdigit() and int(number) < cut}


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
