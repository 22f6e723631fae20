"""What a user's protection does to an image, for those who may apply it: the user, and an evaluator."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from roles.common.compute import Compute
from roles.common.config.data import Split
from roles.common.config.user import BlockConfig, PixelConfig, TanakaConfig, UserConfig
from roles.common.encryption import BlockEncryption, Encryption, LearnableEncryption, PixelEncryption
from roles.common.images import to_bitmap, to_unit
from roles.common.seeds import generator
from roles.common.transform import apply_network
from roles.common.unet import UNet
from roles.common.weights import State, load_into

Protect = Callable[[Tensor, Split, Tensor], Tensor]
"""A protection at work: uint8 images ``(N, 3, H, W)``, their split, and their positions in it, int64 ``(N,)``, to
protected images of the same form; the same for the same images."""
NOISE = "noise"
"""The standard deviation of noise, beside the network's weights in a theta, where ``user.dfil`` sets it."""


def encryption_of(config: UserConfig, user: int, seed: int) -> Encryption:
    """Return the encryption of one user, whose key follows from the run's ``seed`` and the user's number.

    Raises:
        ValueError: the user's protection is no conventional one.
    """
    key = config.own_seed(user, seed, "key")
    match config.protection:
        case TanakaConfig():
            return LearnableEncryption(config.protection, key)
        case BlockConfig():
            return BlockEncryption(config.protection, key)
        case PixelConfig():
            return PixelEncryption(config.protection, key)
        case other:
            raise ValueError(f"protection {other.kind!r} has no key")


def image_numbers(split: Split, positions: Tensor) -> Tensor:
    """Return a number for each image of a split that no image of another split has, for keys of their own."""
    return positions + 10**9 * get_args(Split).index(split)


def protection_of(config: UserConfig, user: int, seed: int, theta: State, compute: Compute) -> Protect:
    """Return the protection of one user: by the ``theta`` that it has published, or a key that follows from ``seed``.

    Noise, where its config asks for it, follows from ``seed`` as a key does.

    Raises:
        ValueError: theta does not fit the user's network.
    """
    if config.needs_classifier:
        encryption = encryption_of(config, user, seed)
        return lambda images, split, positions: encryption.protect(images, image_numbers(split, positions))
    h = network_of(config, user, theta, compute)

    def transform(images: Tensor, split: Split, positions: Tensor) -> Tensor:
        return images if h is None else apply_network(h, images, compute)

    if h is None or not config.is_noisy:
        return transform
    return Noisy(transform, noise_of(config, theta), config.own_seed(user, seed, "noise"))


@dataclass(frozen=True)
class Noisy:
    """A network's protection with noise from a secret of the user's: a :data:`Protect` of which parts are public."""

    transform: Protect
    """What the network alone does."""
    noise: float
    """Standard deviation of what is added, of values in [0, 1]."""
    secret: int

    def __call__(self, images: Tensor, split: Split, positions: Tensor) -> Tensor:
        """Protect, as a :data:`Protect` does."""
        numbers = image_numbers(split, positions)
        return with_noise(self.transform(images, split, positions), self.noise, self.secret, numbers)


def without_noise(protect: Protect) -> tuple[Protect, float]:
    """Return what is public of a protection: what it does but for noise, and how strong that is.

    Whoever has h_theta knows how much noise there is, but not which: an attacker draws its own, whenever it looks.
    """
    return (protect.transform, protect.noise) if isinstance(protect, Noisy) else (protect, 0.0)


def with_noise(images: Tensor, noise: float, secret: int, numbers: Tensor) -> Tensor:
    """Return uint8 ``(N, 3, H, W)`` with Gaussian noise, of values in [0, 1] and clipped to them.

    Args:
        noise: its standard deviation.
        secret: what noise follows from, together with which images they are, ``numbers``, int64 ``(N,)``.
    """
    drawn = [torch.randn(images.shape[1:], generator=generator(secret, number)) for number in numbers.tolist()]
    return torch.stack([to_bitmap(to_unit(x) + noise * n) for x, n in zip(images, drawn, strict=True)])


def network_of(config: UserConfig, user: int, theta: State, compute: Compute) -> UNet | None:
    """Return the published h_theta of one user, or None where its protection is no network.

    Raises:
        ValueError: theta does not fit the user's network.
    """
    if not config.trains_network:
        return None
    h = UNet(config.width, config.depth, config.upsampling)
    weights = {name: value for name, value in theta.items() if config.dfil is None or name != NOISE}
    load_into(h, weights, f"published theta of user {user}")
    return compute.module(h)


def noise_of(config: UserConfig, theta: State) -> float:
    """Return the standard deviation of a user's noise: of its config or, where ``dfil`` sets it, of its theta.

    Raises:
        ValueError: theta does not say.
    """
    if config.dfil is None:
        return config.noise
    if NOISE not in theta:
        raise ValueError(f"theta of a user with dfil {config.dfil:g} has no {NOISE!r} beside the network's weights")
    return float(theta[NOISE])
