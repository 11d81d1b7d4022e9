from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcbatch.observers.histogram import LARGEST_S, SMALLEST_S, Histogram

DURATIONS = st.lists(st.floats(SMALLEST_S, LARGEST_S), min_size=1, max_size=200)


def filled(values: list[float]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    return histogram


@given(DURATIONS, st.floats(0.0, 1.0))
def test_a_quantile_is_within_two_percent_of_the_nearest_rank(values: list[float], fraction: float) -> None:
    exact = sorted(values)[max(1, math.ceil(fraction * len(values))) - 1]
    (found,) = filled(values).quantiles(fraction)
    assert found == pytest.approx(exact, rel=0.02)


@given(st.lists(st.floats(0.0, 1e9), min_size=1, max_size=50))
def test_quantiles_rise_and_stay_between_the_extremes(values: list[float]) -> None:
    found = [value for value in filled(values).quantiles(0.0, 0.5, 0.95, 0.99, 1.0) if value is not None]
    assert found == sorted(found)
    assert min(values) <= found[0]
    assert found[-1] <= max(values)


def test_one_value_is_returned_exactly() -> None:
    assert filled([0.123456]).quantiles(0.5, 0.99) == [0.123456, 0.123456]


def test_memory_does_not_grow() -> None:
    histogram = filled([0.001 * n for n in range(10_000)])
    assert histogram.percentiles().count == 10_000
    assert histogram.percentiles().max_s == pytest.approx(9.999)
    assert histogram.percentiles().p50_s == pytest.approx(4.999, rel=0.02)
