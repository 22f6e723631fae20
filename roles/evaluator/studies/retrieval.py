"""Retrieval: is a protected image a hash, or can its plain image be picked from many (re-identification)?"""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from roles.common.exchange import Work
from roles.common.images import to_unit
from roles.common.transform import apply_network
from roles.evaluator.results import Findings, Row
from roles.evaluator.study import Lines, Reference, Study, StudyContext, values_by


class Retrieval(Study):
    """For every user, the rank of each test image among all candidates, by the distance to what an attacker has of it.

    The paper calls x_hat a "robust hash" (Section IV). Whoever holds candidates, as the provider holds X', need not
    reconstruct anything to tell which of them was sent.
    """

    kind: Literal["retrieval"]
    candidates: Annotated[int, Field(ge=2)] = 1000
    """Test images to pick from, each of which is also asked for once; fewer where there are fewer."""

    columns: ClassVar[Mapping[str, str]] = {
        "user": "whose protected images are looked up",
        "by": "what candidates are compared with: the plain image itself (control), the protected image, the estimate "
        "of an inverse network, or the protected image where candidates are put through the public h_theta as well",
        "candidates": "images to pick from",
        "at_1": "share of images whose nearest candidate is the right one; equally near ones count in part",
        "at_5": "share of images that are among the five nearest",
        "chance_at_1": "what guessing gives: 1 / candidates",
    }
    figure: ClassVar[Lines] = Lines(
        "user",
        "at_1",
        "by",
        "nearest candidate is right",
        share=True,
        references=(Reference("chance", ("chance_at_1",)),),
    )

    def work(self, part: str, users: Sequence[int], context: StudyContext) -> Work[Findings]:
        """See :class:`Study`."""
        user = int(part)
        plain, ids = context.test_images(self.candidates)
        protect = context.protection(user, (yield from context.theta_of(user)))
        protected = protect(plain, "test", ids)
        estimates = apply_network(context.inverse_network(user, protect), protected, context.attacker.compute)
        known = {
            "plain image": (plain, plain),
            "protected image": (protected, plain),
            "ITN estimate": (estimates, plain),
        }
        if not context.keyed(user):
            known["h_theta of candidates"] = (protected, protect(plain, "test", ids))
        same, count = _equal(plain), len(plain)
        rows: list[Row] = []
        for by, (queries, candidates) in known.items():
            at_1, at_5 = (hits(_distances(queries, candidates), same, k) for k in (1, 5))
            row: Row = {"user": user, "by": by, "candidates": count}
            rows.append(row | {"at_1": at_1, "at_5": at_5, "chance_at_1": 1 / count})
        return rows

    def conclusion(self, rows: Sequence[Row]) -> str:
        """See :class:`Study`."""
        found = values_by(rows, "by", "at_1")
        shares = ", ".join(f"{median(100 * v for v in values):.0f}% by the {by}" for by, values in found.items())
        return f"Of {rows[0]['candidates']} candidates, the nearest is the right one for (medians over users) {shares}."


def hits(distances: Tensor, same: Tensor, k: int) -> float:
    """Return the share of queries with a right candidate among the ``k`` nearest, in [0, 1].

    Candidates at equal distance stand in random order, and the expectation is returned: a constant estimate is a guess.

    Args:
        distances: float32 ``(N, C)`` of each query to each candidate.
        same: bool ``(N, C)``, which candidates are right; at least one for each query.

    >>> hits(torch.tensor([[0.0, 1.0], [1.0, 1.0]]), torch.eye(2, dtype=torch.bool), 1)
    0.75
    """
    own = distances.masked_fill(~same, torch.inf).amin(dim=1, keepdim=True)
    nearer = ((distances < own) & ~same).sum(dim=1)
    tied = ((distances == own) & ~same).sum(dim=1)
    # Of ``tied`` + 1 places that follow the nearer ones, each is as likely as another.
    return float(((k - nearer) / (tied + 1)).clamp(0, 1).mean())


def _distances(queries: Tensor, candidates: Tensor) -> Tensor:
    """Return the Euclidean distance of each query to each candidate, float32 ``(N, C)``."""
    a, b = (to_unit(images).flatten(1) for images in (queries, candidates))
    # By matrix products, equal images would not be at distance 0.
    distances: Tensor = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
    return distances


def _equal(images: Tensor) -> Tensor:
    """Return which images are equal to which, bool ``(N, N)``: any copy is as right as another."""
    number: Tensor = torch.unique(images.flatten(1), dim=0, return_inverse=True)[1]
    same: Tensor = number.unsqueeze(0) == number.unsqueeze(1)
    return same
