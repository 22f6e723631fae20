"""The ladder: the same attack at growing budgets, until more of it gets no more."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import Annotated, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field, field_validator
from torch import Tensor

from roles.common.batches import batch_sizes
from roles.common.config.attack import ItnConfig
from roles.common.config.base import Frozen
from roles.common.exchange import Work
from roles.common.protection import Protect
from roles.common.transform import apply_network
from roles.evaluator.baselines import given_away
from roles.evaluator.controls import BLUR, blurred
from roles.evaluator.measures import ssim
from roles.evaluator.results import Findings, Row
from roles.evaluator.study import RECONSTRUCTION_COLUMNS, RECONSTRUCTION_REFERENCES, Lines, Study, StudyContext

PLATEAU = {"ssim": 0.02, "psnr": 0.3, "recovered": 0.02}
"""How near the top rung comes to the best below it, in each measure, at a plateau: nearer than this, less than half of
what a verdict goes by (0.05 SSIM, 1 dB, 5% of the images), so that another rung that gains as little leaves most
verdicts as they are; of some hundred test images, medians are no more certain than that."""
_MOST_NAMED = 8


class Rung(Frozen):
    """One budget of an attacker."""

    pairs: Annotated[int, Field(ge=2)] | None = None
    """Pairs that it makes; by default all that ``attack.pairs`` allows, and never more."""
    steps: Annotated[float, Field(gt=0, le=10_000)] = 1
    """Training steps, as a multiple of those of the inverse network's recipe over all pairs: few pairs are gone through
    more often."""
    width: Annotated[int, Field(ge=1, le=1024)] = 64
    """Channels of the first level of its network."""


class Ladder(Study):
    """For every user and for blurred images, the last of ``attack.itns`` at growing budgets.

    One training says what one budget gets. Where the last rungs of a ladder get the same, a verdict is about the
    protection; while it still rises, it is about the budget. Blurred images are the control: an attack that is to mean
    anything gets them back at the top. A rung of the config's own width, with all pairs and steps 1, is the inverse
    network of the run itself.
    """

    kind: Literal["ladder"]
    rungs: Annotated[tuple[Rung, ...], Field(min_length=2)] = (
        Rung(pairs=100, steps=1, width=16),
        Rung(pairs=1000, steps=2, width=16),
        Rung(pairs=10_000, steps=4, width=32),
        Rung(steps=8, width=32),
        Rung(steps=16, width=64),
    )
    """From the smallest budget to the largest; in pairs, steps and width none is below the one before."""

    columns: ClassVar[Mapping[str, str]] = {
        "user": "whose protection is attacked; control-blur is nobody's: plain images blurred",
        "rung": "number of the budget, from 1",
        "pairs": "pairs that the inverse network was trained on",
        "steps": "steps that it was trained for",
        "width": "channels of its first level",
        **RECONSTRUCTION_COLUMNS,
        "recovered": "share of test images that the estimates give away: SSIM at least 0.5 and half way from the "
        "trivial guess to 1",
        "validation_loss": "of the attacker's validation images at the selected epoch: the mean squared error, of "
        "values in [0, 1], but with the losses ssim and perceptual these",
    }
    figure: ClassVar[Lines] = Lines(
        "rung", "ssim", "user", "median SSIM of the estimates", references=RECONSTRUCTION_REFERENCES
    )

    @field_validator("rungs")
    @classmethod
    def _rising(cls, rungs: tuple[Rung, ...]) -> tuple[Rung, ...]:
        budgets = [(rung.pairs or math.inf, rung.steps, rung.width) for rung in rungs]
        for number, (below, above) in enumerate(pairwise(budgets), 2):
            if any(more < less for less, more in zip(below, above, strict=True)):
                raise ValueError(f"must rise: rung {number} has fewer pairs, steps or channels than the one before")
        if len(set(budgets)) < len(budgets):
            raise ValueError("must rise: two rungs are the same")
        return rungs

    def parts(self, users: Sequence[int], seed: int) -> list[str]:
        """See :class:`Study`: a user, or the control, and a rung each, so that none is climbed twice."""
        return [f"{whose}-{number + 1}" for whose in (*users, BLUR) for number in range(len(self.rungs))]

    def work(self, part: str, users: Sequence[int], context: StudyContext) -> Work[Findings]:
        """See :class:`Study`."""
        whose, _, number = part.rpartition("-")
        attacker, state, rung = context.attacker, context.state, self.rungs[int(number) - 1]
        available = len(attacker.known[0])
        pairs = min(rung.pairs or available, available)
        itn = _on(rung, pairs, available, context.itn)
        plain, positions = attacker.test_images
        if "estimates" not in state:
            protect, keyed = yield from self._protection(whose, context)
            state["protected"] = protect(plain, "test", positions)
            network, curve = attacker.inverse_network(itn, protect, keyed=keyed, pairs=pairs)
            state["estimates"] = apply_network(network, state["protected"], attacker.compute)
            state["steps"] = torch.tensor(int(curve[-1]["step"]))
            state["validation_loss"] = torch.tensor(min(row["validation_loss"] for row in curve), dtype=torch.float64)
        found = yield from context.measured(state["estimates"], state["protected"], plain)
        recovered = self._given_away(state["estimates"], plain, context)
        budget: Row = {"rung": int(number), "pairs": pairs, "steps": int(state["steps"]), "width": rung.width}
        end: Row = {"recovered": float(recovered.double().mean()), "validation_loss": float(state["validation_loss"])}
        return [{"user": BLUR if whose == BLUR else int(whose), **budget, **found, **end}]

    def _protection(self, whose: str, context: StudyContext) -> Work[tuple[Protect, bool]]:
        """Return a protection at work, and whether it is a key."""
        if whose == BLUR:
            return blurred(context.attacker.config.blur_sigma), False
        theta = yield from context.theta_of(int(whose))
        return context.protection(int(whose), theta), context.keyed(int(whose))

    def _given_away(self, estimates: Tensor, plain: Tensor, context: StudyContext) -> Tensor:
        guesses = [ssim(guess, plain) for guess in context.attacker.guesses(len(plain)).values()]
        return given_away(ssim(estimates, plain), guesses)

    def conclusion(self, rows: Sequence[Row]) -> str:
        """See :class:`Study`."""
        of_users = climbs(rows, len(self.rungs))
        control, said = of_users.pop(BLUR, None), list[str]()
        if of_users:
            reached = sum(climb.plateau for climb in of_users.values())
            fallen = [f"user {whose}" for whose, climb in of_users.items() if climb.fell]
            rising = [f"user {whose}" for whose, climb in of_users.items() if not (climb.plateau or climb.fell)]
            others = _named("still rising", rising) + _named("the top rung fell behind", fallen)
            best = [climb.best for climb in of_users.values()]
            ssims, gain, share = (median(float(row[of]) for row in best) for of in ("ssim", "gain_ssim", "recovered"))
            said.append(
                f"The ladder has come to a plateau for {reached} of {len(of_users)} users{others}. "
                f"Its best rung reaches SSIM {ssims:.2f} ({gain:+.2f} over the better trivial guess) and gives "
                f"{100 * share:.0f}% of the images away (medians over users)."
            )
        if control is not None:
            said.append(f"Control: it brings blurred images to SSIM {float(control.best['ssim']):.2f}.")
        return " ".join(said)


def _named(what: str, users: Sequence[str]) -> str:
    more = f" and {len(users) - _MOST_NAMED} more" if len(users) > _MOST_NAMED else ""
    return f"; {what}: {', '.join(users[:_MOST_NAMED])}{more}" if users else ""


class Climb(NamedTuple):
    """What the rungs of one ladder amount to."""

    best: Row
    """That with the highest median SSIM."""
    plateau: bool
    """Whether the top rung is within :data:`PLATEAU` of the best below it, in every measure; where rungs are missing
    nobody knows, and it counts as rising."""
    fell: bool
    """Whether it is further below it in some measure, and in none above: a training that failed, or learned its pairs
    by heart, does not say what its budget could get."""


def climbs(rows: Sequence[Row], rungs: int) -> dict[str | int, Climb]:
    """Return what each ladder of a study amounts to, by whose it is.

    Args:
        rows: what its parts have found, in any order.
        rungs: how many a whole ladder has.
    """
    ladders: dict[str | int, list[Row]] = {}
    for row in sorted(rows, key=lambda row: int(row["rung"])):
        whose = row["user"]
        ladders.setdefault(whose if whose == BLUR else int(whose), []).append(row)
    return {whose: _climb(own, rungs) for whose, own in ladders.items()}


def _climb(rows: Sequence[Row], rungs: int) -> Climb:
    *below, top = rows
    best = max(rows, key=lambda row: float(row["ssim"]))
    if len(rows) < rungs:
        return Climb(best, plateau=False, fell=False)
    gains = {name: float(top[name]) - max(float(row[name]) for row in below) for name in PLATEAU}
    rises = any(gains[name] >= least for name, least in PLATEAU.items())
    falls = any(gains[name] <= -least for name, least in PLATEAU.items())
    return Climb(best, plateau=not (rises or falls), fell=falls and not rises)


def _on(rung: Rung, pairs: int, available: int, itn: ItnConfig) -> ItnConfig:
    """Return an inverse network as a rung has it: its epochs are counted over the rung's own pairs."""
    recipe = itn.training
    of_all, own = (len(batch_sizes(count, recipe.batch_size)) for count in (available, pairs))
    epochs = rung.steps * recipe.total_steps(of_all) / own
    return itn.model_copy(update={"width": rung.width, "training": recipe.model_copy(update={"epochs": epochs})})
