"""What a provider grants its users: the terms on which it answers requests for gradients."""

from typing import Annotated

from pydantic import Field

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
    """How many images a user may ask gradients for in all, whatever it says of itself. A request that comes again, as
    after an interruption, is answered as before and costs nothing."""
    withhold_losses: bool = False
    """Whether the loss and the number correct that come with a gradient are those against psi's own predictions and not
    against the labels, which they would tell: then all are correct, and what a training says of itself means little.
    Validation, which is on other images, is as without."""


class ProviderConfig(Frozen):
    """What a provider grants its users."""

    defence: DefenceConfig = DefenceConfig()
