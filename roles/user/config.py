"""What a user may choose: how it protects its images, and how it trains what protects them."""

from typing import Annotated, Literal

from pydantic import Field

from roles.common.recipes import Frozen, Recipe
from roles.common.seeds import derived_seed
from roles.user.conventional import PixelConfig, TanakaConfig
from roles.user.features import FeaturesConfig
from roles.user.gan import GanConfig


class NetworkConfig(Frozen):
    """The paper's protection: a transformation network h_theta of the user's own, trained against the frozen psi."""

    kind: Literal["network"] = "network"


class PlainConfig(Frozen):
    """No protection: plain images, classified by psi."""

    kind: Literal["plain"]


Protection = Annotated[
    NetworkConfig | PlainConfig | TanakaConfig | PixelConfig | GanConfig, Field(discriminator="kind")
]


class UserConfig(Frozen):
    """A user's protection and, where that is a network, h_theta and how it is trained.

    With ``gan`` the network is the same and alpha without effect. With a key (``tanaka``, ``pixel``) the provider
    trains a classifier for this user, by its own recipe (``classifier.training``): of what is below, augmentation alone
    then means something.
    """

    protection: Protection = NetworkConfig()
    alpha: Annotated[float, Field(ge=0)] = 0.005
    """Weight of L_feat in L_trans (Eq. 4); 0 trains for accuracy alone and protects nothing."""
    width: Annotated[int, Field(ge=1)] = 64
    """Channels of the U-Net's first level."""
    depth: Annotated[int, Field(ge=2, le=6)] = 5
    """Levels of the U-Net; images need sides divisible by 2**(depth - 1)."""
    features: FeaturesConfig = FeaturesConfig()
    training: Recipe = Recipe(epochs=200)
    crop_padding: Annotated[int, Field(ge=0)] = 4
    flip: bool = True
    seed: Annotated[int, Field(ge=0)] | None = None
    """Of initial weights, order, augmentation and key, together with the run's seed: users of one number draw the same.
    By default every user draws its own."""

    def own_seed(self, user: int, seed: int, *scope: str) -> int:
        """Return the seed of one of this user's random streams.

        Args:
            user: the user's number.
            seed: the run's seed.
            scope: what the stream is for.
        """
        whose: tuple[str, int] = ("user", user) if self.seed is None else ("users of seed", self.seed)
        return derived_seed(seed, *whose, *scope)

    @property
    def trains_network(self) -> bool:
        """Whether the protection is a network, trained against psi and published."""
        return isinstance(self.protection, NetworkConfig | GanConfig)

    @property
    def needs_classifier(self) -> bool:
        """Whether psi cannot read the protected images, and the provider trains a classifier for this user."""
        return isinstance(self.protection, TanakaConfig | PixelConfig)
