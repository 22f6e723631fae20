"""Transfer: does an inverse network trained against one user's h_theta recover another's images?"""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from statistics import median
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from roles.common.exchange import Work
from roles.common.transform import apply_network
from roles.common.unet import UNet
from roles.common.weights import cpu_state, groups_of, load_into, prefixed
from roles.evaluator.results import Findings, Row
from roles.evaluator.study import RECONSTRUCTION_COLUMNS, HeatMap, Study, StudyContext

_BROKEN = 0.05
"""Gain in SSIM from which on a user counts as broken: below it, a protection may still be called hidden."""


class Transfer(Study):
    """All pairs of users: the last of ``attack.itns``, trained on one, applied to what the other protects."""

    kind: Literal["transfer"]
    images: Annotated[int, Field(ge=1)] = 500
    """Test images of every user."""

    columns: ClassVar[Mapping[str, str]] = {
        "attacker": "user whose h_theta the inverse network was trained against",
        "victim": "user whose protected images it is applied to",
        **RECONSTRUCTION_COLUMNS,
    }
    figure: ClassVar[HeatMap] = HeatMap("victim", "attacker", "gain_ssim", "SSIM gain over the trivial guess")

    def work(self, part: str, users: Sequence[int], context: StudyContext) -> Work[Findings]:
        """See :class:`Study`: a part is an attacker."""
        attacker, state, compute = int(part), context.state, context.attacker.compute
        if "itn" not in groups_of(state):
            protect = context.protection(attacker, (yield from context.theta_of(attacker)))
            state.update(prefixed("itn", cpu_state(context.inverse_network(attacker, protect))))
        itn = UNet(context.itn.width, context.itn.depth, context.itn.upsampling)
        load_into(itn, groups_of(state)["itn"], f"inverse network against user {attacker}")
        itn = compute.module(itn)
        plain, ids = context.test_images(self.images)

        def against(victim: int) -> Work[Row]:
            protected = yield from context.protected(victim, "test", ids)
            estimates = apply_network(itn, protected, compute)
            found = yield from context.measured(estimates, protected, plain)
            context.forget(victim)
            return {"attacker": attacker, "victim": victim, **found}

        rows: list[Row] = []
        for victim in users:
            rows.append((yield from context.row(str(victim), partial(against, victim))))
        return rows

    def conclusion(self, rows: Sequence[Row]) -> str:
        """See :class:`Study`."""
        own = [float(row["gain_ssim"]) for row in rows if row["attacker"] == row["victim"]]
        others = [float(row["gain_ssim"]) for row in rows if row["attacker"] != row["victim"]]
        broken = Counter(row["attacker"] for row in rows if float(row["gain_ssim"]) >= _BROKEN)
        attackers, victims = ({row[column] for row in rows} for column in ("attacker", "victim"))
        text = (
            f"One ITN gains {_BROKEN} SSIM or more over the better trivial guess for "
            f"{median(broken[attacker] for attacker in attackers):g} of {len(victims)} users (median over ITNs)"
        )
        if own:
            text += f"; {median(own):.3f} for the user that it was trained against"
        if others:
            text += f"; {median(others):.3f} for others"
        return f"{text} (medians)."
