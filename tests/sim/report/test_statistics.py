"""Intervals: they hold as often as they say, whatever the numbers are like."""

import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.report.statistics import bootstrapped_median_interval, mean_interval, median_interval, share_interval

INTERVALS = [median_interval, mean_interval, bootstrapped_median_interval]
numbers = st.lists(st.floats(-1e6, 1e6), max_size=60)


@given(numbers)
def test_the_interval_of_a_median_encloses_the_median_of_the_values(values: list[float]) -> None:
    low, high = median_interval(values)
    if len(values) < 6:
        assert math.isnan(low) and math.isnan(high)
    else:
        assert low <= np.median(values) <= high
        assert {low, high} <= set(values)


def test_the_interval_of_a_median_holds_for_95_of_100_draws_from_a_skewed_distribution() -> None:
    draws = np.random.default_rng(0).exponential(size=(2000, 101))
    held = [low <= math.log(2) <= high for low, high in map(median_interval, draws)]
    # Ranks are whole numbers: the nearest ones that are enough have 95.4% here.
    assert 0.945 < np.mean(held) < 0.97


def test_an_interval_of_a_mean_of_three_holds_for_95_of_100_draws() -> None:
    draws = np.random.default_rng(0).normal(size=(4000, 3))
    assert np.mean([low <= 0 <= high for low, high in map(mean_interval, draws)]) == pytest.approx(0.95, abs=0.01)


def test_the_bootstrap_interval_of_a_median_holds_for_some_95_of_100_draws() -> None:
    draws = np.random.default_rng(0).normal(size=(150, 25))
    assert np.mean([low <= 0 <= high for low, high in map(bootstrapped_median_interval, draws)]) > 0.9


def test_the_bootstrap_is_the_same_in_every_call() -> None:
    values = np.random.default_rng(1).normal(size=9)
    assert bootstrapped_median_interval(values) == bootstrapped_median_interval(values)


@pytest.mark.parametrize("interval", INTERVALS)
def test_identical_values_have_an_interval_without_width(interval) -> None:
    assert interval([0.25] * 8) == (0.25, 0.25)


@pytest.mark.parametrize("interval", INTERVALS)
@pytest.mark.parametrize("values", [[], [0.5], [math.nan], [math.nan, 0.5]])
def test_of_one_value_or_none_there_is_no_interval(interval, values: list[float]) -> None:
    assert all(math.isnan(end) for end in interval(values))


@pytest.mark.parametrize("interval", INTERVALS)
def test_nan_values_are_left_out(interval) -> None:
    values = [0.1, 0.4, 0.2, 0.3, 0.6, 0.5, 0.7]
    assert interval([math.nan, *values, math.nan]) == interval(values)


@given(st.integers(1, 10_000).flatmap(lambda count: st.tuples(st.integers(0, count), st.just(count))))
def test_the_interval_of_a_share_encloses_it_within_0_and_1(hits_and_count: tuple[int, int]) -> None:
    hits, count = hits_and_count
    low, high = share_interval(hits, count)
    assert -1e-12 <= low <= hits / count + 1e-12 and hits / count - 1e-12 <= high <= 1 + 1e-12
    assert high - low > 0  # even where all or none were seen


def test_a_share_of_nothing_has_no_interval() -> None:
    assert all(math.isnan(end) for end in share_interval(0, 0))


def test_the_intervals_of_a_thousand_users_with_10_000_test_images_take_seconds() -> None:
    values = np.random.default_rng(0).normal(size=10_000).astype(np.float32)
    began = time.perf_counter()
    for _ in range(2000):  # two inverse networks each
        median_interval(values)
    for hits in range(1000):
        share_interval(hits, 10_000)
    assert time.perf_counter() - began < 10
