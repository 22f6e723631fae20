"""Pretrained: what other users' public h_thetas teach an attacker about one who has kept its own."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from roles.common.config.base import Rising
from roles.common.exchange import Work
from roles.common.transform import apply_network
from roles.common.weights import State, cpu_state, groups_of, prefixed
from roles.evaluator.itn import Pairs
from roles.evaluator.pooling import AgainstVictims, leaked_pairs, repeated, shuffled, split_off
from roles.evaluator.results import Findings, Row
from roles.evaluator.study import (
    RECONSTRUCTION_COLUMNS,
    RECONSTRUCTION_REFERENCES,
    Lines,
    StudyContext,
    values_by,
)

_FEWEST_PAIRS = 4
"""Two to train on and two to select the epoch by."""
_START_NAMES = ("pretrained", "fresh")


class Pretrained(AgainstVictims):
    """An inverse network that has learned from other users, and goes on with a few pairs of a victim's.

    The victim has kept its h_theta, as in the study of collusion, and some pairs of its X' have leaked. What others
    have published is public: the attacker puts its own images through their h_thetas, as many through each, and trains
    the last of ``attack.itns`` on these pairs. From there it goes on with the victim's. Beside it, a fresh network
    has the victim's pairs alone, for as many steps in all.
    """

    kind: Literal["pretrained"]
    others: Annotated[int, Field(ge=1)] = 4
    """How many other users' h_thetas are learned from; there may be fewer. A key is none."""
    known_pairs: Rising[Annotated[int, Field(ge=_FEWEST_PAIRS)]] = (10, 100, 1000)
    """Pairs of the victim's X' that have leaked, at most all. A ninth, at least two, are held out to select the epoch;
    the others are repeated until they are as many as the attacker's own, so that their number does not decide how long
    is trained."""

    columns: ClassVar[Mapping[str, str]] = {
        "victim": "user that is attacked",
        "start": "'pretrained': on pairs of other users' h_thetas; 'fresh': on none, and for as many steps in all",
        "known_pairs": "pairs of the victim that the attacker has",
        **RECONSTRUCTION_COLUMNS,
    }
    figure: ClassVar[Lines] = Lines(
        "known_pairs", "ssim", "start", "median SSIM of the estimates", references=RECONSTRUCTION_REFERENCES
    )

    def parts(self, users: Sequence[int], seed: int) -> list[str]:
        """See :class:`Study`: a victim each; none where there is nobody else."""
        return [str(victim) for victim in self.drawn(users, seed, self.kind)] if len(users) > 1 else []

    def work(self, part: str, users: Sequence[int], context: StudyContext) -> Work[Findings]:
        """See :class:`Study`."""
        victim, state = int(part), context.state
        networks = [user for user in users if user != victim and not context.keyed(user)]
        teachers = shuffled(networks, context.attacker.seed, self.kind, "others", victim)[: self.others]
        if not teachers:
            return []
        plain, ids = context.test_images(self.images)
        leaked = yield from leaked_pairs(victim, self.known_pairs[-1], self.kind, context)
        if len(leaked[0]) < _FEWEST_PAIRS:
            raise ValueError(f"user {victim} has {len(leaked[0])} images: the study needs {_FEWEST_PAIRS} pairs")
        protected = yield from context.protected(victim, "test", ids)
        if "pretrained" not in groups_of(state):
            pool, noise = yield from self._pool(teachers, context)
            state.update(prefixed("pretrained", cpu_state(context.fit(pool, victim, noise=noise)[0])))
            for teacher in teachers:
                context.forget(teacher)
        rows: list[Row] = []
        for known in sorted({min(count, len(leaked[0])) for count in self.known_pairs}):
            for start in _START_NAMES:
                key = f"estimates/{start}/{known}"
                if key not in state:
                    itn = self._trained(start, [images[:known] for images in leaked], victim, context)
                    state[key] = apply_network(itn, protected, context.attacker.compute)
                found = yield from context.measured(state[key], protected, plain)
                rows.append({"victim": victim, "start": start, "known_pairs": known, **found})
        return rows

    def _pool(self, teachers: Sequence[int], context: StudyContext) -> Work[tuple[Pairs, Tensor]]:
        """Return pairs of the attacker's images, a share by each teacher's h_theta, and the noise of each pair."""
        attacker, count = context.attacker, len(teachers)
        own = attacker.known[1]
        held_out = attacker.ids("validation", attacker.validation_count(len(own)))
        shares, noises = list[Pairs](), list[Tensor]()
        for number, teacher in enumerate(teachers):
            # With fewer images than teachers, some have the same.
            train, validation = (ids[number % len(ids) :: count] for ids in (own, held_out))
            protected, noise = yield from context.without_noise(teacher, "train", train)
            selecting = yield from context.protected(teacher, "validation", validation)
            images = attacker.store.images
            shares.append(Pairs(protected, images("train")[train], selecting, images("validation")[validation]))
            noises.append(noise)
        return Pairs(*map(torch.cat, zip(*shares, strict=True))), torch.cat(noises)

    def _trained(self, start: str, leaked: Sequence[Tensor], victim: int, context: StudyContext) -> torch.nn.Module:
        """Return the network that was trained on the victim's pairs, from one of ``_START_NAMES``."""
        weights: State | None = groups_of(context.state)["pretrained"] if start == "pretrained" else None
        known = len(leaked[0])
        few, held_out = split_off(leaked, max(2, known // 9))
        pairs = Pairs(*repeated(few, len(context.attacker.known[1])), *held_out)
        recipe = context.itn.training
        longer = recipe.model_copy(update={"epochs": recipe.epochs * (2 if weights is None else 1)})
        return context.fit(pairs, victim, itn=context.itn.model_copy(update={"training": longer}), start=weights)[0]

    def conclusion(self, rows: Sequence[Row]) -> str:
        """See :class:`Study`."""
        by_start = [
            values_by([row for row in rows if row["start"] == name], "known_pairs", "ssim") for name in _START_NAMES
        ]
        taught, fresh = ({known: median(values) for known, values in found.items()} for found in by_start)
        found = ", ".join(f"{taught[known]:.2f} against {fresh[known]:.2f} with {known}" for known in taught)
        return (
            f"An inverse network pretrained on other users' h_thetas reaches, against a fresh one, SSIM {found} pairs "
            "of the victim's (medians over victims)."
        )
