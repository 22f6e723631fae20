"""How published protections are attacked and measured."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from roles.common.config.base import Frozen, matching
from roles.common.config.recipe import Recipe
from roles.common.config.user import FeaturesConfig
from roles.common.unet import Upsampling

_TAKEN_NAMES = ("plain", "protected", "class_mean", "mean_image")
_MOST_ITNS = 16
"""In one run: figures tell 40 series apart, but a column of boxes for each of 24 users is a page long by then."""


Users = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] | None
"""Some users of a run, by number; None: all."""


class ItnConfig(Frozen):
    """One inverse network and how it is trained."""

    name: Annotated[str, matching(r"[A-Za-z0-9_-]{1,100}", "1 to 100 letters, digits, '_' and '-'")]
    """What results call it; with the run's seed it decides initial weights, batches and augmentation."""
    training: Recipe
    width: Annotated[int, Field(ge=1, le=1024)] = 64
    """Channels of the U-Net's first level."""
    depth: Annotated[int, Field(ge=2, le=6)] = 5
    """Levels of the U-Net; images need sides divisible by 2**(depth - 1)."""
    upsampling: Upsampling = "nearest"
    """How the U-Net goes up: ``nearest`` neighbour and a 3x3 convolution, or a 2x2 ``transposed`` convolution."""
    loss: Literal["mse", "l1", "ssim", "perceptual"] = "mse"
    """What is trained for: ``mse`` or ``l1``, which answer doubt with a blur; ``ssim``, (1 - SSIM) + MSE;
    ``perceptual``, the MSE of ``features`` + MSE. By the latter two the epoch is selected as well, and else by MSE."""
    features: FeaturesConfig | None = None
    """What ``perceptual`` compares images by, such as ``{layer: relu2_2, weights: imagenet}``."""
    mirrors: Literal["pair", "image"] = "pair"
    """What augmentation mirrors where ``attack.flip`` lets it: ``pair``, a protected image together with its plain one,
    as the paper does, but not where a key protects; ``image``, the plain image, which is then protected. Few h_thetas
    treat left and right alike, so mirrored pairs are not what the network will be given. It takes an attacker who can
    protect images: pairs that were not of its own making are then not mirrored at all."""
    users: Users = None
    """Whose protections it attacks, beside the control; by default everybody's."""

    @model_validator(mode="after")
    def _features_for_perceptual(self) -> Self:
        if (self.loss == "perceptual") != (self.features is not None):
            wrong = "needs features, such as {layer: relu2_2, weights: imagenet}"
            raise ValueError(f"loss {self.loss} {wrong if self.features is None else 'has no use for features'}")
        return self


class AttackConfig(Frozen):
    """How a published protection is attacked and measured."""

    itns: Annotated[tuple[ItnConfig, ...], Field(min_length=1, max_length=_MOST_ITNS)] = (
        ItnConfig(name="paper", training=Recipe(epochs=200)),
        ItnConfig(
            name="strong",
            mirrors="image",
            training=Recipe(epochs=200, optimiser="adam", lr=1e-3, weight_decay=0, schedule="cosine"),
        ),
    )
    """The paper's inverse network, and one trained as today's practice would: the former may be under-trained, and
    mirrors pairs that h_theta would never give. At least one attacks everybody."""
    pairs: Annotated[int, Field(ge=2)] | None = None
    """Train images that the attacker makes pairs from; by default all."""
    labels: bool = True
    """Whether an evaluator is given labels: of train images for the mean image of each class, of test images for
    accuracies. Without, the only trivial guess is the mean of all images, and nothing has an accuracy."""
    test_images: Annotated[int, Field(ge=1)] | None = None
    """Test images that are protected, attacked and measured; by default all."""
    lpips: bool = False
    """Whether to measure LPIPS as well, which needs AlexNet's weights."""
    pictures: Annotated[int, Field(ge=1)] = 8
    """Test images to keep as pictures."""
    flip: bool = True
    """Whether augmentation mirrors images (not for digits); each inverse network says which."""
    blur_sigma: Annotated[float, Field(gt=0)] = 1.5
    """Standard deviation in pixels of the blur that whoever runs the positive control gives to be attacked."""

    @model_validator(mode="after")
    def _distinct_names(self) -> Self:
        names = [itn.name for itn in self.itns]
        if len({*_TAKEN_NAMES, *names}) < len(_TAKEN_NAMES) + len(names):
            taken = ", ".join(map(repr, _TAKEN_NAMES))
            raise ValueError(f"itns need names of their own, none of {taken}: they are {names}")
        if all(itn.users for itn in self.itns):
            raise ValueError("itns must have one that attacks everybody: leave out the users of one")
        return self
