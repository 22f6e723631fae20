import hashlib

import pytest
import torch
from torch import nn

from roles.common.config.classifier import ClassifierName
from roles.common.images import normalise
from roles.provider.classifiers import Adaptation, Classifier, _Block


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
    assert isinstance(layers, nn.Sequential)
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


@pytest.mark.parametrize(
    ("name", "keys", "values"),
    [
        (
            "resnet20",
            "45e0727754706cd48a2bc4c65c2c0365613eaa440196d2e0782c2bb4dbf581c0",
            "5dd5f45faaf2778b8f640d1d005d44ab8fffe0fceddb1d3feb8dda0fb5152b39",
        ),
        (
            "vgg16_bn",
            "4ca4efdfb50a955ef49122634c059d32b976caac3d4a3e9d9cf6a7b0a657934d",
            "ba40ec23464537ad788b161d5b0fd0d711b2093c88df767eed9f3048f8982a50",
        ),
    ],
)
def test_classifiers_of_plain_images_have_the_names_and_initial_weights_that_trained_ones_rely_on(
    name: ClassifierName, keys: str, values: str
) -> None:
    torch.manual_seed(0)
    state = Classifier(name, classes=10).state_dict()
    assert hashlib.sha256("\n".join(state).encode()).hexdigest() == keys
    sha = hashlib.sha256()
    for value in state.values():
        sha.update(value.numpy().tobytes())
    assert sha.hexdigest() == values


@pytest.mark.parametrize(("adaptation", "channels"), [("tanaka", 32), ("block", 32), ("pixel", 64)])
@pytest.mark.parametrize("name", ["resnet20", "vgg16_bn"])
def test_an_adapted_classifier_is_the_same_behind_its_first_convolution(
    name: ClassifierName, adaptation: Adaptation, channels: int
) -> None:
    with torch.device("meta"):
        plain, adapted = Classifier(name, classes=10), Classifier(name, classes=10, adaptation=adaptation)
    shapes = {key: value.shape for key, value in plain.layers.state_dict().items()}
    first = shapes["0.weight"]
    shapes["0.weight"] = torch.Size([first[0], channels, *first[2:]])
    assert {key: value.shape for key, value in adapted.layers.state_dict().items()} == shapes
    assert adapted.adaptation is not None
    assert adapted.adaptation(torch.empty(2, 3, 32, 32, device="meta")).shape == (2, channels, 32, 32)
    assert adapted(torch.empty(2, 3, 32, 32, device="meta")).shape == (2, 10)


@pytest.mark.parametrize(("adaptation", "reach"), [("tanaka", 4), ("block", 4), ("pixel", 1)])
def test_an_adaptation_network_never_mixes_what_is_encrypted_apart(adaptation: Adaptation, reach: int) -> None:
    torch.manual_seed(0)
    network = Classifier("resnet20", classes=3, adaptation=adaptation).eval().adaptation
    assert network is not None
    images = torch.rand(1, 3, 8, 8)
    for row, column in ((0, 3), (4, 7), (5, 6)):
        changed = images.clone()
        changed[..., row, column] = 1 - changed[..., row, column]
        with torch.no_grad():
            differs = (network(images) != network(changed)).any(dim=1)[0]
        top, left = row // reach * reach, column // reach * reach
        expected = torch.zeros(8, 8, dtype=torch.bool)
        expected[top : top + reach, left : left + reach] = True
        assert torch.equal(differs, expected)


@pytest.mark.parametrize(
    ("adaptation", "kinds"),
    [
        ("tanaka", "BatchNorm2d Conv2d ReLU BatchNorm2d Conv2d ReLU BatchNorm2d Conv2d PixelShuffle"),
        ("pixel", "Conv2d BatchNorm2d ReLU Conv2d BatchNorm2d ReLU"),
    ],
)
def test_adaptation_networks_are_those_described(adaptation: Adaptation, kinds: str) -> None:
    network = Classifier("resnet20", classes=3, adaptation=adaptation).adaptation
    assert network is not None
    assert " ".join(type(module).__name__ for module in network) == kinds


@pytest.mark.parametrize("adaptation", ["tanaka", "pixel"])
def test_encrypted_images_reach_the_adaptation_network_as_they_are(adaptation: Adaptation) -> None:
    torch.manual_seed(0)
    classifier, images = Classifier("resnet20", classes=3, adaptation=adaptation).eval(), torch.rand(2, 3, 8, 8)
    assert classifier.adaptation is not None
    with torch.no_grad():
        assert torch.equal(classifier(images), classifier.layers(classifier.adaptation(images)))
        assert not torch.equal(classifier(images), classifier(normalise(images)))
