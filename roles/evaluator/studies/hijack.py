"""The hostile provider: what it makes of images that the users it has hijacked protect."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from roles.common.exchange import ExchangeError, Reconstruct, Reconstructions, Work, expect
from roles.evaluator.results import Findings, Row
from roles.evaluator.study import (
    HONEST,
    RECONSTRUCTION_COLUMNS,
    RECONSTRUCTION_REFERENCES,
    Lines,
    Study,
    StudyContext,
    values_by,
)

_BATCH = 500


class Hijack(Study):
    """For every user, what the provider reconstructs of protected test images with what training has given it.

    A provider that hijacks (``provider.hijack``) steers h_theta by the gradients that it sends into what an inverse
    network of its own undoes. Whom it has treated honestly it has no such network for. What an attacker has of either
    who trains against the published h_theta is in the table of the run.
    """

    kind: Literal["hijack"]
    images: Annotated[int, Field(ge=1)] = 500
    """Test images of every user."""

    columns: ClassVar[Mapping[str, str]] = {
        "user": "whose protected images are reconstructed",
        "hijacked": "how the provider has treated the user: honest, or the kind of its hijack (see `provider.hijack`)",
        **RECONSTRUCTION_COLUMNS,
    }
    figure: ClassVar[Lines] = Lines(
        "user", "ssim", "hijacked", "median SSIM of the estimates", references=RECONSTRUCTION_REFERENCES
    )

    seen_in_training: ClassVar[bool] = True
    """The provider keeps its networks with the run, but which run has any is known before it begins: the study is asked
    for with the hijack, and is not added to a finished run."""

    def work(self, part: str, users: Sequence[int], context: StudyContext) -> Work[Findings]:
        """See :class:`Study`."""
        user, state = int(part), context.state
        row: Row = {"user": user, "hijacked": context.hijacked(user)}
        if row["hijacked"] == HONEST:
            return [row]
        plain, ids = context.test_images(self.images)
        protected = yield from context.protected(user, "test", ids)
        known = state.get("estimates", protected[:0])
        while len(known) < len(protected):
            batch = protected[len(known) : len(known) + _BATCH]
            estimates = expect((yield Reconstruct(user, batch)), Reconstructions).images
            _check(estimates, batch)
            known = state["estimates"] = torch.cat([known, estimates])
        context.show(plain=plain, protected=protected, estimates=known)
        return [row | (yield from context.measured(known, protected, plain))]

    def conclusion(self, rows: Sequence[Row]) -> str:
        """See :class:`Study`."""
        hijacked = [row for row in rows if "ssim" in row]
        if not hijacked:
            return "No user was hijacked."
        gains = values_by(hijacked, "hijacked", "gain_ssim")
        found = ", ".join(
            f"{median(ssims):.2f} by {kind} ({median(gains[kind]):+.2f} over the better trivial guess)"
            for kind, ssims in values_by(hijacked, "hijacked", "ssim").items()
        )
        return (
            f"Of users that it has hijacked, the provider reconstructs images with SSIM (medians over users) {found}."
        )


def _check(estimates: Tensor, like: Tensor) -> None:
    if estimates.dtype != torch.uint8 or estimates.shape != like.shape:
        got = f"{estimates.dtype} {tuple(estimates.shape)}"
        raise ExchangeError(f"reconstructions are {got}, expected torch.uint8 {tuple(like.shape)}")
