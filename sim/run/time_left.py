"""How long the rest of a run takes, from the steps that its workers have timed."""

import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import NamedTuple

from sim.run.progress import Status, WorkerProgress


class Left(NamedTuple):
    """What is left of a run."""

    seconds: float
    """Of all that has been timed; the report, which takes seconds, never is."""
    is_all: bool
    """Whether nothing is ahead of which no step has been timed yet."""


def makespan(durations: Iterable[float], workers: int) -> float:
    """Return how long ``workers`` are busy that take jobs in this order, whoever is free the next.

    >>> makespan([3, 1, 1, 1], 2), makespan([], 2)
    (3.0, 0.0)
    """
    ends = [0.0] * workers
    for duration in durations:
        heapq.heapreplace(ends, ends[0] + duration)
    return max(ends)


class TimeLeft:
    """Watches a run from its start, and says what is left of it."""

    def __init__(self) -> None:
        self._most = defaultdict[str, float](float)
        self._totals = defaultdict[str, set[tuple[str, int]]](set)
        self._parts: list[tuple[float, float]] = []
        """When parts of studies were seen to be done, and how many were ahead then."""

    def of(self, status: Status, workers: Sequence[WorkerProgress], now: float) -> Left:
        """Return what is left at ``now``, in seconds of any clock that does not go back."""
        for worker in workers:
            self._totals[worker.phase].add((worker.label, worker.total))
        psi, users, attacks = (self._trainings(phase, status, workers) for phase in ("classifier", "users", "attacks"))
        studies = self._studies(status, now)
        at_once = max(Counter(worker.phase for worker in workers).values(), default=1)
        jobs = math.ceil(status.ahead.get("users", 0) + status.ahead.get("attacks", 0))
        both = makespan([*(users or ()), *(attacks or ())], max(1, min(at_once, jobs)))
        # Whoever is trained last is attacked after it, however many workers there are.
        one_attack = status.itns * max(attacks) if users and attacks else 0.0
        both = max(both, makespan(users or (), at_once) + one_attack)
        return Left(sum(psi or ()) + both + (studies or 0.0), None not in (psi, users, attacks, studies))

    def _trainings(self, phase: str, status: Status, workers: Sequence[WorkerProgress]) -> list[float] | None:
        """Return the seconds of each training that is under way or ahead; None where no step has been timed."""
        ahead = status.ahead.get(phase, 0) * (status.itns if phase == "attacks" else 1)
        most = self._most[phase] = max(self._most[phase], ahead)
        workers = [worker for worker in workers if worker.phase == phase]
        timed = [worker.step_s for worker in workers if worker.step_s]
        if not ahead or not timed:
            return None if ahead else []
        each = fmean(total for _, total in self._totals[phase])
        left = min(most * each - sum(worker.steps for worker in workers), ahead * each)
        trainings: list[float] = [
            worker.total - worker.done for worker in workers if worker.runs and worker.done < worker.total
        ]
        others = math.ceil(ahead) - len(trainings)
        if others > 0:
            trainings += [max(0.0, left - sum(trainings)) / others] * others
        return [steps * fmean(timed) for steps in trainings]

    def _studies(self, status: Status, now: float) -> float | None:
        """Return the seconds of all parts of studies that are ahead, from those that are done; None before the first.

        How many steps a part takes, nobody says.
        """
        ahead = status.ahead.get("studies", 0)
        if not ahead or status.phase != "studies":
            return None if ahead else 0.0
        if not self._parts or self._parts[-1][1] > ahead:
            self._parts.append((now, ahead))
        (began, first), (last, _) = self._parts[0], self._parts[-1]
        if last == began:
            return None
        return max(0.0, (last - began) / (first - ahead) * ahead - (now - last))
