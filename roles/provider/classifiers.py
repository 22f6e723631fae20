"""The classifiers psi of the paper: ResNet-20 [25] and VGG16 with batch normalization [26]."""

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from roles.common.images import normalise

ClassifierName = Literal["resnet20", "vgg16_bn"]


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


def _resnet20(classes: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    inputs = 16
    for outputs in (16, 32, 64):
        for block in range(3):
            layers.append(_Block(inputs, outputs, stride=2 if block == 0 and outputs > 16 else 1))
            inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes))


def _vgg16_bn(classes: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    inputs = 3
    for convolutions, outputs in ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)):
        for _ in range(convolutions):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
            inputs = outputs
        layers.append(nn.MaxPool2d(2))
    head = [
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        *(nn.Dropout(), nn.Linear(512, 512), nn.ReLU(inplace=True)),
        *(nn.Dropout(), nn.Linear(512, 512), nn.ReLU(inplace=True)),
        nn.Linear(512, classes),
    ]
    return nn.Sequential(*layers, *head)


class Classifier(nn.Module):
    """psi: ``(N, 3, H, W)`` in [0, 1] to logits ``(N, classes)``; ImageNet normalisation is part of it."""

    def __init__(self, name: ClassifierName, classes: int) -> None:
        super().__init__()
        self.layers = {"resnet20": _resnet20, "vgg16_bn": _vgg16_bn}[name](classes)
        for module in self.layers.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Classify ``images``; the logits are float32 whatever the autocast mode."""
        logits: Tensor = self.layers(normalise(images))
        return logits.float()
