"""The limit's own networks, written apart from the product's; with random weights, which cost the same as trained ones.

Where batch normalisation follows, convolutions have no biases: it would subtract them again.
"""

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from roles.common.images import IMAGENET_MEAN, IMAGENET_STD


class UNet(nn.Module):
    """U-Nets of several users as one, ``(users * N, 3, H, W)`` in [0, 1] to the same: convolutions are grouped by user.

    Images come user by user. Up a level by 2x2 transposed convolutions; with one user this is a plain U-Net.
    """

    def __init__(self, width: int, users: int = 1, depth: int = 5) -> None:
        super().__init__()
        self.users = users
        channels = [width * 2**level for level in range(depth)]
        upwards = [(channels[level], channels[level - 1]) for level in range(depth - 1, 0, -1)]
        self.down = nn.ModuleList(self._twice(a, b) for a, b in zip([3, *channels], channels, strict=False))
        self.up = nn.ModuleList(nn.ConvTranspose2d(a * users, b * users, 2, 2, groups=users) for a, b in upwards)
        self.merge = nn.ModuleList(self._twice(2 * b, b) for _, b in upwards)
        self.head = nn.Conv2d(width * users, 3 * users, 1, groups=users)

    def _twice(self, inputs: int, outputs: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for given in (inputs, outputs):
            convolution = nn.Conv2d(given * self.users, outputs * self.users, 3, 1, 1, bias=False, groups=self.users)
            layers += [convolution, nn.BatchNorm2d(outputs * self.users), nn.ReLU(inplace=True)]
        return nn.Sequential(*layers)

    def _joined(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the channels of both, user by user."""
        parts = [each.permute(0, 2, 3, 1).unflatten(3, (self.users, -1)) for each in (first, second)]
        return torch.cat(parts, 4).flatten(3).permute(0, 3, 1, 2)

    def forward(self, images: Tensor) -> Tensor:
        """Protect ``images``, those of each user by its own network."""
        features = images.unflatten(0, (self.users, -1)).transpose(0, 1).flatten(1, 2)
        features = features.contiguous(memory_format=torch.channels_last)
        skips: list[Tensor] = []
        for level, down in enumerate(self.down):
            features = down(F.max_pool2d(features, 2) if level else features)
            skips.append(features)
        skips.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            features = merge(self._joined(skips.pop(), up(features)))
        output = self.head(features).float().sigmoid()
        output = output.unflatten(1, (self.users, 3)).transpose(0, 1).flatten(0, 1)
        return output.contiguous(memory_format=torch.channels_last)


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.stride, self.grown = outputs // inputs, outputs - inputs
        self.first = nn.Conv2d(inputs, outputs, 3, self.stride, 1, bias=False)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)])

    def forward(self, features: Tensor) -> Tensor:
        inner = self.norms[1](self.second(torch.relu(self.norms[0](self.first(features)))))
        if self.grown:
            half = (0, 0, 0, 0, self.grown // 2, self.grown // 2)
            features = F.pad(features[:, :, :: self.stride, :: self.stride], half)
        return torch.relu(inner + features)


class ResNet20(nn.Module):
    """psi: images ``(N, 3, H, W)`` in [0, 1] to logits ``(N, 10)``, shortcuts without parameters."""

    def __init__(self) -> None:
        super().__init__()
        stages = (16, 16, 16, 16, 32, 32, 32, 64, 64, 64)
        blocks = (_Block(a, b) for a, b in itertools.pairwise(stages))
        start = (nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True))
        self.normalise, self.layers, self.last = Normalise(), nn.Sequential(*start, *blocks), nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, in float32."""
        logits: Tensor = self.last(self.layers(self.normalise(images)).mean((2, 3)))
        return logits.float()


class Normalise(nn.Module):
    """Images in [0, 1] to ImageNet's zero mean and unit deviation."""

    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("deviation", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Return ``images``, normalised."""
        return (images - self.mean) / self.deviation


def phi() -> nn.Sequential:
    """Return VGG16 up to relu2_2."""
    layers: list[nn.Module] = [Normalise()]
    for inputs, outputs in ((3, 64), (64, 64), (64, 128), (128, 128)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True)]
    layers.insert(5, nn.MaxPool2d(2))
    return nn.Sequential(*layers)
