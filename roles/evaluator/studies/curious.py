"""The curious provider: it attacks with the pairs that training itself has shown it."""

from collections.abc import Mapping, Sequence
from itertools import product
from statistics import median
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from roles.common.augment import crop
from roles.common.exchange import Memories, Recall, Work, expect
from roles.common.seeds import generator
from roles.common.transform import apply_network
from roles.evaluator.itn import Pairs
from roles.evaluator.results import Findings, Row
from roles.evaluator.study import RECONSTRUCTION_COLUMNS, RECONSTRUCTION_REFERENCES, Lines, Study, StudyContext

_FEWEST_PAIRS = 18
"""A ninth to select the epoch by, as all attackers do, would be one pair of fewer."""


class Curious(Study):
    """For every user, an inverse network trained on the last (x_hat, x) that the provider was asked about.

    The provider owns X' and is told the id of every image (Section III-A), so training hands it the pairs of the ITN
    attack before anything is published. They are what it saw: x_hat of an augmented x, while h_theta still changed. By
    how much x was moved it is not told. It trains on x as it is, and on x :func:`aligned`, and takes the network whose
    loss on pairs of its kind is the lower one: those of a ninth of the images, at least one, which it holds out.

    A user that looks for a hijack (``user.checks``) asks for gradients under ids that are not those of its images. The
    provider remembers them like any others: some of its pairs are then false.
    """

    kind: Literal["curious"]
    pairs: Annotated[int, Field(ge=_FEWEST_PAIRS)] = 4000
    """Protected images that the provider keeps of every user."""
    shift: Annotated[int, Field(ge=0)] = 4
    """Pixels by which the provider looks for x in every direction: the padding of the paper's crops; 0: it does not."""
    images: Annotated[int, Field(ge=1)] = 500
    """Test images of every user."""

    columns: ClassVar[Mapping[str, str]] = {
        "user": "who was watched in training",
        "pairs": "pairs that the provider had (0: the user never asked for a gradient); with fewer than 18 there is no "
        "attack",
        "aligned": "1: the network was trained on x moved as x_hat shows it, 0: on x as it is",
        **RECONSTRUCTION_COLUMNS,
    }
    figure: ClassVar[Lines] = Lines(
        "user", "ssim", "", "median SSIM of the estimates", references=RECONSTRUCTION_REFERENCES
    )
    seen_in_training: ClassVar[bool] = True

    def work(self, part: str, users: Sequence[int], context: StudyContext) -> Work[Findings]:
        """See :class:`Study`."""
        user, state = int(part), context.state
        plain, ids = context.test_images(self.images)
        protected = yield from context.protected(user, "test", ids)
        if "pairs" not in state:
            seen = expect((yield Recall(user)), Memories)
            state["pairs"] = torch.tensor(len(seen.ids))
            if len(seen.ids) >= _FEWEST_PAIRS:
                state["aligned"], state["estimates"] = self._attack(user, seen, protected, context)
        row: Row = {"user": user, "pairs": int(state["pairs"])}
        if "estimates" not in state:
            return [row]
        found = yield from context.measured(state["estimates"], protected, plain)
        return [row | {"aligned": int(state["aligned"]), **found}]

    def _attack(self, user: int, seen: Memories, protected: Tensor, context: StudyContext) -> tuple[Tensor, Tensor]:
        """Return whether the better network was trained on aligned images, int64 ``()``, and what it makes of x_hat."""
        attacker = context.attacker
        # Of images, not of pairs: a memory that is larger than X' holds an image several times, and both the epoch and
        # the alignment would be chosen on targets learned by heart.
        distinct: Tensor = torch.unique(seen.ids)
        order = torch.randperm(len(distinct), generator=generator(attacker.seed, "curious", user))
        held_out = torch.isin(seen.ids, distinct[order[: max(1, len(order) // 9)]])
        x = attacker.store.images("train")[seen.ids]
        known = [x, aligned(seen.protected, x, self.shift, flip=attacker.config.flip)] if self.shift else [x]
        own, other = seen.protected[~held_out], seen.protected[held_out]
        tried = [context.fit(Pairs(own, x[~held_out], other, x[held_out]), user) for x in known]
        losses = [min(row["validation_loss"] for row in curve) for _, curve in tried]
        best = losses.index(min(losses))
        return torch.tensor(best), apply_network(tried[best][0], protected, attacker.compute)

    def conclusion(self, rows: Sequence[Row]) -> str:
        """See :class:`Study`."""
        gains = [float(row["gain_ssim"]) for row in rows if "gain_ssim" in row]
        if not gains:
            return "No user asked for a gradient: the provider has seen no pair."
        return (
            f"With pairs from training alone, the provider gains {median(gains):.2f} SSIM over the better trivial "
            f"guess in the median over {len(gains)} users."
        )


def aligned(protected: Tensor, plain: Tensor, shift: int, *, flip: bool) -> Tensor:
    """Return each plain image cropped, and mirrored, as its edges fit those of the protected one best.

    A network that answers for every place from what is around it (h_theta has skips and small kernels) leaves edges
    where they are, whatever it does to colours. Fit is the correlation of the gradients' magnitudes.

    Args:
        protected: uint8 ``(N, 3, H, W)``, of images that were cropped and perhaps mirrored.
        plain: the same images before that, uint8 ``(N, 3, H, W)``.
        shift: pixels, the largest move in any direction; what comes in from outside is black.
        flip: whether they may have been mirrored.
    """
    count, _, height, width = plain.shape
    seen = _unit(_edges(protected))
    best, mirrored = torch.full((count,), -torch.inf), torch.zeros(count, dtype=torch.bool)
    shifts = torch.zeros(2, count, dtype=torch.int64)
    for mirror in (False, True) if flip else (False,):
        edges = _edges(F.pad(plain.flip(3) if mirror else plain, (shift, shift, shift, shift)))
        for row, column in product(range(2 * shift + 1), repeat=2):
            fit = (seen * _unit(edges[:, row : row + height - 1, column : column + width - 1])).sum(1)
            better = fit > best
            best[better], mirrored[better] = fit[better], mirror
            shifts[:, better] = torch.tensor([[row], [column]])
    return crop(torch.where(mirrored.view(-1, 1, 1, 1), plain.flip(3), plain), shift, shifts)


def _edges(images: Tensor) -> Tensor:
    """Return the magnitudes of the gradients between neighbours, float32 ``(N, H - 1, W - 1)``."""
    grey = images.float().mean(1)
    corner = grey[:, :-1, :-1]
    return torch.hypot(grey[:, 1:, :-1] - corner, grey[:, :-1, 1:] - corner)


def _unit(maps: Tensor) -> Tensor:
    """Return maps as vectors of mean 0 and length 1: products of two are correlations."""
    flat = maps.flatten(1)
    return F.normalize(flat - flat.mean(1, keepdim=True), dim=1)
