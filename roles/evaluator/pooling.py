"""What attackers without a victim's h_theta have instead: other users, and a few of the victim's own pairs."""

from abc import ABC
from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from roles.common.config.attack import Users
from roles.common.exchange import Work
from roles.common.seeds import generator
from roles.evaluator.study import Study, StudyContext


class AgainstVictims(Study, ABC):
    """A study in which users, or what they have published, are turned against a few of them."""

    users: Users = None
    """Who may be attacked; by default all who have published. The attackers are among all of these, named or not."""
    victims: Annotated[int, Field(ge=1)] = 2
    """How many users are attacked, drawn by the run's seed."""
    images: Annotated[int, Field(ge=1)] = 500
    """Test images of every victim."""

    def among(self, published: Sequence[int]) -> list[int]:
        """See :class:`Study`: whoever is attacked, it is about all who have published."""
        return list(published)

    def drawn(self, published: Sequence[int], seed: int, kind: str) -> list[int]:
        """Return the victims among those who have ``published``, at most :attr:`victims`, in random order."""
        return shuffled(super().among(published), seed, kind, "victims")[: self.victims]


def shuffled(users: Sequence[int], seed: int, *scope: str | int) -> list[int]:
    """Return users in the random order that the seed of attacks and ``scope``, a study's kind first, decide."""
    order = torch.randperm(len(users), generator=generator(seed, *scope)).tolist()
    return [users[place] for place in order]


def shuffled_ids(user: int, study: str, context: StudyContext) -> Work[Tensor]:
    """Return which train images are a user's X', int64 ``(M,)``, in a random order of the ``study``'s own."""
    ids = yield from context.ids_of(user)
    order = torch.randperm(len(ids), generator=generator(context.attacker.seed, study, "images", user))
    return ids[order]


def leaked_pairs(victim: int, count: int, study: str, context: StudyContext) -> Work[list[Tensor]]:
    """Return up to ``count`` pairs of a victim's X', protected and plain, uint8 ``(N, 3, H, W)`` each."""
    ids = (yield from shuffled_ids(victim, study, context))[:count]
    return [(yield from context.protected(victim, "train", ids)), context.attacker.store.images("train")[ids]]


def split_off(pairs: Sequence[Tensor], held_out: int) -> tuple[list[Tensor], list[Tensor]]:
    """Return all pairs but the last ``held_out``, and those: to train on, and to select the epoch by."""
    count = len(pairs[0]) - held_out
    return [images[:count] for images in pairs], [images[count:] for images in pairs]


def repeated(pairs: Sequence[Tensor], count: int) -> list[Tensor]:
    """Return ``count`` pairs, a few taken again and again: so that their number does not decide how long is trained.

    >>> repeated([torch.tensor([5, 6, 7])], 5)
    [tensor([5, 6, 7, 5, 6])]
    """
    places = torch.arange(count) % len(pairs[0])
    return [images[places] for images in pairs]
