"""How well users could tell that they were hijacked: the scores of all their checks, against whom it was true of."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from roles.common.suspicion import SCORES
from sim.config.experiment import Experiment
from sim.report.figures.roc import draw_roc
from sim.run.folder import RunFolder

_FALSE_ALARMS = 0.05
"""Share of false alarms that a user may put up with."""
TITLES = {"wrong_ids": "wrong ids", "answers": "answers to one image"}


@dataclass(frozen=True, eq=False)
class Roc:
    """What a threshold on a score would do, for every threshold from above the highest score down."""

    false_alarms: NDArray[np.float64]
    """Share of the checks of honestly treated users that are at least as suspicious, rising from 0 to 1."""
    alarms: NDArray[np.float64]
    """The same share of the checks of hijacked users."""

    @property
    def area(self) -> float:
        """The chance that of a hijacked and an honest check the former is the more suspicious; ties count half."""
        return float(np.trapezoid(self.alarms, self.false_alarms))

    def alarms_at(self, false_alarms: float) -> float:
        """Return the share of alarms of the lowest threshold that gives no more than this share of false ones."""
        return float(self.alarms[self.false_alarms <= false_alarms].max())


def roc_of(hijacked: list[float], honest: list[float]) -> Roc:
    """Return the receiver operating characteristic of a score, of which both have at least one value.

    >>> roc = roc_of([0.9, 0.8], [0.1, 0.8])
    >>> roc.area, roc.alarms_at(0.05)
    (0.875, 0.5)
    """
    thresholds = [np.inf, *sorted({*hijacked, *honest}, reverse=True)]
    shares = [[float(np.mean(np.asarray(scores) >= t)) for t in thresholds] for scores in (honest, hijacked)]
    return Roc(np.array(shares[0]), np.array(shares[1]))


def rocs_of(run: RunFolder, experiment: Experiment) -> dict[str, dict[str, Roc]]:
    """Return, by kind of hijack and score, how the checks of the hijacked compare with those of all others.

    It is empty where nobody was hijacked, everybody was, or nobody has checked.
    """
    scores: dict[str, dict[str, list[float]]] = {}
    for user in run.published():
        hijack, published = experiment.provider.hijack_of(user), run.user(user)
        for row in [] if published is None else published.checks:
            for name in SCORES:
                if name in row:
                    scores.setdefault(hijack.describe() if hijack else "", {}).setdefault(name, []).append(row[name])
    honest = scores.pop("", {})
    rocs = {
        kind: {name: roc_of(values, honest[name]) for name, values in of_kind.items() if name in honest}
        for kind, of_kind in scores.items()
    }
    return {kind: found for kind, found in rocs.items() if found}


def report_detection(run: RunFolder, experiment: Experiment) -> list[str]:
    """Draw how well checks tell hijacked users from others, and return it as lines of a Markdown list."""
    rocs = rocs_of(run, experiment)
    named = {f"{kind}: {TITLES[name]}": roc for kind, found in rocs.items() for name, roc in found.items()}
    if named:
        lines = {name: (roc.false_alarms, roc.alarms) for name, roc in named.items()}
        draw_roc(run.path / "figures" / "detection", lines)
    said = [
        f"{name} AUC {roc.area:.2f}, {100 * roc.alarms_at(_FALSE_ALARMS):.0f}% of checks raise the alarm"
        for name, roc in named.items()
    ]
    where = f"at {100 * _FALSE_ALARMS:.0f}% false alarms"
    return [f"- detection of the hijack, by single checks, {where}: {'; '.join(said)}."] if said else []
