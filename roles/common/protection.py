"""What a user's protection does to an image, for those who may apply it: the user, and an evaluator."""

from collections.abc import Callable
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
    h, secret = network_of(config, user, theta, compute), config.own_seed(user, seed, "noise")

    def protect(images: Tensor, split: Split, positions: Tensor) -> Tensor:
        if h is None:
            return images
        return with_noise(apply_network(h, images, compute), config.noise, secret, image_numbers(split, positions))

    return protect


def with_noise(images: Tensor, noise: float, secret: int, numbers: Tensor) -> Tensor:
    """Return uint8 ``(N, 3, H, W)`` with Gaussian noise, of values in [0, 1] and clipped to them.

    Args:
        noise: its standard deviation; 0 for none.
        secret: what noise follows from, together with which images they are, ``numbers``, int64 ``(N,)``.
    """
    if noise == 0:
        return images
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
    load_into(h, theta, f"published theta of user {user}")
    return compute.module(h)
