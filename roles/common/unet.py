"""The U-Net that serves as h_theta and as the inverse network (Section IV, [28])."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Upsampling = Literal["nearest", "transposed"]
"""How a U-Net goes up a level: ``nearest``, nearest neighbour and a 3x3 convolution, batch norm and ReLU (the code of
the paper's authors); ``transposed``, a 2x2 transposed convolution of stride 2 (the original U-Net [28])."""


def _conv(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


def _double_conv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(*_conv(inputs, outputs), *_conv(outputs, outputs))


class _Nearest(nn.Sequential):
    """Up a level by nearest neighbour, then a convolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(*_conv(inputs, outputs))

    def forward(self, features: Tensor) -> Tensor:
        larger = F.interpolate(features, scale_factor=2, mode="nearest")
        enlarged: Tensor = super().forward(larger)  # type: ignore[no-untyped-call]
        return enlarged


def _up(kind: Upsampling, inputs: int, outputs: int) -> nn.Module:
    return _Nearest(inputs, outputs) if kind == "nearest" else nn.ConvTranspose2d(inputs, outputs, 2, stride=2)


class UNet(nn.Module):
    """Image to image, ``(N, 3, H, W)`` in [0, 1] to ``(N, 3, H, W)`` in [0, 1].

    ``depth`` levels with ``width * 2**level`` channels; max-pooling down, ``upsampling`` up, skip connections by
    concatenation, a 1x1 convolution and a sigmoid at the end. Width and depth are by default the paper's (34.5 M
    parameters with ``nearest``, 31.0 M with ``transposed``).
    """

    def __init__(self, width: int = 64, depth: int = 5, upsampling: Upsampling = "nearest") -> None:
        super().__init__()
        self.factor = 2 ** (depth - 1)
        channels = [width * 2**level for level in range(depth)]
        downwards = zip([3, *channels[:-1]], channels, strict=True)
        upwards = [(channels[level], channels[level - 1]) for level in range(depth - 1, 0, -1)]
        self.down = nn.ModuleList(_double_conv(inputs, outputs) for inputs, outputs in downwards)
        self.up = nn.ModuleList(_up(upsampling, inputs, outputs) for inputs, outputs in upwards)
        self.merge = nn.ModuleList(_double_conv(2 * outputs, outputs) for _, outputs in upwards)
        self.head = nn.Conv2d(width, 3, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Transform ``images``; the result is float32 whatever the autocast mode.

        Raises:
            ValueError: H or W is not divisible by ``2**(depth - 1)``.
        """
        height, width = images.shape[-2:]
        if height % self.factor or width % self.factor:
            raise ValueError(f"images are {height}x{width}: this U-Net needs sides divisible by {self.factor}")
        skips: list[Tensor] = []
        features = images
        for level, block in enumerate(self.down):
            features = block(features if level == 0 else F.max_pool2d(features, 2))
            skips.append(features)
        skips.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            features = up(features)
            features = merge(torch.cat([skips.pop(), features], dim=1))
        output: Tensor = self.head(features)
        return output.float().sigmoid()
