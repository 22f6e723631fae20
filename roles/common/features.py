"""phi, the frozen front of VGG16 that compares images by what it sees (Section III-B and IV-A)."""

import functools
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from roles.common.config.user import FeatureLayer, FeaturesConfig
from roles.common.images import normalise
from roles.common.seeds import DRAWING
from roles.common.weights import State, load, load_into

_CUT: dict[FeatureLayer, int] = {"relu1_2": 4, "relu2_2": 9}


class Features(nn.Module):
    """phi_k (Section IV-A): ``(N, 3, H, W)`` in [0, 1] to a feature map ``(N, C_k, H_k, W_k)``, frozen.

    With ``pool`` the map is averaged over squares, and what does not fill one is left out.

    Raises:
        ValueError: the weights cannot be had, or are not VGG16's; one line that names them.
    """

    def __init__(self, config: FeaturesConfig) -> None:
        super().__init__()
        cut, self._pool = _CUT[config.layer], config.pool
        with DRAWING, torch.random.fork_rng(devices=[]):
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
        return features if self._pool == 1 else F.avg_pool2d(features, self._pool)


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
