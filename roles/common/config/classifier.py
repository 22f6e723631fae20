"""psi: its architecture, its training, its seed."""

from typing import Annotated, Literal

from pydantic import Field

from roles.common.config.base import Frozen
from roles.common.config.recipe import Recipe

ClassifierName = Literal["resnet20", "vgg16_bn", "vit"]
"""The paper's two, and a small vision transformer with patches of 4x4 pixels, for which Adam is meant."""


class ClassifierConfig(Frozen):
    """psi: its architecture, its training, its seed."""

    name: ClassifierName = "resnet20"
    training: Recipe = Recipe(epochs=200)
    crop_padding: Annotated[int, Field(ge=0, le=512)] = 4
    """Black pixels around an image before the random crop of augmentation; 0 turns the crop off."""
    flip: bool = True
    """Whether augmentation mirrors images (not for digits)."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Apart from the run's seed, so that psi is trained once and shared by runs with other seeds."""
