"""Inversion: the plain image searched for by gradient descent through the public h_theta, without any training."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from roles.common.exchange import Work
from roles.common.images import to_bitmap, to_unit
from roles.evaluator.attacker import Attacker
from roles.evaluator.results import Findings, Row
from roles.evaluator.study import RECONSTRUCTION_COLUMNS, RECONSTRUCTION_REFERENCES, Lines, Study, StudyContext

_EDGE = 0.02
"""How far from 0 and 1 the search starts, where the sigmoid still has a slope."""


class Inversion(Study):
    """For every user with a network, test images as the minimum of ||h_theta(x) - x_hat||^2 + smoothness * TV(x).

    Adam on the logits of x, from the mean image, with h_theta in eval mode (Mahendran and Vedaldi, 2015, for features).
    It needs no pair and trains nothing: all that it takes of the attacker's train images is their mean. A user whose
    protection is a key has no part in it.
    """

    kind: Literal["inversion"]
    images: Annotated[int, Field(ge=1)] = 64
    """Test images of every user."""
    steps: Annotated[int, Field(ge=1)] = 300
    lr: Annotated[float, Field(gt=0)] = 0.1
    smoothness: Annotated[float, Field(ge=0)] = 1e-3
    """Weight of the total variation, the mean absolute difference of neighbouring pixels."""

    columns: ClassVar[Mapping[str, str]] = {
        "user": "whose h_theta and protected images are used",
        "distance": "mean squared distance of h_theta(estimate) to x_hat that is left, in [0, 1]",
        **RECONSTRUCTION_COLUMNS,
    }
    figure: ClassVar[Lines] = Lines(
        "user", "ssim", "", "median SSIM of the estimates", references=RECONSTRUCTION_REFERENCES
    )

    def work(self, part: str, users: Sequence[int], context: StudyContext) -> Work[Findings]:
        """See :class:`Study`."""
        user, state = int(part), context.state
        plain, ids = context.test_images(self.images)
        if "estimates" not in state:
            theta = yield from context.theta_of(user)
            h = context.network(user, theta)
            if h is None:
                return []
            state["protected"] = context.protection(user, theta)(plain, "test", ids)
            state["estimates"], state["distance"] = self._search(h, state["protected"], context.attacker)
        found = yield from context.measured(state["estimates"], state["protected"], plain)
        return [{"user": user, "distance": float(state["distance"]), **found}]

    def _search(self, h: nn.Module, protected: Tensor, attacker: Attacker) -> tuple[Tensor, Tensor]:
        """Return the estimates, uint8, and the distance that is left, float32 ``()``."""
        compute = attacker.compute
        target = compute.batch(to_unit(protected))
        start = attacker.mean_image.clamp(_EDGE, 1 - _EDGE).logit().expand_as(protected)
        logits = compute.batch(start).clone().requires_grad_()
        optimiser = torch.optim.Adam([logits], lr=self.lr)
        h.eval().requires_grad_(False)
        distance = torch.zeros(())
        for step in range(self.steps):
            x = logits.sigmoid()
            with compute.autocast():
                distance = F.mse_loss(h(x), target)
            # Sums over the batch: how many images are searched for at once must not change the steps of one.
            loss = len(protected) * (distance + self.smoothness * _variation(x))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            attacker.progress(step + 1, self.steps, distance.item())
        return to_bitmap(logits.detach().sigmoid()).cpu().contiguous(), distance.detach().cpu()

    def conclusion(self, rows: Sequence[Row]) -> str:
        """See :class:`Study`."""
        ssims, gains = ([float(row[name]) for row in rows] for name in ("ssim", "gain_ssim"))
        return (
            f"Descent through h_theta reaches SSIM {median(ssims):.2f} in the median over {len(rows)} users, "
            f"{median(gains):+.2f} over the better trivial guess, without a single pair."
        )


def _variation(x: Tensor) -> Tensor:
    return (x.diff(dim=2).abs().mean() + x.diff(dim=3).abs().mean()) / 2
