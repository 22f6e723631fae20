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
from roles.evaluator.attack import inverse_network
from roles.evaluator.study import RECONSTRUCTION_COLUMNS, Findings, HeatMap, Lab, Row, Study

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
    figure: ClassVar[HeatMap] = HeatMap("victim", "attacker", "gain_ssim", "SSIM gain over better trivial guess")

    def parts(self, users: Sequence[int], seed: int) -> list[str]:
        """See :class:`Study`: one attacker each."""
        return [str(user) for user in users]

    def work(self, part: str, users: Sequence[int], lab: Lab) -> Work[Findings]:
        """See :class:`Study`."""
        attacker, state = int(part), lab.state
        if "itn" not in groups_of(state):
            protect = lab.protection(attacker, (yield from lab.theta_of(attacker)))
            trained, _ = inverse_network(
                *(lab.itn, protect, lab.store, lab.attack, lab.compute, lab.seed, lab.progress),
                keyed=lab.keyed(attacker),
            )
            state.update(prefixed("itn", cpu_state(trained)))
        itn = UNet(lab.itn.width, lab.itn.depth)
        load_into(itn, groups_of(state)["itn"], f"inverse network against user {attacker}")
        itn = lab.compute.module(itn)
        plain, ids = lab.test_images(self.images)

        def against(victim: int) -> Work[Row]:
            protected = yield from lab.protected(victim, "test", ids)
            labels = yield from lab.predicted(victim, protected)
            lab.forget(victim)
            estimates = apply_network(itn, protected, lab.compute)
            return {"attacker": attacker, "victim": victim, **lab.measured(estimates, protected, plain, labels)}

        rows: list[Row] = []
        for victim in users:
            rows.append((yield from lab.row(str(victim), partial(against, victim))))
        return rows

    def conclusion(self, rows: Sequence[Row]) -> str:
        """See :class:`Study`."""
        own = [float(row["gain_ssim"]) for row in rows if row["attacker"] == row["victim"]]
        others = [float(row["gain_ssim"]) for row in rows if row["attacker"] != row["victim"]]
        broken = Counter(row["attacker"] for row in rows if float(row["gain_ssim"]) >= _BROKEN)
        attackers = {row["attacker"] for row in rows}
        text = (
            f"One ITN gains {_BROKEN} SSIM or more over the better trivial guess for "
            f"{median(broken[a] for a in attackers):g} of {len({row['victim'] for row in rows})} users "
            "(median over ITNs)"
        )
        if own:
            text += f"; {median(own):.3f} for the user that it was trained against"
        if others:
            text += f"; {median(others):.3f} for others"
        return f"{text} (medians)."
