"""How a user looks whether the gradients that it is sent are those of a classifier's loss."""

from typing import Annotated

from pydantic import Field

from roles.common.config.base import Frozen


class ChecksConfig(Frozen):
    """Further gradients that a user asks for, to catch a provider that hijacks h_theta: two scores each time.

    They cost three requests each time, which count as traffic and, but for the first, against a budget
    (``provider.defence.most_images``). Steps are taken with the gradients of training alone: of an honest provider,
    h_theta is the same with and without. One that hijacks trains its networks on checks as well, and sends others.
    """

    every: Annotated[int, Field(ge=1)] = 20
    """Steps from one check to the next; the first comes after the first step."""
    ids: Annotated[int, Field(ge=2)] = 32
    """Ids under which one protected image is asked about: more than there are classes, or that score is left out."""
