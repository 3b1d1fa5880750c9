"""Durations of layers are summarised, and shortened by what a profiler adds to each."""

from __future__ import annotations

import pytest

from sweep.backends import ProfileLimits
from sweep.backends.layer_times import cost_notes, subtract_cost, summarise


def test_the_durations_of_a_layer_are_summarised() -> None:
    assert summarise(range(1, 12)) == {"median_us": 6.0, "p10_us": 2.0, "p90_us": 10.0, "count": 11}
    assert summarise([]) is None


def test_layers_that_take_longer_than_the_inference_are_shortened_until_they_fill_it() -> None:
    layers = [{"time": summarise([duration])} for duration in (10.0, 5.0, 1.0)] + [{"time": None}]
    cost_us = subtract_cost(layers, 8.0)
    assert cost_us == pytest.approx(3.5)
    assert [layer["time"] and layer["time"]["median_us"] for layer in layers] == [6.5, 1.5, 0.0, None]
    assert "about 3.5 us" in cost_notes(cost_us)[0]
    assert (subtract_cost(layers, 8.0), cost_notes(None)) == (None, [])


def test_fewer_inferences_of_a_slow_network_are_profiled() -> None:
    limits = ProfileLimits(inferences=100, seconds=3.0, least=5)
    assert [limits.count(each_s) for each_s in (0.0, 0.001, 0.1, 10.0)] == [100, 100, 30, 5]
