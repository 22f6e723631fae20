"""What can be known to be wrong with an experiment before anything is started, beyond what its schema says."""

import math
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import torch

from roles.common.batches import batch_sizes
from roles.common.config.user import EntropyConfig, FeaturesConfig, UserConfig
from roles.common.data import ImageStore, prepare
from roles.common.encryption import BLOCK
from roles.common.features import shared_features
from roles.evaluator.measures import Lpips
from sim.config.errors import ConfigError, in_our_words
from sim.config.experiment import Experiment
from sim.config.places import cache_folder
from sim.config.sections import AllPartition, Partition, SamplePartition, SizesPartition


def check(experiment: Experiment, source: Path) -> ImageStore:
    """Prepare the data and check everything that can be known before anything is started.

    Raises:
        ConfigError: data or weights that cannot be had, or what cannot work, in the config file ``source``.
    """
    with in_our_words(source):
        for problem in _missing_trackers(experiment):
            raise ValueError(problem)
        store = prepare(experiment.data, cache_folder() / "data")
        for config in experiment.user_configs():
            if config.trains_network:
                shared_features(config.features)
        for itn in experiment.attack.itns:
            if itn.features is not None:
                shared_features(itn.features)
        if experiment.attack.lpips:
            Lpips(store.side)
        for problem in _problems(experiment, store):
            raise ValueError(problem)
    return store


def check_shares(partition: Partition, count: int, images: int) -> None:
    """Raise a :class:`ConfigError` if ``images`` training images are not enough for ``count`` users."""
    if isinstance(partition, SamplePartition):
        if partition.images > images:
            raise ConfigError(f"users.partition.images: got {partition.images}: there are {images} training images")
    elif not isinstance(partition, AllPartition) and count * 2 > images:
        raise ConfigError(f"users.count: got {count}: {images} training images are at most {images // 2} users")


def _shares(experiment: Experiment, images: int, number: int) -> list[int]:
    """Return how many of ``images`` training images X' may have, for a user whose settings have this number.

    It is empty where nobody knows yet. Where a partition is drawn from labels, it has the mean.
    """
    users = experiment.users
    match users.partition:
        case AllPartition():
            shares = [images]
        case SamplePartition(images=drawn):
            shares = [drawn]
        case SizesPartition(sizes=sizes):
            shares = list(sizes[number :: len(users.settings) or 1])
        case _:
            shares = [] if users.count == "auto" else [math.ceil(images / users.count)]
    return [min(share, users.images or share) for share in shares]


def _asked_about(config: UserConfig, share: int, least_batch: int, classes: int) -> int:
    """Return how many images a whole training on ``share`` images asks gradients for, as a provider counts them."""
    recipe = config.training
    parts = batch_sizes(share, recipe.batch_size, least_batch)
    steps = recipe.total_steps(len(parts))
    epochs, rest = divmod(steps, len(parts))
    asked = epochs * share + sum(parts[:rest])
    if config.checks is None:
        return asked
    # The first request of a check is the step's own once more, which is not counted again.
    ids = min(config.checks.ids, share)
    checked = [parts[step % len(parts)] for step in range(0, steps, config.checks.every)]
    return asked + sum(checked) + (len(checked) * ids if ids > classes else 0)


def _beyond_the_terms(experiment: Experiment, store: ImageStore) -> Iterator[str]:
    """Yield whose training, with its checks, the provider would not answer to its end."""
    terms, users, classes = experiment.provider.defence, experiment.users, len(store.classes)
    for number, config in enumerate(experiment.user_configs()):
        key, recipe = f"users.settings.{number}" if users.settings else "user", config.training
        if not config.trains_network:
            continue
        shares = _shares(experiment, store.counts["train"], number)
        limits = [(f"{key}.training.batch_size", recipe.batch_size), ("users", min(shares, default=terms.least_batch))]
        # Up to as many ids as there are classes that request is left out.
        if config.checks is not None and config.checks.ids > classes:
            limits.append((f"{key}.checks.ids", config.checks.ids))
        for name, most in limits:
            if most < terms.least_batch:
                least = f"the provider answers {terms.least_batch} images or more (provider.defence.least_batch)"
                yield f"{name}: got {most}{' images' if name == 'users' else ''}: {least}"
        if terms.most_images is not None and shares:
            share = max(shares)
            needed = _asked_about(config, share, terms.least_batch, classes)
            if needed > terms.most_images:
                with_checks = f", with {key}.checks," if config.checks else ""
                yield (
                    f"provider.defence.most_images: got {terms.most_images}: {key}.training.epochs {recipe.epochs:g} "
                    f"on {share} images{with_checks} asks about {needed}; raise the one or lower the other"
                )


def _missing_trackers(experiment: Experiment) -> Iterator[str]:
    for package, wanted in experiment.tracking.model_dump().items():
        found = find_spec(package) if wanted else None
        # Python takes any folder of that name for a package without files, such as that of a run.
        if wanted and (found is None or found.origin is None):
            yield f'tracking.{package}: got {wanted!r}: the package is not installed; pip install "veilsim[{package}]"'


def _hijack_problems(experiment: Experiment, store: ImageStore) -> Iterator[str]:
    """Yield what is wrong with a hostile provider and with users who look for one."""
    users, count = experiment.users, experiment.users.count
    for number, hijack in enumerate(experiment.provider.hijack):
        key = f"provider.hijack.{number}"
        if store.side % 2 ** (hijack.depth - 1):
            yield f"{key}.depth: got {hijack.depth}: too deep for images of {store.side} pixels"
        if count != "auto" and (unknown := [user for user in hijack.users or () if user >= count]):
            yield f"{key}.users: got {unknown[0]}: users are 0 to {count - 1}"
    if experiment.provider.hijack and experiment.strategy.averages:
        name = experiment.strategy.name
        yield f"strategy.name: got {name!r}: a provider hijacks users who train alone; set independent"
    numbers = range(len(users.settings) or 1) if count == "auto" else range(count)
    for user in numbers:
        config = experiment.user_config(user)
        if experiment.provider.hijack_of(user) and not config.trains_network:
            yield f"provider.hijack: user {user} has protection {config.protection.kind!r}: no network to hijack"
        if config.checks and not config.trains_network:
            yield f"user.checks: user {user} has protection {config.protection.kind!r}: it is sent no gradients"


