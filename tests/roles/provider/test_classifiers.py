import pytest
import torch
from torch import nn

from roles.common.images import normalise
from roles.provider.classifiers import Classifier, ClassifierName, _Block


@pytest.mark.parametrize(("name", "millions"), [("resnet20", 0.27), ("vgg16_bn", 15.25)])
def test_the_papers_classifiers_have_the_papers_number_of_parameters(name: ClassifierName, millions: float) -> None:
    with torch.device("meta"):
        classifier = Classifier(name, classes=10)
    assert round(sum(value.numel() for value in classifier.parameters()) / 1e6, 2) == millions
    assert classifier(torch.empty(2, 3, 32, 32, device="meta")).shape == (2, 10)


def test_the_shortcut_has_no_parameters_takes_every_second_pixel_and_pads_channels_with_zeros() -> None:
    block = _Block(2, 4, stride=2).eval()
    kinds = [type(module) for module in block.children()]
    assert kinds == [nn.Conv2d, nn.BatchNorm2d, nn.Conv2d, nn.BatchNorm2d]
    nn.init.zeros_(block.conv2.weight)  # what is left is the shortcut alone
    x = torch.rand(1, 2, 4, 4)
    expected = torch.zeros(1, 4, 2, 2)
    expected[:, 1:3] = x[:, :, [0, 2]][..., [0, 2]]
    assert torch.equal(block(x), expected)


def test_a_block_of_the_same_size_adds_its_input() -> None:
    block = _Block(3, 3, stride=1).eval()
    nn.init.zeros_(block.conv2.weight)
    x = torch.rand(2, 3, 4, 4)
    assert torch.equal(block(x), x)


def test_resnet20_has_20_weighted_layers_and_halves_the_image_twice() -> None:
    layers = Classifier("resnet20", classes=10).layers
    assert sum(isinstance(module, nn.Conv2d | nn.Linear) for module in layers.modules()) == 20
    with torch.no_grad():
        assert layers[:-3](torch.rand(1, 3, 32, 32)).shape == (1, 64, 8, 8)


def test_vgg16_has_13_convolutions_3_linear_layers_5_pools_and_dropout() -> None:
    with torch.device("meta"):
        modules = list(Classifier("vgg16_bn", classes=10).modules())
    counts = [sum(isinstance(m, kind) for m in modules) for kind in (nn.Conv2d, nn.Linear, nn.MaxPool2d, nn.Dropout)]
    assert counts == [13, 3, 5, 2]


def test_images_are_normalised_inside_the_classifier() -> None:
    torch.manual_seed(0)
    classifier, images = Classifier("resnet20", classes=3).eval(), torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(classifier(images), classifier.layers(normalise(images)))


def test_logits_are_float32_under_autocast_as_well() -> None:
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert Classifier("resnet20", classes=3).eval()(torch.rand(1, 3, 8, 8)).dtype == torch.float32
