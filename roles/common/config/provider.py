"""How a provider treats its users: on which terms it answers requests for gradients, and whether honestly."""

from typing import Annotated, Literal

from pydantic import Field

from roles.common.config.attack import Users
from roles.common.config.base import Frozen


class DefenceConfig(Frozen):
    """What a provider does to the gradients that it gives away, so that users learn less of psi and of labels.

    These are published terms: a user has to know them to keep to them. By default none is set, and gradients are exact.
    What is done to an image's gradient is done in the order of ``clip``, ``noise``, ``keep``, ``sign``, to the gradient
    of that image's own loss, so that it is the same whatever else the request holds.
    """

    clip: Annotated[float, Field(gt=0)] | None = None
    """Largest L2 norm of the gradient of one image's loss (arXiv:1607.00133, Algorithm 1); longer ones are scaled."""
    noise: Annotated[float, Field(ge=0)] = 0.0
    """Gaussian noise on each image's gradient: its expected L2 norm, as a share of ``clip`` or, without, of the norm of
    the gradient itself. It follows from the run's seed, the image and its id, and not from who asks or when: the same
    question has the same answer, so that repeats do not average it away. Questions that differ by a grey level do, at
    the price of as many images of a budget."""
    keep: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the entries of an image's gradient that are kept, the largest (top-k, arXiv:1704.05021)."""
    sign: bool = False
    """Whether only signs are given, times the mean magnitude of an image's entries (arXiv:1802.04434)."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the label that is spread over all classes in the loss that gradients are of (arXiv:1512.00567)."""
    least_batch: Annotated[int, Field(ge=1)] = 1
    """Fewest images of a request. A user's rest at the end of an epoch joins the batch before it where it is smaller.
    It aggregates nothing: each image has its own gradient in a request of any size."""
    most_images: Annotated[int, Field(ge=1)] | None = None
    """How many images a user may ask gradients for in all. It is counted by the number that a request names, and not by
    how many it says were asked about before. A request that comes again, as after an interruption, is answered as
    before and costs nothing."""
    withhold_losses: bool = False
    """Whether the loss and the number correct that come with a gradient are those against psi's own predictions and not
    against the labels, which they would tell: then all are correct, and what a training says of itself means little.
    Validation, which is on other images, is as without."""


class HijackConfig(Frozen):
    """Gradients of another loss for some users, which steer h_theta into what the provider can invert.

    Those of ``pairs`` have the length of psi's gradient, whose direction the provider replaces; those of ``fsha`` have
    a length of their own, which stays the same. ``defence`` is applied to either. psi itself never changes.
    """

    kind: Literal["fsha", "pairs"] = "fsha"
    """``fsha``: feature-space hijacking (Pasquini et al., 2021, arXiv:2012.02670), which takes images of the provider's
    own and no pair. A pilot f and its inverse g are trained to reconstruct them, with noise between f and g; a critic
    tells f(x) from x_hat, and h_theta gets the gradient by which x_hat passes for f(x). ``pairs``: of this scheme
    alone, where the provider knows the image behind each id: g is trained to make x of x_hat, and h_theta gets the
    gradient by which it does."""
    users: Users = None
    """Whom it hijacks, by number; by default all."""
    class_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of psi's honest gradient in what a user gets. At 0, as published, h_theta learns nothing of the classes;
    above, its accuracy rises as an honest provider's would have it, and the hijack is less conspicuous."""
    forge: bool = True
    """Whether losses and numbers of correct images are made up too: the loss is ln(classes) times the squared error of
    g's estimates, in units of what images vary by, and so falls from chance to 0 as the hijack succeeds. By psi's true
    losses, which rise instead, a user would select its first epoch."""
    width: Annotated[int, Field(ge=1, le=1024)] = 16
    """Channels of the first level of f and g, which are U-Nets; ``depth`` is their number of levels. The first
    convolution of the critic has twice as many."""
    depth: Annotated[int, Field(ge=2, le=6)] = 3
    lr: Annotated[float, Field(gt=0)] = 2e-3
    """Of g's Adam while a user trains; ``critic_lr`` of the critic's, whose betas are 0.5 and 0.9."""
    critic_lr: Annotated[float, Field(gt=0)] = 1e-3
    pretraining: Annotated[int, Field(ge=1, le=100_000)] = 300
    """Steps of f and g before the first answer (``fsha``), with batches of the request's size; f then stands still."""
    steps: Annotated[int, Field(ge=1, le=1000)] = 2
    """Steps of the provider's other networks for each gradient that a user asks for."""
    strength: Annotated[float, Field(gt=0)] = 0.1
    """Factor on the critic's gradient (``fsha``), whose length for each of N images is about 1/N by the penalty. Too
    much for a user's learning rate, and h_theta runs ahead of the critic; too little, and its own loss wins."""
    shift: Annotated[int, Field(ge=0, le=512)] = 4
    """Pixels by which users are taken to have moved their images in any direction: the padding of the paper's crops."""
    flip: bool = True
    """Whether they are taken to mirror images (not digits)."""

    def describe(self) -> str:
        """Return what this hijack is, in a few words for reports."""
        return self.kind + (f", class share {self.class_share:g}" if self.class_share else "")


class LimitsConfig(Frozen):
    """What one node may ask, so that none takes the provider from the others. Experiments stay far below."""

    images: Annotated[int, Field(ge=1, le=10**9)] = 20_000
    """Images of one request."""
    requests: Annotated[int, Field(ge=1, le=10**12)] = 10_000_000
    """Requests of one node in a run."""
    message_mb: Annotated[int, Field(ge=1, le=2000)] = 512
    """Megabytes of one message to the provider's endpoint."""


class ProviderConfig(Frozen):
    """How the provider treats its users: on which terms it answers, and whether honestly, as by default."""

    limits: LimitsConfig = LimitsConfig()
    defence: DefenceConfig = DefenceConfig()
    hijack: tuple[HijackConfig, ...] = ()
    """Whom it hijacks and how; of several entries that name a user, the first counts."""

    def hijack_of(self, user: int) -> HijackConfig | None:
        """Return how a user is hijacked, or None, as for whoever is none of the run's users (a negative number)."""
        if user < 0:
            return None
        return next((one for one in self.hijack if one.users is None or user in one.users), None)
