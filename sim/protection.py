"""What a user's protection does to an image, for those who may apply it: the user, and an evaluator."""

from functools import partial

from torch import Tensor

from roles.common.data import Split
from roles.common.seeds import derived_seed
from roles.common.transform import apply_network
from roles.common.unet import UNet
from roles.common.weights import State, load_into
from roles.evaluator.attack import FR_ATTACK, KEY_ATTACK, CipherAttack, Protect, attacker_ids
from roles.evaluator.fr_attack import fr_attack
from roles.evaluator.key_attack import pixel_key_attack, tanaka_key_attack
from roles.user.conventional import PixelConfig, TanakaConfig
from roles.user.lessons import encryption_of, image_numbers
from sim.config import Experiment
from sim.nodes import compute_of, store_of

_KNOWN_PAIRS = 10


def protection_of(experiment: Experiment, user: int, theta: State) -> Protect:
    """Return the protection of one user.

    Args:
        theta: what it has published; empty where a key protects.

    Raises:
        ValueError: theta does not fit the user's network.
    """
    config = experiment.user_config(user)
    if config.needs_classifier:
        encryption = encryption_of(config, user, experiment.seed)

        def encrypt(images: Tensor, split: Split, positions: Tensor) -> Tensor:
            return encryption.protect(images, image_numbers(split, positions))

        return encrypt
    h = network_of(experiment, user, theta)
    if h is None:
        return lambda images, split, positions: images
    compute = compute_of(experiment)
    return lambda images, split, positions: apply_network(h, images, compute)


def network_of(experiment: Experiment, user: int, theta: State) -> UNet | None:
    """Return the h_theta of one user, or None where it has none.

    Args:
        theta: what it has published.

    Raises:
        ValueError: theta does not fit the user's network.
    """
    config = experiment.user_config(user)
    if not config.trains_network:
        return None
    h = UNet(config.width, config.depth)
    load_into(h, theta, f"published theta of user {user}")
    return compute_of(experiment).module(h)


def cipher_attacks_on(experiment: Experiment, user: int) -> dict[str, CipherAttack]:
    """Return the attacks that train no network, by name.

    FR-Attack, on pixel-based encryption, sees protected images alone. Where all images share a key, a few known pairs
    tell what it is.
    """
    protection = experiment.user_config(user).protection
    attacks: dict[str, CipherAttack] = {}
    if isinstance(protection, PixelConfig):
        attacks[FR_ATTACK] = partial(fr_attack, shuffle=protection.shuffle)
    # Pairs are made when they are used: a session that is taken up again may be past that.
    if isinstance(protection, PixelConfig) and protection.key == "one":
        shuffle = protection.shuffle
        attacks[KEY_ATTACK] = lambda images: pixel_key_attack(images, *_known_pairs(experiment, user), shuffle=shuffle)
    if isinstance(protection, TanakaConfig):
        attacks[KEY_ATTACK] = lambda images: tanaka_key_attack(images, *_known_pairs(experiment, user))
    return attacks


def _known_pairs(experiment: Experiment, user: int) -> tuple[Tensor, Tensor]:
    """Return a few protected training images and the plain image of each, the first of those that the attacker has."""
    store, seed = store_of(experiment), derived_seed(experiment.seed, "attack")
    ids = attacker_ids(store, "train", experiment.attack.pairs, seed)[:_KNOWN_PAIRS]
    plain = store.images("train")[ids]
    return protection_of(experiment, user, {})(plain, "train", ids), plain
