"""A hostile user: it asks for gradients of any image under any id, as often as the provider's terms allow."""

from abc import ABC
from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from roles.common.exchange import LossGradient, Work, checked_gradient, guest
from roles.common.images import to_unit
from roles.common.seeds import derived_seed
from roles.evaluator.study import Study, StudyContext


class ByThieves(Study, ABC):
    """A study in which users turn hostile, each by itself."""

    thieves: Annotated[int, Field(ge=1)] = 1
    """How many users try it, each by itself: the first."""

    def parts(self, users: Sequence[int], seed: int) -> list[str]:
        """See :class:`Study`: a user each."""
        return [str(user) for user in users[: self.thieves]]


class HostileUser:
    """One who knows X' of a user, plain images and ids, and asks as a :func:`guest`, with a budget of its own.

    It knows the provider's terms, and asks for nothing that these do not grant: nobody refuses it anything.

    Args:
        name: of its account: letters, digits and slashes. What it has been told is in the state under this name.
    """

    def __init__(self, context: StudyContext, name: str) -> None:
        self._context, self.terms, self._name = context, context.terms, name
        self._account = guest(derived_seed(0, "hostile", name) % 2**31)

    def request_size(self, batch: int) -> int:
        """Return how many images a request of ``batch`` has, where the terms may ask for more."""
        return max(batch, self.terms.least_batch)

    def affordable(self, images: int, batch: int) -> int:
        """Return how many of ``images`` its budget allows it to ask about, in requests of ``batch``."""
        size, most = self.request_size(batch), self.terms.most_images
        if most is None:
            return images
        whole, rest = divmod(min(images, most), size)
        # A short request is filled up, and what fills it is counted as well.
        fits = whole * size + max(rest, self.terms.least_batch) <= most
        return whole * size + rest if fits else whole * size

    def gradients(self, key: str, images: Tensor, ids: Tensor, batch: int) -> Work[tuple[Tensor, Tensor]]:
        """Ask for the gradients of images under ids, ``batch`` or as many as the terms ask for in a request.

        Args:
            key: where in the state the answers are, under the name of this user.
            images: uint8 ``(N, 3, H, W)``.
            ids: int64 ``(N,)``.

        Returns:
            The gradient of each image's own loss, float32 ``(N, 3, H, W)``, on the CPU; and for each image how many
            were correct in the request that it was in, int64 ``(N,)``.

        Raises:
            ExchangeError: an answer is unusable.
        """
        state, size = self._context.state, self.request_size(batch)
        # An entry for every request: one that grew would be copied whole each time.
        found: dict[str, list[Tensor]] = {"gradients": [], "correct": []}
        for done in range(0, len(ids), size):
            places = torch.arange(done, min(done + size, len(ids)))
            names = {part: f"{self._name}/{key}/{part}/{done}" for part in found}
            if names["gradients"] not in state:
                # A short rest is filled up with images that were asked before.
                filled = places if len(places) >= self.terms.least_batch else _filled(places, self.terms.least_batch)
                asked = to_unit(images[filled])
                answer = checked_gradient((yield LossGradient(asked, ids[filled], self._account, done)), asked)
                state[names["gradients"]] = answer.gradient[: len(places)].cpu() * len(filled)
                state[names["correct"]] = torch.full((len(places),), int(answer.correct))
            for part, name in names.items():
                found[part].append(state[name])
        return torch.cat(found["gradients"]), torch.cat(found["correct"])

    def classified(self, key: str, images: Tensor) -> Work[Tensor]:
        """Ask the service for labels of uint8 ``(N, 3, H, W)``, int64 ``(N,)``, kept in the state; N may be 0."""
        return (yield from self._context.attacker.classify(images, f"{self._name}/{key}", self._context.state))


def images_of(user: int, context: StudyContext) -> Work[tuple[Tensor, Tensor]]:
    """Return a user's X', plain, uint8 ``(M, 3, H, W)``, and its ids, int64 ``(M,)``, as that user knows both."""
    ids = yield from context.ids_of(user)
    return context.attacker.store.images("train")[ids], ids


def _filled(places: Tensor, count: int) -> Tensor:
    """Return ``count`` places, which begin with ``places`` and go on with these again."""
    return places[torch.arange(count) % len(places)]
