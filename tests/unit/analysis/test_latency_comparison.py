"""Latencies at one rate: how often equal ones are told apart, and what one start may not tell."""

import math

import numpy as np
import pytest
import scipy

from sweep.analysis.latency_comparison import UNKNOWN_SENSITIVITY, Measured, latency_changes, sensitivities


def measured(rng, passes=5, cv=0.02, centre=0.0):
    """The interval of a percentile between passes, as a record has it."""
    logs = rng.normal(centre, cv, passes)
    half = float(scipy.special.stdtrit(passes - 1, 0.975)) * logs.std(ddof=1) / math.sqrt(passes)
    middle = float(logs.mean())
    return Measured(value=math.exp(middle), interval=(math.exp(middle - half), math.exp(middle + half)), passes=passes)


def test_equal_latencies_are_told_apart_in_few_tables_and_longer_ones_are_called() -> None:
    """5% are meant; of 200 tables of twelve, 2.5 standard deviations more are chance."""
    rng = np.random.default_rng(5)
    told = called = 0
    for _ in range(200):
        pairs = [(measured(rng), measured(rng, centre=0.15 * (n == 0))) for n in range(12)]
        first, *others = latency_changes(pairs)
        called += first.faster  # a ratio above 1: the latency is longer
        told += any(change.slower or change.faster for change in others)
    assert told / 200 <= 0.09
    assert called / 200 > 0.95


def test_single_passes_count_what_starts_differ_by_as_often_as_the_slope_says() -> None:
    def pair(longer, sensitivity):
        return tuple(
            Measured(value=value, interval=(value * 0.999, value * 1.001), start_cv=0.02, sensitivity=sensitivity)
            for value in (1.0, longer)
        )

    assert latency_changes([pair(1.07, 1.0)])[0].faster
    assert not latency_changes([pair(1.05, 1.0)])[0].faster
    assert not latency_changes([pair(1.3, 5.0)])[0].faster
    assert latency_changes([pair(1.4, 5.0)])[0].faster
    alone, shared = latency_changes([pair(1.4, 5.0)] * 4)[0], latency_changes([pair(1.4, 5.0)] * 4, 2)[0]
    assert shared.high / alone.high == pytest.approx(shared.high / shared.ratio / (alone.high / alone.ratio))
    assert shared.high > alone.high
    assert latency_changes([]) == []


def test_the_slope_of_the_curve_is_that_of_its_steeper_side() -> None:
    rates, latencies = [100.0, 200.0, 400.0], [1.0, 1.0, 4.0]
    assert sensitivities(rates, latencies) == pytest.approx([1.0, 3.0, 3.0])
    assert sensitivities([100.0], [1.0]) == [UNKNOWN_SENSITIVITY]
    assert sensitivities([100.0, 200.0], [2.0, 1.0]) == [1.0, 1.0]  # a latency that falls says nothing of a queue
