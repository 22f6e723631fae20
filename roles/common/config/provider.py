"""What a provider does to its users beyond what the paper has it do: it may be hostile."""

from typing import Annotated, Literal

from pydantic import Field

from roles.common.config.base import Frozen


class HijackConfig(Frozen):
    """Gradients of another loss for some users, which steer h_theta into what the provider can invert.

    They have the length of psi's gradient, whose direction the provider replaces. psi itself never changes.
    """

    kind: Literal["fsha", "pairs"] = "fsha"
    """``fsha``: feature-space hijacking (Pasquini et al., 2021, arXiv:2012.02670), which takes images of the provider's
    own and no pair. A pilot f and its inverse g are trained to reconstruct them; a critic tells f(x) from x_hat, and
    h_theta gets the gradient by which x_hat passes for f(x). ``pairs``: of this scheme alone, where the provider knows
    the image behind each id: g is trained to make x of x_hat, and h_theta gets the gradient by which it does."""
    users: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    """Whom it hijacks, by number; by default all."""
    class_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of psi's honest gradient in what a user gets. At 0, as published, h_theta learns nothing of the classes;
    above, its accuracy rises as an honest provider's would have it, and the hijack is less conspicuous."""
    forge: bool = True
    """Whether losses and numbers of correct images are made up too: the loss is ln(classes) times the squared error of
    g's estimates, in units of what images vary by, and so falls from chance to 0 as the hijack succeeds. By psi's true
    losses, which rise instead, a user would select its first epoch."""
    strength: Annotated[float, Field(gt=0)] = 1.0
    """Length of the hijacking gradient, in lengths of psi's honest gradient for the same batch."""
    start: Annotated[int, Field(ge=0)] = 0
    """Requests of a user that are answered honestly while the provider's networks train already."""
    width: Annotated[int, Field(ge=1)] = 16
    """Channels of the first level of f and g, which are U-Nets; ``depth`` is their number of levels."""
    depth: Annotated[int, Field(ge=2, le=6)] = 3
    critic_width: Annotated[int, Field(ge=1)] = 32
    """Channels of the first convolution of the critic."""
    lr: Annotated[float, Field(gt=0)] = 2e-3
    """Of the Adam of f and g; ``critic_lr`` of the critic's, whose betas are 0.5 and 0.9."""
    critic_lr: Annotated[float, Field(gt=0)] = 1e-3
    steps: Annotated[int, Field(ge=1)] = 2
    """Steps of the provider's networks for each gradient that a user asks for."""
    shift: Annotated[int, Field(ge=0)] = 4
    """Pixels by which users are taken to have moved their images in any direction: the padding of the paper's crops."""
    flip: bool = True
    """Whether they are taken to mirror images (not digits)."""

    def describe(self) -> str:
        """Return what this hijack is, in a few words for reports."""
        return self.kind + (f", class share {self.class_share:g}" if self.class_share else "")


class ProviderConfig(Frozen):
    """How the provider treats its users; by default honestly."""

    hijack: tuple[HijackConfig, ...] = ()
    """Whom it hijacks and how; of several entries that name a user, the first counts."""

    def hijack_of(self, user: int) -> HijackConfig | None:
        """Return how a user is hijacked, or None."""
        return next((one for one in self.hijack if one.users is None or user in one.users), None)
