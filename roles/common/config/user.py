"""What a user may choose: how it protects its images, and how it trains what protects them."""

from pathlib import Path
from typing import Annotated, Literal, Self, TypeGuard

from pydantic import Field, model_validator

from roles.common.config.base import Frozen
from roles.common.config.checks import ChecksConfig
from roles.common.config.recipe import Recipe
from roles.common.seeds import derived_seed
from roles.common.unet import Upsampling

FeatureLayer = Literal["relu1_2", "relu2_2"]


class FeaturesConfig(Frozen):
    """phi: where VGG16 (without batch norm) is cut, and whose weights it has.

    alpha has no meaning without both: always name them beside it.
    """

    layer: FeatureLayer = "relu2_2"
    """``relu1_2`` is "the second ReLU" as the paper says; ``relu2_2`` is where its authors' code cuts."""
    weights: str = "random"
    """``imagenet`` (torchvision's, downloaded once), a local safetensors file with a state dict of VGG16 or of its
    ``features``, or ``random``: a fixed random front that needs no file."""

    pool: Annotated[int, Field(ge=1)] = 1
    """Side of the squares of the map whose means are compared; 1, each value for itself, is the paper's. L_feat is
    content with an image that is moved by a pixel, of which a person sees all. Means over larger squares hardly change
    by a move, so that something else has to."""

    def map_side(self, side: int) -> int:
        """Return the side of the map of images of ``side`` pixels, before its means are taken."""
        return side if self.layer == "relu1_2" else side // 2

    def describe(self) -> str:
        """Return what this phi is, in a few words for reports."""
        kinds = {"imagenet": "VGG16, ImageNet weights", "random": "VGG16 front with fixed random weights"}
        pooled = f", means over {self.pool}x{self.pool}" if self.pool > 1 else ""
        return f"{self.layer} of {kinds.get(self.weights, f'VGG16, weights of {Path(self.weights).name}')}{pooled}"


class TanakaConfig(Frozen):
    """Tanaka's learnable image encryption [16]: one key for every block of every image."""

    kind: Literal["tanaka"]


class BlockConfig(Frozen):
    """Block-wise encryption for vision transformers (arXiv:2308.07612): one key for every image.

    Blocks of 4x4 pixels change places, and the values in all of them are shuffled and negated alike. A classifier
    ``vit`` reads such images as well as plain ones; to a convolutional one, blocks that were neighbours are lost.
    """

    kind: Literal["block"]


class PixelConfig(Frozen):
    """Pixel-based encryption [17], [18]."""

    kind: Literal["pixel"]
    key: Literal["one", "per_image"] = "one"
    """Whether all images share a key or each has one of its own. The paper does not say which it used."""
    shuffle: bool = False
    """Whether the key also orders the three channels of every pixel."""


class GanConfig(Frozen):
    """The GAN-based transformation [20]: images are to look like encrypted ones, and psi is to recognise them.

    What is published is the last epoch's network.
    """

    kind: Literal["gan"]
    adversarial: Annotated[float, Field(ge=0)] = 0.1
    """Weight of the discriminator's verdict: binary cross entropy."""
    perceptual: Annotated[float, Field(ge=0)] = 0.001
    """Weight of the mean squared distance of features (phi) to those of the encrypted image."""
    pixel: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the mean squared distance of pixels to those of the encrypted image. Over all keys their mean is grey,
    so this term asks for grey; what asks for texture is the discriminator."""
    lr: Annotated[float, Field(gt=0)] = 2e-4
    """Of the discriminator's Adam; its betas are 0.5 and 0.999."""


class AdversarialConfig(Frozen):
    """h_theta trained against an inverse network g of the user's own, in place of L_feat: what g cannot undo is left.

    The loss is L_class + ``weight`` * max(0, ``cap`` - MSE(g(x_hat), x)). The last epoch's network is published.
    """

    kind: Literal["adversarial"]
    weight: Annotated[float, Field(gt=0)] = 40.0
    """How much a reconstruction that is too good counts beside L_class."""
    cap: Annotated[float, Field(gt=0)] = 0.045
    """Mean squared error of g, of values in [0, 1], from which on h_theta is asked for no more: about that of the mean
    image of a class, which is 0.05 on CIFAR-10 and 0.025 on digits. What is asked for beyond costs accuracy alone."""
    steps: Annotated[int, Field(ge=1)] = 1
    """Steps of g for each step of h_theta."""
    lr: Annotated[float, Field(gt=0)] = 3e-3
    """Of g's Adam."""
    networks: Annotated[int, Field(ge=1, le=8)] = 1
    """How many networks g there are, each trained at every step: the one that errs least counts."""
    restart: Annotated[int, Field(ge=1)] | None = None
    """After so many steps of h_theta the networks, in turn, start from new weights, so that it faces no old
    acquaintance alone; by default they never do."""


