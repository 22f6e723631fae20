"""How far a number would move if it were measured again: 95% intervals.

Each says what is drawn anew: test images (the median of a measure, a share of correct labels), seeds (a mean over
runs), or users (a median over those of one run). NaN values are left out everywhere, and an interval that cannot be had
is NaN at both ends.
"""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Interval = tuple[float, float]
_LEVEL, _RESAMPLES = 0.95, 2000
_NONE = (math.nan, math.nan)


def _known(values: ArrayLike) -> NDArray[np.float64]:
    numbers = np.asarray(values, dtype=np.float64).ravel()
    return numbers[~np.isnan(numbers)]


@lru_cache
def _rank(count: int) -> int:
    """Return the largest k for which the k-th smallest and the k-th largest of ``count`` enclose the median; or 0."""
    return int(stats.binom.ppf((1 - _LEVEL) / 2, count, 0.5))


def median_interval(values: ArrayLike) -> Interval:
    """Return two of the values between which the median of what they were drawn from lies.

    The interval of order statistics: as many draws as fall below a median are binomial with p = 1/2, so of n values the
    k-th smallest and the k-th largest enclose it unless fewer than k fall on one side. Exact for any distribution, at
    least 95%, without resampling. Fewer than 6 values have no such interval.

    Source: David and Nagaraja, Order Statistics, 2003, section 7.1. (``scipy.stats.quantile_test`` gives the same, ten
    times as slowly.)

    >>> median_interval(range(1, 101))
    (40.0, 61.0)
    """
    known = np.sort(_known(values))
    rank = _rank(len(known))
    return (float(known[rank - 1]), float(known[-rank])) if rank else _NONE


def share_interval(hits: int, count: int) -> Interval:
    """Return the interval of a share of which ``hits`` of ``count`` draws were seen (Wilson, 1927).

    >>> [round(end, 3) for end in share_interval(8, 10)]
    [0.49, 0.943]
    """
    if count == 0:
        return _NONE
    interval = stats.binomtest(hits, count).proportion_ci(_LEVEL, method="wilson")
    return float(interval.low), float(interval.high)


def mean_interval(values: ArrayLike) -> Interval:
    """Return the interval of the mean of what the values were drawn from (Student's t).

    For a few repetitions: resampling three of them can bring nothing that lies outside of them, and a bootstrap is far
    too sure of itself. One value has no interval.

    >>> [round(end, 2) for end in mean_interval([70.0, 72.0, 74.0])]
    [67.03, 76.97]
    """
    known = _known(values)
    if len(known) < 2:
        return _NONE
    middle, reach = known.mean(), stats.t.ppf((1 + _LEVEL) / 2, len(known) - 1) * stats.sem(known)
    return float(middle - reach), float(middle + reach)


def bootstrapped_median_interval(values: ArrayLike) -> Interval:
    """Return the percentile bootstrap interval of the median of a few values, such as one of each user.

    The resamples are the same in every call. One value has no interval.
    """
    known = _known(values)
    if len(known) < 2:
        return _NONE
    found = stats.bootstrap((known,), np.median, n_resamples=_RESAMPLES, batch=100, method="percentile", rng=0)
    return float(found.confidence_interval.low), float(found.confidence_interval.high)
