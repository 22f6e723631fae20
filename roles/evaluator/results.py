"""What attacks and studies find, as plain data."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Measured:
    """How near a set of images comes to the plain test images; tensors are float32 ``(N,)``, one value an image."""

    psnr: Tensor
    """In dB."""
    ssim: Tensor
    lpips: Tensor | None
    """None where it was not asked for."""
    accuracy: float | None
    """Share that the provider classifies as the true test label, in [0, 1]; None for baselines, which psi never sees,
    and where the evaluator has no labels."""
    recognised: float | None = None
    """Share that a classifier that is not psi takes for the true test label, in [0, 1]; None where the provider has no
    other, where the evaluator has no labels, and in results of versions before it was asked."""
    retrieved: float | None = None
    """Share whose nearest plain image is its own original (see :func:`roles.evaluator.nearest.retrieved`); None in
    results of versions before it was looked up."""


@dataclass(frozen=True, eq=False)
class Seen:
    """What a person makes out in protected images, once all are moved back and recoloured the same way."""

    ssim: Tensor
    """Of each image with its plain one, float32 ``(N,)``."""
    shown: Tensor
    """The share of the details that set a plain image apart from others of its class that the protected one shows,
    float32 ``(N,)`` in [0, 1]: of their sum of squares over pixels."""
    down: int
    """How many pixels protected images lie below plain ones."""
    right: int


@dataclass(frozen=True, eq=False)
class AttackResult:
    """What the evaluation of one protection gives."""

    protected: Measured
    seen: Seen | None
    """None in results of versions before this was looked at."""
    estimates: dict[str, Measured]
    """By the name of the inverse network, or of the attack that trains none."""
    baselines: dict[str, Measured]
    """By name: ``mean_image``, the mean of all train images, and, where the evaluator has labels, ``class_mean``, their
    mean in the true class of the test image. They are the same for all who are attacked in a run."""
    curves: dict[str, list[dict[str, float]]]
    """By the name of the inverse network; rows as :func:`roles.evaluator.itn.train_itn` gives them."""
    pictures: dict[str, Tensor]
    """uint8 ``(pictures, 3, H, W)`` of the first test images: ``plain``, ``protected``, each of ``estimates``, and,
    where the evaluator has labels, ``class_mean``."""


def with_more(before: AttackResult, more: AttackResult) -> AttackResult:
    """Return what was found ``before``, with the estimates that only a later evaluation of the same protection has.

    Raises:
        ValueError: they are not of the same test images.
    """
    counts = [len(result.protected.psnr) for result in (before, more)]
    if counts[0] != counts[1] or not torch.equal(before.pictures["plain"], more.pictures["plain"]):
        raise ValueError(f"its {counts[1]} test images are not the {counts[0]} that earlier attacks were measured on")
    return replace(
        before,
        estimates=more.estimates | before.estimates,
        curves=more.curves | before.curves,
        pictures=more.pictures | before.pictures,
    )


Row = dict[str, str | int | float]
Findings = list[Row]
"""What one part of a study has found: rows of its table."""