class EntropyConfig(Frozen):
    """h_theta trained so that protected images of a cluster are alike: the cluster is told, and little else.

    The loss is L_class + ``weight`` * (the mean over all values of half the logarithm of x_hat's variance within its
    cluster), against noise, without which every variance above 0 tells all. Users have no labels: clusters are of
    protected images, and follow them. The last epoch's network is published.
    """

    kind: Literal["entropy"]
    weight: Annotated[float, Field(gt=0)] = 10.0
    """How much likeness within clusters counts beside L_class."""
    clusters: Annotated[int, Field(ge=2)] = 10
    """How many there are: as many as classes say the least that lets psi tell them apart."""
    warmup: Annotated[int, Field(ge=0)] = 100
    """Steps before clusters are drawn; over twice as many more, ``weight`` rises to its value."""


class NetworkConfig(Frozen):
    """The paper's protection: a transformation network h_theta of the user's own, trained against the frozen psi."""

    kind: Literal["network"] = "network"


class PlainConfig(Frozen):
    """No protection: plain images, classified by psi."""

    kind: Literal["plain"]


Protection = Annotated[
    NetworkConfig
    | AdversarialConfig
    | EntropyConfig
    | GanConfig
    | TanakaConfig
    | BlockConfig
    | PixelConfig
    | PlainConfig,
    Field(discriminator="kind"),
]


def has_key(protection: Protection | None) -> TypeGuard[TanakaConfig | BlockConfig | PixelConfig]:
    """Return whether a key protects, so that psi cannot read the images (None: no protection of a user's)."""
    return isinstance(protection, TanakaConfig | BlockConfig | PixelConfig)


class UserConfig(Frozen):
    """A user's protection and, where that is a network, h_theta and how it is trained.

    With ``adversarial``, ``entropy`` and ``gan`` the network is the same and alpha without effect. With a key
    (``tanaka``, ``block``, ``pixel``) the provider trains a classifier for this user, by its own recipe
    (``classifier.training``): of what is below, augmentation alone then means something.
    """

    protection: Protection = NetworkConfig()
    alpha: Annotated[float, Field(ge=0)] = 0.005
    """Weight of L_feat in L_trans (Eq. 4); 0 trains for accuracy alone and protects nothing."""
    width: Annotated[int, Field(ge=1, le=1024)] = 64
    """Channels of the U-Net's first level."""
    depth: Annotated[int, Field(ge=2, le=6)] = 5
    """Levels of the U-Net; images need sides divisible by 2**(depth - 1)."""
    upsampling: Upsampling = "nearest"
    """How the U-Net goes up: ``nearest`` neighbour and a 3x3 convolution, or a 2x2 ``transposed`` convolution."""
    noise: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Standard deviation of Gaussian noise on what a network makes of an image, of values in [0, 1], which are then
    clipped. An image's noise follows from its place in the data set and a secret of the user's that is not published:
    it is the same however often the image is protected, so that repeats do not average it away. h_theta is trained
    with noise drawn anew."""
    dfil: Annotated[float, Field(gt=0)] | None = None
    """In place of ``noise``, how much a value of a protected image may tell of one of the plain image: the diagonal
    Fisher information leakage, ||dh/dx||_F^2 / (d sigma^2) for d values (arXiv:2305.04146). After each epoch noise is
    set to the standard deviation sigma that gives it; it is published with theta. No unbiased estimate of x has a mean
    squared error below its inverse: below 1, none comes nearer than noise of the size of the whole range."""
    features: FeaturesConfig = FeaturesConfig()
    training: Recipe = Recipe(epochs=200)
    crop_padding: Annotated[int, Field(ge=0, le=512)] = 4
    flip: bool = True
    checks: ChecksConfig | None = None
    """Whether and how often the user looks for a provider that hijacks h_theta."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    """Of initial weights, order, augmentation, noise and key, together with the run's seed: users of one number draw
    the same. By default every user draws its own."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.dfil is not None and self.noise:
            raise ValueError(f"dfil sets the noise itself: leave noise out, got noise {self.noise:g}")
        if isinstance(self.protection, EntropyConfig) and not self.is_noisy:
            raise ValueError(
                "protection entropy needs noise, such as noise: 0.3, or dfil: what is alike tells all without"
            )
        return self

    @property
    def is_noisy(self) -> bool:
        """Whether what a network makes of an image gets noise."""
        return self.noise > 0 or self.dfil is not None

    def own_seed(self, user: int, seed: int, *scope: str) -> int:
        """Return the seed of user number ``user``'s random stream for ``scope``, in a run with ``seed``."""
        whose: tuple[str, int] = ("user", user) if self.seed is None else ("users of seed", self.seed)
        return derived_seed(seed, *whose, *scope)

    @property
    def trains_network(self) -> bool:
        """Whether the protection is a network, trained against psi and published."""
        return isinstance(self.protection, NetworkConfig | AdversarialConfig | EntropyConfig | GanConfig)

    @property
    def needs_classifier(self) -> bool:
        """Whether psi cannot read the protected images, and the provider trains a classifier for this user."""
        return has_key(self.protection)
