"""What can be known to be wrong with an experiment before anything is started, beyond what its schema says."""

import math
from importlib.util import find_spec
from pathlib import Path

import torch

from roles.common.data import ImageStore, prepare
from roles.evaluator.measures import Lpips
from roles.user.config import UserConfig
from roles.user.features import shared_features
from sim.config import (
    AllPartition,
    ConfigError,
    Experiment,
    Partition,
    SamplePartition,
    SizesPartition,
    TrackingConfig,
    cache_folder,
)


def check(experiment: Experiment, source: Path) -> ImageStore:
    """Prepare the data and check everything that can be known before anything is started.

    Args:
        experiment: what is to be run.
        source: the config file that it comes from, for messages.

    Raises:
        ConfigError: data or weights that cannot be had, or a combination that cannot work.
    """
    try:
        return _prepared(experiment)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from error


def _prepared(experiment: Experiment) -> ImageStore:
    _check_tracking(experiment.tracking)
    try:
        store = prepare(experiment.data, cache_folder() / "data")
        for config in experiment.user_configs():
            if config.trains_network:
                shared_features(config.features)
        if experiment.attack.lpips:
            Lpips(store.side)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if experiment.runtime.gpu_fraction and not torch.cuda.is_available():
        raise ConfigError(
            f"runtime.gpu_fraction: got {experiment.runtime.gpu_fraction}: PyTorch finds no GPU here; set 0"
        )
    for number, config in enumerate(experiment.user_configs()):
        _check_protection(config, f"users.settings.{number}" if experiment.users.settings else "user", store)
    _check_average(experiment)
    if math.ceil(3 * experiment.attack.blur_sigma) >= store.side:
        raise ConfigError(
            f"attack.blur_sigma: got {experiment.attack.blur_sigma}: too wide for images of {store.side} pixels"
        )
    for index, itn in enumerate(experiment.attack.itns):
        if store.side % 2 ** (itn.depth - 1):
            raise ConfigError(f"attack.itns.{index}.depth: got {itn.depth}: too deep for images of {store.side} pixels")
    named = {"classifier": experiment.classifier}
    others = experiment.other_classifier_configs()
    named |= {f"other_classifiers.{number}": config for number, config in enumerate(others)}
    for key, classifier in named.items():
        if classifier.name == "vgg16_bn" and store.side < 32:
            raise ConfigError(f"{key}.name: got 'vgg16_bn': it needs images of 32 pixels, these have {store.side}")
    _check_counts(experiment, store)
    return store


def _check_tracking(tracking: TrackingConfig) -> None:
    for package, wanted in tracking.model_dump().items():
        found = find_spec(package) if wanted else None
        # Python takes any folder of that name for a package without files, such as that of a run.
        if wanted and (found is None or found.origin is None):
            raise ConfigError(
                f'tracking.{package}: got {wanted!r}: the package is not installed; pip install "veilsim[{package}]"'
            )


def _check_protection(config: UserConfig, key: str, store: ImageStore) -> None:
    factor = 2 ** (config.depth - 1)
    if config.trains_network and store.side % factor:
        raise ConfigError(
            f"{key}.depth: got {config.depth}: images of {store.side} pixels need a side divisible by "
            f"2**(depth - 1) = {factor}; set {key}.depth or data.size"
        )
    if config.protection.kind == "tanaka" and store.side % 4:
        raise ConfigError(
            f"{key}.protection: got 'tanaka': it needs images with a side divisible by 4, these have {store.side}"
        )


def _check_average(experiment: Experiment) -> None:
    if not experiment.strategy.averages:
        return
    name, configs = experiment.strategy.name, experiment.user_configs()
    if other := next((c.protection.kind for c in configs if not c.trains_network), None):
        raise ConfigError(f"strategy.name: got {name!r}: it averages networks, and protection {other!r} has none")
    if len({(config.width, config.depth) for config in configs}) > 1:
        raise ConfigError(f"strategy.name: got {name!r}: it needs networks of one width and depth for all users")


def check_shares(partition: Partition, count: int, images: int) -> None:
    """Check that ``images`` training images are enough for ``count`` users.

    Raises:
        ConfigError: they are not.
    """
    if isinstance(partition, SamplePartition):
        if partition.images > images:
            raise ConfigError(f"users.partition.images: got {partition.images}: there are {images} training images")
    elif not isinstance(partition, AllPartition) and count * 2 > images:
        raise ConfigError(f"users.count: got {count}: {images} training images are at most {images // 2} users")


def _check_counts(experiment: Experiment, store: ImageStore) -> None:
    users, partition, train = experiment.users, experiment.users.partition, store.counts["train"]
    # However many users a federation turns out to have, it has one.
    check_shares(partition, 1 if users.count == "auto" else users.count, train)
    if isinstance(partition, SizesPartition) and sum(partition.sizes) > train:
        raise ConfigError(
            f"users.partition.sizes: got {sum(partition.sizes)} images in all: there are {train} training images"
        )
    limits = (
        ("users.validation_images", users.validation_images, store.counts["validation"], "validation"),
        ("attack.pairs", experiment.attack.pairs, train, "training"),
        ("attack.test_images", experiment.attack.test_images, store.counts["test"], "test"),
    )
    for key, value, limit, split in limits:
        if value is not None and value > limit:
            raise ConfigError(f"{key}: got {value}: there are {limit} {split} images")
