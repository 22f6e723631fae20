"""What only the data and this machine can tell of an experiment."""

import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from sim.config.checks import check
from sim.config.errors import ConfigError
from sim.config.files import load_experiment


def objection(config: Path, *overrides: str) -> str:
    experiment = load_experiment(config, overrides)
    with pytest.raises(ConfigError) as caught:
        check(experiment, config)
    file, _, what = str(caught.value).partition(": ")
    assert file == str(config)
    assert "\n" not in what
    return what


def test_an_experiment_that_can_be_run_gives_its_data(config: Path) -> None:
    overrides = ["users.count=646", "users.validation_images=144", "attack.pairs=1293", "attack.test_images=360"]
    assert check(load_experiment(config, overrides), config).counts == {"train": 1293, "validation": 144, "test": 360}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("users.count=647", "users.count: got 647: 1293 training images are at most 646 users"),
        (
            "users={count: 2, partition: {kind: sizes, sizes: [1000, 294]}}",
            "users.partition.sizes: got 1294 images in all: there are 1293 training images",
        ),
        (
            "users={count: 700, partition: {kind: sample, images: 1294}}",
            "users.partition.images: got 1294: there are 1293 training images",
        ),
        ("users.validation_images=145", "users.validation_images: got 145: there are 144 validation images"),
        ("attack.pairs=1294", "attack.pairs: got 1294: there are 1293 training images"),
        ("attack.test_images=361", "attack.test_images: got 361: there are 360 test images"),
        ("data.name=/nowhere/photos", "data.name '/nowhere/photos': no such folder"),
        ("user.features.weights=/nowhere/phi.safetensors", "/nowhere/phi.safetensors: no such weights file"),
        (
            "attack.itns=[{name: a, depth: 2, training: {epochs: 1}, loss: perceptual, features: {weights: /no/f.st}}]",
            "/no/f.st: no such weights file",
        ),
    ],
)
def test_what_the_data_do_not_allow_is_refused_before_anything_starts(
    config: Path, override: str, expected: str
) -> None:
    assert objection(config, override) == expected


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["user.depth=5"], "user.depth: got 5: images of 24 pixels need a side divisible by 2**(depth - 1) = 16; set "),
        (["user.depth=3"], "attack.itns.0.depth: got 5: too deep for images of 24 pixels"),
        (
            ["user.depth=3", "attack.itns.0.depth=3", "attack.itns.1.depth=3", "classifier.name=vgg16_bn"],
            "classifier.name: got 'vgg16_bn': it needs images of 32 pixels, these have 24",
        ),
    ],
)
def test_networks_too_deep_for_the_images_are_refused(config: Path, overrides: list[str], expected: str) -> None:
    assert objection(config, "data.size=24", *overrides).startswith(expected)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        # 1293 images of 4 users: 324 each; 10 epochs.
        (
            ["provider.defence.most_images=3239"],
            "provider.defence.most_images: got 3239: user.training.epochs 10 on 324 images asks about 3240; raise the "
            "one or lower the other",
        ),
        (
            ["provider.defence.most_images=3239", "users.settings=[{training: {epochs: 1}}, {}]"],
            "provider.defence.most_images: got 3239: users.settings.1.training.epochs 10 on 324 images asks about 3240",
        ),
        (
            ["provider.defence.most_images=2000", "users.partition={kind: all}"],
            "provider.defence.most_images: got 2000: user.training.epochs 10 on 1293 images asks about 12930",
        ),
        (
            ["provider.defence.most_images=2000", "users.partition={kind: sizes, sizes: [2, 2, 300, 2]}"],
            "provider.defence.most_images: got 2000: user.training.epochs 10 on 300 images asks about 3000",
        ),
        (
            ["provider.defence.least_batch=129"],
            "user.training.batch_size: got 128: the provider answers 129 images or more (provider.defence.least_batch)",
        ),
        (
            ["provider.defence.least_batch=100", "users={count: 2, partition: {kind: sizes, sizes: [500, 99]}}"],
            "users: got 99 images: the provider answers 100 images or more (provider.defence.least_batch)",
        ),
        # An epoch is 128, 128 and 68 images; of its 30 steps those after 0, 20 (the rest) are checked, with 32 ids.
        (
            ["provider.defence.most_images=3499", "user.checks={every: 20, ids: 32}"],
            "provider.defence.most_images: got 3499: user.training.epochs 10 on 324 images, with user.checks, asks "
            "about 3500; raise the one or lower the other",
        ),
        (
            ["provider.defence.least_batch=64", "user.checks={ids: 32}"],
            "user.checks.ids: got 32: the provider answers 64 images or more (provider.defence.least_batch)",
        ),
    ],
)
def test_a_training_that_the_providers_terms_do_not_let_end_is_refused(
    config: Path, overrides: list[str], expected: str
) -> None:
    assert objection(config, *overrides).startswith(expected)


