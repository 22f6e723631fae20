"""psi: the paper's ResNet-20 [25] and VGG16 with batch normalization [26], a small ViT, and their adaptations."""

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from roles.common.config.classifier import ClassifierName
from roles.common.images import normalise
from roles.provider.vision_transformer import VisionTransformer

Adaptation = Literal["tanaka", "block", "pixel"]

_CHANNELS: dict[Adaptation | None, int] = {None: 3, "tanaka": 32, "block": 32, "pixel": 64}
"""What the classifier's first convolution is given."""


class _Block(nn.Module):
    """Two 3x3 convolutions with a parameter-free ("option A") shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride = stride
        self.extra = outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.extra:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.extra // 2, self.extra // 2))
        return F.relu(out + x)


def _tanaka() -> nn.Sequential:
    """Return the adaptation network of learnable encryption [16].

    One stride for each encrypted block of 4x4 pixels, then block by block; the pixels come back at the end, where 512
    channels of a block become 32 of 4x4 pixels.
    """
    return nn.Sequential(
        nn.BatchNorm2d(3),
        *(nn.Conv2d(3, 48, 4, stride=4), nn.ReLU(), nn.BatchNorm2d(48)),
        *(nn.Conv2d(48, 48, 1), nn.ReLU(), nn.BatchNorm2d(48)),
        *(nn.Conv2d(48, 16 * _CHANNELS["tanaka"], 1), nn.PixelShuffle(4)),
    )


def _pixel() -> nn.Sequential:
    """Return an adaptation network for pixel-based encryption [17], [18]: 1x1 convolutions, so pixel by pixel.

    The paper gives neither width nor depth; two layers of 64 channels are ours, from its description.
    """
    width = _CHANNELS["pixel"]
    layers: list[nn.Module] = []
    for inputs in (3, width):
        layers += [nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers)


def _resnet20(classes: int, channels: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(channels, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    inputs = 16
    for outputs in (16, 32, 64):
        for block in range(3):
            layers.append(_Block(inputs, outputs, stride=2 if block == 0 and outputs > 16 else 1))
            inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes))


def _vgg16_bn(classes: int, channels: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    inputs = channels
    for convolutions, outputs in ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)):
        for _ in range(convolutions):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
            inputs = outputs
        layers.append(nn.MaxPool2d(2))
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    for _ in range(2):
        layers += [nn.Dropout(), nn.Linear(512, 512), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Linear(512, classes))


def _initialise(network: nn.Sequential) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class Classifier(nn.Module):
    """psi: ``(N, 3, H, W)`` in [0, 1] to logits ``(N, classes)``.

    ImageNet normalisation is part of psi for plain images. An adaptation network does without: the statistics are not
    those of encrypted images, and its batch normalisation does the same with the right ones.

    Args:
        side: H and W, which a ``vit`` has embeddings for.
        adaptation: for images under a key, the network in front that adapts them: ``tanaka`` [16], for sides divisible
            by 4, or ``pixel`` [17], [18]. ``block`` is that of ``tanaka``, or none for a ``vit``, whose patches are the
            blocks that are encrypted. None for plain images.

    Raises:
        ValueError: images of this side have no patches for a ``vit``.
    """

    def __init__(
        self, name: ClassifierName, classes: int, side: int = 32, adaptation: Adaptation | None = None
    ) -> None:
        super().__init__()
        if name == "vit" and adaptation == "block":
            adaptation = None
        networks = {"tanaka": _tanaka, "block": _tanaka, "pixel": _pixel}
        self.adaptation = None if adaptation is None else networks[adaptation]()
        channels = _CHANNELS[adaptation]
        if name == "vit":
            self.layers: nn.Module = VisionTransformer(classes, channels, side)
        else:
            self.layers = {"resnet20": _resnet20, "vgg16_bn": _vgg16_bn}[name](classes, channels)
        for network in (self.adaptation, self.layers):
            if isinstance(network, nn.Sequential):  # not a ViT, which has initial weights of its own
                _initialise(network)

    def forward(self, images: Tensor) -> Tensor:
        """Classify ``images``; the logits are float32 whatever the autocast mode."""
        logits: Tensor = self.layers(normalise(images) if self.adaptation is None else self.adaptation(images))
        return logits.float()
