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

_LEVEL = 0.95
_RESAMPLES = 2000
_NONE = (math.nan, math.nan)

Interval = tuple[float, float]


def _known(values: ArrayLike) -> NDArray[np.float64]:
    numbers = np.asarray(values, dtype=np.float64).ravel()
    return numbers[~np.isnan(numbers)]


@lru_cache
def _rank(count: int) -> int:
    """Return the largest k for which the k-th smallest and the k-th largest of ``count`` enclose the median; or 0."""
    return int(stats.binom.ppf((1 - _LEVEL) / 2, count, 0.5))


def median_interval(values: ArrayLike) -> Interval:
    """Return two of the values between which the median of what they were drawn from lies.

    The interval of order statistics (David and Nagaraja, Order Statistics, 2003, section 7.1): as many draws as fall
    below a median are binomial with p = 1/2, so of n values the k-th smallest and the k-th largest enclose it unless
    fewer than k fall on one side. Exact for any distribution, at least 95%, without resampling. Fewer than 6 values
    have no such interval.

    >>> median_interval(range(1, 101))
    (40.0, 61.0)
    """
    known = _known(values)
    count = len(known)
    rank = _rank(count)
    if rank == 0:
        return _NONE
    known.partition((rank - 1, count - rank))
    return float(known[rank - 1]), float(known[count - rank])


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
    error = float(known.std(ddof=1)) / math.sqrt(len(known))
    reach = float(stats.t.ppf((1 + _LEVEL) / 2, len(known) - 1)) * error
    return float(known.mean()) - reach, float(known.mean()) + reach


def bootstrapped_median_interval(values: ArrayLike) -> Interval:
    """Return the percentile bootstrap interval of the median of a few values, such as one of each user.

    The resamples are the same in every call. One value has no interval.
    """
    known = _known(values)
    if len(known) < 2:
        return _NONE
    found = stats.bootstrap(
        (known,),
        np.median,
        n_resamples=_RESAMPLES,
        batch=100,
        confidence_level=_LEVEL,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(found.low), float(found.high)
