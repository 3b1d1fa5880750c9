"""Peaks are measured by a sweep of large products and a copy; here of small ones, on onnxruntime."""

import pytest

from sweep.cli import measure_peaks
from sweep.errors import ConfigError


def test_a_product_and_a_copy_give_the_peaks_of_the_cpu(monkeypatch) -> None:
    monkeypatch.setitem(measure_peaks.PRECISIONS, "cpu", ("fp32",))
    monkeypatch.setattr(measure_peaks, "_LOAD", ("load=closed", "load.warmup_s=0.01", "load.min_s=0.05"))
    small = measure_peaks.Sizes(copied_rows=256, rows=64, side=128)
    peaks = measure_peaks.measure("onnxruntime", pytest.fail, small)
    assert list(peaks.tflops) == ["fp32"]
    assert 1e-4 < peaks.tflops["fp32"] < 10
    assert peaks.gb_per_s is not None
    assert 0.1 < peaks.gb_per_s < 10_000
    assert peaks.measured
    assert peaks.source.startswith("measured by a large product and a copy on onnxruntime 1.")


def test_a_backend_that_computes_nothing_has_no_peaks() -> None:
    with pytest.raises(ConfigError, match="simulated: it computes nothing whose peak could be measured"):
        measure_peaks.measure("simulated", pytest.fail)