@pytest.mark.parametrize(
    "overrides",
    [
        ["provider.defence.most_images=3240"],
        ["provider.defence={least_batch: 128}"],
        ["users.images=20"],
        ["users.settings=[{protection: {kind: plain}}]"],
        ["provider.defence={most_images: 3500, least_batch: 32}", "user.checks={every: 20, ids: 32}"],
        # No more ids than classes: there is no such request.
        ["provider.defence={most_images: 3436, least_batch: 32}", "user.checks={every: 20, ids: 10}"],
    ],
)
def test_a_training_within_the_providers_terms_is_not(config: Path, overrides: list[str]) -> None:
    terms = "provider.defence={most_images: 3240, least_batch: 4}"
    assert check(load_experiment(config, [terms, *overrides]), config)


ENTROPY = "user.protection={kind: entropy, clusters: 10}"


@pytest.mark.parametrize(
    ("overrides", "most"),
    [
        (["user.training.batch_size=9"], 9),
        (["users={count: 2, partition: {kind: sizes, sizes: [500, 8]}}"], 8),
        (["users.images=7"], 7),
    ],
)
def test_more_clusters_than_a_batch_has_images_are_refused(config: Path, overrides: list[str], most: int) -> None:
    expected = f"user.protection.clusters: got 10: they are drawn from a batch, which has {most} images"
    assert objection(config, "user.noise=0.3", ENTROPY, *overrides) == expected
    assert check(load_experiment(config, ["user.noise=0.3", ENTROPY, "users.count=auto"]), config)


def test_users_who_publish_one_network_need_one_secret_for_their_noise(config: Path) -> None:
    together = ["user.noise=0.3", "strategy.name=fedavg"]
    expected = "strategy.name: got 'fedavg': all publish one network, so noise needs one secret: set user.seed"
    assert objection(config, *together) == expected
    assert objection(config, *together, "users.settings=[{seed: 1}, {seed: 2}]") == expected
    assert objection(config, *together, "users.settings=[{seed: 1}, {}]") == expected
    for others in ("user.seed=0", "strategy.batch_norm=local", "user.noise=0", "strategy.name=independent"):
        assert check(load_experiment(config, [*together, others]), config)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("classifier.name=vit", "classifier.name: got 'vit'"),
        ("other_classifiers=[{name: vit}]", "other_classifiers.0.name: got 'vit'"),
        ("users.settings=[{protection: {kind: block}}]", "users.settings.0.protection: got 'block'"),
        ("users.settings=[{protection: {kind: tanaka}}]", "users.settings.0.protection: got 'tanaka'"),
    ],
)
def test_sides_that_blocks_do_not_fill_are_refused(config: Path, override: str, expected: str) -> None:
    networks = ["user.depth=2", "attack.itns.0.depth=2", "attack.itns.1.depth=2"]
    reason = f"{expected}: it needs images with a side divisible by 4, these have 10"
    assert objection(config, "data.size=10", *networks, override) == reason


def test_means_over_more_than_the_map_of_phi_are_refused(config: Path) -> None:
    expected = "user.features.pool: got 17: the map of phi has a side of 16"
    assert objection(config, "data.size=32", "user.features={layer: relu2_2, pool: 17}") == expected
    assert check(load_experiment(config, ["data.size=32", "user.features={layer: relu1_2, pool: 17}"]), config)
    itn = "attack.itns=[{name: a, training: {epochs: 1}, loss: perceptual, features: {layer: relu2_2, pool: POOL}}]"
    assert objection(config, "data.size=32", itn.replace("POOL", "17")) == f"attack.itns.0.{expected[5:]}"
    assert check(load_experiment(config, ["data.size=32", itn.replace("POOL", "16")]), config)


@pytest.mark.parametrize("package", ["tensorboard", "mlflow"])
def test_a_tracker_that_is_not_installed_is_refused_with_the_extra_that_brings_it(
    config: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    expected = f'tracking.{package}: got True: the package is not installed; pip install "veilsim[{package}]"'
    assert objection(config, f"tracking.{package}=true") == expected
    assert check(load_experiment(config, [f"tracking.{package}=false"]), config)


def test_a_folder_of_a_trackers_name_is_not_the_tracker(
    config: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "tensorboard", raising=False)
    (tmp_path / "tensorboard" / "user-0000").mkdir(parents=True)
    assert "tracking.tensorboard: got True: the package is not installed" in objection(
        config, "tracking.tensorboard=true"
    )


def test_weights_of_phi_that_are_none_are_named(config: Path, tmp_path: Path) -> None:
    path = tmp_path / "phi.safetensors"
    override = f"user.features.weights={path}"
    path.write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00nonsense")
    assert f"{path}: not a readable safetensors file" in objection(config, override)
    safetensors.torch.save_file({"weight": torch.zeros(2)}, path)
    assert f"{str(path)!r}: not weights of this network" in objection(config, override)
