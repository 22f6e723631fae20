from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from roles.common.config.user import FeaturesConfig
from roles.common.features import Features
from roles.common.images import normalise
from roles.common.weights import State, cpu_state, digest, save


@pytest.fixture(scope="module")
def vgg_state() -> State:
    """Weights of the first four convolutions, under the names of VGG16's ``features``."""
    generator = torch.Generator().manual_seed(0)
    state: State = {}
    for index, inputs, outputs in ((0, 3, 64), (2, 64, 64), (5, 64, 128), (7, 128, 128)):
        state[f"{index}.weight"] = torch.randn(outputs, inputs, 3, 3, generator=generator) / (3 * inputs**0.5)
        state[f"{index}.bias"] = torch.randn(outputs, generator=generator)
    return state


def write(path: Path, state: State) -> FeaturesConfig:
    save(path, state)
    return FeaturesConfig(layer="relu2_2", weights=str(path))


def refusal(config: FeaturesConfig) -> str:
    with pytest.raises(ValueError, match=r"vgg|imagenet") as caught:
        Features(config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_each_cut_gives_the_feature_map_of_the_paper() -> None:
    images = torch.rand(2, 3, 32, 32)
    assert Features(FeaturesConfig(layer="relu1_2"))(images).shape == (2, 64, 32, 32)
    assert Features(FeaturesConfig(layer="relu2_2"))(images).shape == (2, 128, 16, 16)


def test_random_phi_is_the_same_each_time_and_leaves_the_global_stream_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = Features(FeaturesConfig())
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert digest(cpu_state(Features(FeaturesConfig()))) == digest(cpu_state(first))


@pytest.mark.parametrize("prefix", ["", "features."])
def test_a_local_file_of_vgg16_or_of_its_features_gives_its_weights(
    prefix: str, vgg_state: State, tmp_path: Path
) -> None:
    state = {f"{prefix}{name}": value for name, value in vgg_state.items()}
    # What lies behind the cut is not looked at.
    state[f"{prefix}10.weight"] = torch.full((1,), torch.nan)
    state["classifier.0.weight"] = torch.zeros(1)
    phi = Features(write(tmp_path / "vgg.safetensors", state))
    assert digest(cpu_state(phi.layers)) == digest(vgg_state)


def test_phi_is_normalisation_convolutions_relus_and_one_pool(vgg_state: State, tmp_path: Path) -> None:
    config = write(tmp_path / "vgg.safetensors", vgg_state)
    images = torch.rand(2, 3, 8, 8)

    def relu_of(index: int, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, vgg_state[f"{index}.weight"], vgg_state[f"{index}.bias"], padding=1).clamp(min=0)

    relu1_2 = relu_of(2, relu_of(0, normalise(images)))
    relu2_2 = relu_of(7, relu_of(5, F.max_pool2d(relu1_2, 2)))
    assert torch.allclose(Features(config.model_copy(update={"layer": "relu1_2"}))(images), relu1_2, atol=1e-4)
    assert torch.allclose(Features(config)(images), relu2_2, atol=1e-4)


def test_means_over_squares_make_less_of_a_move_than_of_another_image() -> None:
    stream = torch.Generator().manual_seed(0)
    images = F.interpolate(torch.rand(16, 3, 8, 8, generator=stream), scale_factor=4, mode="bilinear")
    moved = images.roll((1, 1), dims=(2, 3))

    def share(pool: int) -> float:
        phi = Features(FeaturesConfig(layer="relu1_2", pool=pool))
        of_a_move, of_others = ((phi(images) - phi(other)).square().mean() for other in (moved, images.roll(1, 0)))
        return (of_a_move / of_others).item()

    assert share(8) < 0.5 * share(1)
    assert Features(FeaturesConfig(layer="relu2_2", pool=4))(images).shape == (16, 128, 4, 4)


def test_phi_is_frozen_but_lets_a_gradient_through_and_leaves_its_input_alone() -> None:
    phi, images = Features(FeaturesConfig(layer="relu1_2")), torch.rand(1, 3, 8, 8)
    kept = images.clone()
    leaf = images.requires_grad_()
    phi.train()(leaf).mean().backward()
    assert leaf.grad is not None
    assert bool((leaf.grad != 0).any())
    assert torch.equal(images, kept)
    assert all(value.grad is None and not value.requires_grad for value in phi.parameters())


def test_files_that_are_not_vgg16s_are_one_line_that_names_them(vgg_state: State, tmp_path: Path) -> None:
    path = tmp_path / "vgg.safetensors"
    assert f"{path}: no such weights file" in refusal(FeaturesConfig(weights=str(path)))
    path.write_bytes(b"no safetensors")
    assert f"{path}: not a readable safetensors file" in refusal(FeaturesConfig(weights=str(path)))
    missing = {name: value for name, value in vgg_state.items() if name != "7.bias"}
    message = refusal(write(path, missing))
    assert str(path) in message
    assert "missing ['7.bias']" in message
    message = refusal(write(path, vgg_state | {"0.weight": torch.zeros(64, 3, 11, 11)}))
    assert str(path) in message
    assert "0.weight has shape (64, 3, 11, 11), expected (64, 3, 3, 3)" in message
    assert "unexpected ['1.weight']" in refusal(write(path, vgg_state | {"features.1.weight": torch.zeros(64)}))
    assert "not finite" in refusal(write(path, vgg_state | {"0.bias": torch.full((64,), torch.nan)}))


def test_imagenet_weights_that_cannot_be_downloaded_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(**_: object) -> State:
        raise OSError("no route to host")

    weights = SimpleNamespace(IMAGENET1K_V1=SimpleNamespace(get_state_dict=no_network))
    monkeypatch.setattr("torchvision.models.VGG16_Weights", weights)
    message = refusal(FeaturesConfig(weights="imagenet"))
    assert "cannot be downloaded (no route to host); name a local safetensors file" in message


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (FeaturesConfig(), "relu2_2 of VGG16 front with fixed random weights"),
        (FeaturesConfig(layer="relu1_2", weights="imagenet"), "relu1_2 of VGG16, ImageNet weights"),
        (FeaturesConfig(weights="/some/where/vgg.safetensors"), "relu2_2 of VGG16, weights of vgg.safetensors"),
    ],
)
def test_a_report_can_say_which_phi_it_was(config: FeaturesConfig, words: str) -> None:
    assert config.describe() == words
