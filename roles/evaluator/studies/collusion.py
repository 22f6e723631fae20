"""Collusion: users pool pairs of their own to attack one outside the coalition whose h_theta they do not have."""

from collections.abc import Mapping, Sequence
from functools import partial
from statistics import median
from typing import ClassVar, Literal, NamedTuple

import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor

from roles.common.config.base import Rising
from roles.common.exchange import Work
from roles.common.transform import apply_network
from roles.evaluator.itn import Pairs
from roles.evaluator.pooling import AgainstVictims, leaked_pairs, repeated, shuffled, shuffled_ids, split_off
from roles.evaluator.results import Findings, Row
from roles.evaluator.study import (
    RECONSTRUCTION_COLUMNS,
    RECONSTRUCTION_REFERENCES,
    Lines,
    StudyContext,
    values_by,
)


class _Pool(NamedTuple):
    """Pairs of several users, as their h_thetas make them; see :class:`Pairs`."""

    protected: Tensor
    plain: Tensor
    noise: Tensor
    """What the protection of its user adds to each, standard deviation, float32 ``(N,)``."""
    validation_protected: Tensor
    validation_plain: Tensor


class Collusion(AgainstVictims):
    """An inverse network trained on the pairs of k users, and on a few of the victim's, applied to the victim's images.

    In the paper h_theta is public and nobody needs a coalition. Here the victim has kept it: its protected test images
    are seen, as the provider sees them, and with them some pairs that have leaked. A coalition of k contains that of
    every smaller k. Without leaked pairs this is one network for an ensemble of k h_thetas of the victim's recipe.
    """

    kind: Literal["collusion"]
    coalitions: Rising[PositiveInt] = (1, 2, 4, 8)
    """How many users collude; sizes that leave nobody to attack are left out."""
    known_pairs: Rising[NonNegativeInt] = (0, 10, 100)
    """Pairs of the victim's X' that have leaked. They are repeated until they are half of what is trained on; without
    any, the coalition's own are taken twice, so that the number of pairs does not decide how long is trained. Of 18 or
    more, a ninth is held out, and the epoch is selected by it instead of by the coalition's validation pairs."""

    columns: ClassVar[Mapping[str, str]] = {
        "victim": "user that is attacked",
        "coalition": "number of users who pool pairs of their own X'",
        "known_pairs": "pairs of the victim that they have",
        **RECONSTRUCTION_COLUMNS,
    }
    figure: ClassVar[Lines] = Lines(
        "coalition", "ssim", "known_pairs", "median SSIM of the estimates", references=RECONSTRUCTION_REFERENCES
    )

    def parts(self, users: Sequence[int], seed: int) -> list[str]:
        """See :class:`Study`: a victim and the size of a coalition each."""
        victims = self.drawn(users, seed, self.kind)
        return [f"{victim}-{size}" for victim in victims for size in self.coalitions if size < len(users)]

    def work(self, part: str, users: Sequence[int], context: StudyContext) -> Work[Findings]:
        """See :class:`Study`."""
        victim, size = (int(number) for number in part.split("-"))
        others = [user for user in users if user != victim]
        colluders = shuffled(others, context.attacker.seed, self.kind, "coalition", victim)[:size]
        plain, ids = context.test_images(self.images)
        pools: list[_Pool] = []
        for colluder in colluders:
            pools.append((yield from self._pairs_of(colluder, size, context)))
        leaked: list[Tensor] = []
        if self.known_pairs[-1] > 0:
            leaked = yield from leaked_pairs(victim, self.known_pairs[-1], self.kind, context)
        protected = yield from context.protected(victim, "test", ids)
        pool = _Pool(*map(torch.cat, zip(*pools, strict=True)))

        def estimates_with(known: int) -> Tensor:
            pairs, noise = _joined(pool, [tensor[:known] for tensor in leaked] if known else ())
            itn, _ = context.fit(pairs, victim, noise=noise)
            return apply_network(itn, protected, context.attacker.compute)

        rows: list[Row] = []
        for known in self.known_pairs:
            estimates = context.kept(f"estimates/{known}", partial(estimates_with, known))
            found = yield from context.measured(estimates, protected, plain)
            rows.append({"victim": victim, "coalition": size, "known_pairs": known, **found})
        return rows

    def _pairs_of(self, colluder: int, size: int, context: StudyContext) -> Work[_Pool]:
        """Return a colluder's share of the pool."""
        attacker = context.attacker
        share = max(2, (attacker.config.pairs or attacker.store.counts["train"]) // size)
        ids = (yield from shuffled_ids(colluder, self.kind, context))[:share]
        held_out = attacker.ids("validation", max(1, attacker.validation_count(len(ids) * size) // size))
        protected, noise = yield from context.without_noise(colluder, "train", ids)
        validation = yield from context.protected(colluder, "validation", held_out)
        images = attacker.store.images
        return _Pool(protected, images("train")[ids], noise, validation, images("validation")[held_out])

    def conclusion(self, rows: Sequence[Row]) -> str:
        """See :class:`Study`."""
        fewest = [row for row in rows if row["known_pairs"] == rows[0]["known_pairs"]]
        by_size = values_by(fewest, "coalition", "gain_ssim")
        gains = ", ".join(f"{median(values):+.3f} for {size}" for size, values in by_size.items())
        best = max(rows, key=lambda row: float(row["gain_ssim"]))
        return (
            f"Without h_theta and with {rows[0]['known_pairs']} known pairs, coalitions gain this much SSIM over the "
            f"better trivial guess (medians): {gains}. The most, {float(best['gain_ssim']):+.3f}, was had by "
            f"{best['coalition']} users with {best['known_pairs']} known pairs."
        )


def _joined(pool: _Pool, leaked: Sequence[Tensor]) -> tuple[Pairs, Tensor]:
    """Return the coalition's pairs and as many again: of the few that have leaked or, without any, of its own.

    Beside them, the noise to train each with, float32 ``(N,)``: those that have leaked have the victim's in them.
    """
    few = [*leaked, torch.zeros(len(leaked[0]))] if leaked else [*pool[:3]]
    held_out = [*pool[3:]]
    # A ninth to select the epoch by, as all attackers do; of fewer than 18 that would be one pair.
    if leaked and len(few[0]) >= 18:
        few, (*held_out, _) = split_off(few, len(few[0]) // 9)
    again = repeated(few, len(pool.plain))
    inputs, targets, noise = (torch.cat(both) for both in zip(pool[:3], again, strict=True))
    return Pairs(inputs, targets, *held_out), noise
