"""What attackers without a victim's h_theta have instead: other users, and a few of the victim's own pairs."""

from collections.abc import Sequence

import torch
from torch import Tensor

from roles.common.exchange import ImageIds, TrainingImages, Work, expect
from roles.common.seeds import generator
from roles.evaluator.study import StudyContext


def shuffled(users: Sequence[int], seed: int, *scope: str | int) -> list[int]:
    """Return users in the random order that the seed of attacks and ``scope``, a study's kind first, decide."""
    order = torch.randperm(len(users), generator=generator(seed, *scope)).tolist()
    return [users[place] for place in order]


def images_of(user: int, study: str, context: StudyContext) -> Work[Tensor]:
    """Return which images are a user's X', int64 ``(M,)``, in an order of the ``study``'s own; kept in the state."""
    key = f"images/{user}"
    if key not in context.state:
        ids = expect((yield TrainingImages(user)), ImageIds).train
        stream = generator(context.attacker.seed, study, "images", user)
        context.state[key] = ids[torch.randperm(len(ids), generator=stream)]
    return context.state[key]


def leaked_pairs(victim: int, count: int, study: str, context: StudyContext) -> Work[list[Tensor]]:
    """Return up to ``count`` pairs of a victim's X', protected and plain, uint8 ``(N, 3, H, W)`` each."""
    ids = (yield from images_of(victim, study, context))[:count]
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
