"""What a user's protection does to an image, for those who may apply it: the user, and an evaluator."""

from torch import Tensor

from roles.common.data import Split
from roles.common.transform import apply_network
from roles.common.unet import UNet
from roles.common.weights import State, load_into
from roles.evaluator.attack import FR_ATTACK, AttackConfig, CipherAttack, Protect
from roles.evaluator.fr_attack import fr_attack
from roles.user.conventional import PixelConfig
from roles.user.lessons import encryption_of, image_numbers
from sim.config import Experiment
from sim.nodes import compute_of


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


def attack_on(experiment: Experiment, user: int) -> AttackConfig:
    """Return how one user's protection is attacked."""
    if not experiment.user_config(user).needs_classifier:
        return experiment.attack
    # A key belongs to places in the image: the mirror image of an encrypted one is encrypted with another key.
    return experiment.attack.model_copy(update={"flip": False})


def cipher_attacks_on(experiment: Experiment, user: int) -> dict[str, CipherAttack]:
    """Return the attacks that need protected images alone, by name: FR-Attack on pixel-based encryption."""
    protection = experiment.user_config(user).protection
    if isinstance(protection, PixelConfig):
        return {FR_ATTACK: lambda images: fr_attack(images, shuffle=protection.shuffle)}
    return {}
