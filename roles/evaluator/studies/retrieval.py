"""Retrieval: is a protected image a hash, or can its plain image be picked from many (re-identification)?"""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from roles.common.exchange import Work
from roles.common.protection import without_noise
from roles.common.transform import apply_network
from roles.evaluator.nearest import distances, equal, hits
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
        "of an inverse network, or the protected image where candidates are put through the public h_theta as well "
        "(without the user's noise, which follows from a secret)",
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
            transform, _ = without_noise(protect)
            known["h_theta of candidates"] = (protected, transform(plain, "test", ids))
        same, count = equal(plain), len(plain)
        rows: list[Row] = []
        for by, (queries, candidates) in known.items():
            at_1, at_5 = (hits(distances(queries, candidates), same, k) for k in (1, 5))
            row: Row = {"user": user, "by": by, "candidates": count}
            rows.append(row | {"at_1": at_1, "at_5": at_5, "chance_at_1": 1 / count})
        return rows

    def conclusion(self, rows: Sequence[Row]) -> str:
        """See :class:`Study`."""
        found = values_by(rows, "by", "at_1")
        shares = ", ".join(f"{median(100 * v for v in values):.0f}% by the {by}" for by, values in found.items())
        return f"Of {rows[0]['candidates']} candidates, the nearest is the right one for (medians over users) {shares}."