def _pool_problems(key: str, features: FeaturesConfig | None, side: int) -> Iterator[str]:
    if features is not None and features.pool > (most := features.map_side(side)):
        yield f"{key}.features.pool: got {features.pool}: the map of phi has a side of {most}"


def _problems(experiment: Experiment, store: ImageStore) -> Iterator[str]:
    """Yield what is wrong: key, value, and what would be right."""
    side, users, attack = store.side, experiment.users, experiment.attack
    if experiment.runtime.gpu_fraction and not torch.cuda.is_available():
        yield f"runtime.gpu_fraction: got {experiment.runtime.gpu_fraction}: PyTorch finds no GPU here; set 0"
    configs = experiment.user_configs()
    for number, config in enumerate(configs):
        key, factor = f"users.settings.{number}" if users.settings else "user", 2 ** (config.depth - 1)
        if config.trains_network and side % factor:
            yield (
                f"{key}.depth: got {config.depth}: images of {side} pixels need a side divisible by "
                f"2**(depth - 1) = {factor}; set {key}.depth or data.size"
            )
        yield from _pool_problems(key, config.features if config.trains_network else None, side)
        if isinstance(config.protection, EntropyConfig):
            most = min([config.training.batch_size, *_shares(experiment, store.counts["train"], number)])
            if (clusters := config.protection.clusters) > most:
                got = f"{key}.protection.clusters: got {clusters}"
                yield f"{got}: they are drawn from a batch, which has {most} images"
        if config.is_noisy and not config.trains_network:
            got = f"{key}.noise: got {config.noise:g}" if config.dfil is None else f"{key}.dfil: got {config.dfil:g}"
            yield f"{got}: protection {config.protection.kind!r} has no network to add noise to; leave it out"
        if config.protection.kind in ("tanaka", "block") and side % BLOCK:
            got = f"{key}.protection: got {config.protection.kind!r}"
            yield f"{got}: it needs images with a side divisible by {BLOCK}, these have {side}"
    yield from _hijack_problems(experiment, store)
    if experiment.strategy.averages:
        name = experiment.strategy.name
        if other := next((config.protection.kind for config in configs if not config.trains_network), None):
            yield f"strategy.name: got {name!r}: it averages networks, and protection {other!r} has none"
        if len({config.noise for config in configs}) > 1 and experiment.strategy.publishes_one:
            yield f"strategy.name: got {name!r}: all publish one network, so their noise must be the same"
        secrets = {config.seed for config in configs}
        if experiment.strategy.publishes_one and configs[0].noise and (None in secrets or len(secrets) > 1):
            yield f"strategy.name: got {name!r}: all publish one network, so noise needs one secret: set user.seed"
        if any(config.dfil is not None for config in configs):
            yield f"strategy.name: got {name!r}: dfil sets each user's noise by its own network; give user.noise"
        if len({(config.width, config.depth) for config in configs}) > 1:
            yield f"strategy.name: got {name!r}: it needs networks of one width and depth for all users"
    if math.ceil(3 * attack.blur_sigma) >= side:
        yield f"attack.blur_sigma: got {attack.blur_sigma}: too wide for images of {side} pixels"
    for index, itn in enumerate(attack.itns):
        key = f"attack.itns.{index}"
        if side % 2 ** (itn.depth - 1):
            yield f"{key}.depth: got {itn.depth}: too deep for images of {side} pixels"
        yield from _pool_problems(key, itn.features, side)
    chosen = {f"attack.itns.{index}": itn.users for index, itn in enumerate(attack.itns)}
    chosen |= {f"studies.{index}": study.users for index, study in enumerate(experiment.studies)}
    for key, some in chosen.items():
        if users.count != "auto" and some is not None and max(some) >= users.count:
            yield f"{key}.users: got {max(some)}: users are 0 to {users.count - 1}"
    others = enumerate(experiment.other_classifier_configs())
    classifiers = {"classifier": experiment.classifier} | {f"other_classifiers.{n}": other for n, other in others}
    for key, classifier in classifiers.items():
        if classifier.name == "vgg16_bn" and side < 32:
            yield f"{key}.name: got 'vgg16_bn': it needs images of 32 pixels, these have {side}"
        if classifier.name == "vit" and side % BLOCK:
            yield f"{key}.name: got 'vit': it needs images with a side divisible by {BLOCK}, these have {side}"
    train = store.counts["train"]
    # However many users a federation turns out to have, it has one.
    check_shares(users.partition, 1 if users.count == "auto" else users.count, train)
    if isinstance(users.partition, SizesPartition) and (total := sum(users.partition.sizes)) > train:
        yield f"users.partition.sizes: got {total} images in all: there are {train} training images"
    limits = (
        ("users.validation_images", users.validation_images, store.counts["validation"], "validation"),
        ("attack.pairs", attack.pairs, train, "training"),
        ("attack.test_images", attack.test_images, store.counts["test"], "test"),
    )
    yield from _beyond_the_terms(experiment, store)
    for key, value, limit, split in limits:
        if value is not None and value > limit:
            yield f"{key}: got {value}: there are {limit} {split} images"
