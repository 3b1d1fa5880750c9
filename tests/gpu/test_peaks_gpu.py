"""What `sweep doctor --peaks` measures on a GPU against its data sheet. ``make test-gpu`` runs it."""

import os

import pytest
import require

from sweep.analysis.layers import peaks_of
from sweep.backends.tensorrt import library
from sweep.cli import measure_peaks

pytestmark = pytest.mark.gpu

BACKENDS = [os.environ["SWEEP_GPU_BACKEND"]] if "SWEEP_GPU_BACKEND" in os.environ else list(library.NAMES)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_gpu_reaches_much_of_its_data_sheet_and_no_more(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    require.gpu_for(backend)
    monkeypatch.setitem(measure_peaks.PRECISIONS, "gpu", ("fp32", "fp16"))
    lines: list[str] = []
    peaks = measure_peaks.measure(backend, lines.append)
    assert {"fp32", "fp16"} <= set(peaks.tflops), lines
    assert peaks.tflops["fp16"] > peaks.tflops["fp32"]
    assert peaks.gb_per_s
    listed = peaks_of(peaks.name)
    if listed is not None:
        shares = {dtype: rate / listed.tflops[dtype] for dtype, rate in peaks.tflops.items() if dtype in listed.tflops}
        assert 0.4 < shares["fp16"] < 1.05, shares
        assert 0.4 < shares["fp32"] < 1.05, shares
        assert listed.gb_per_s
        assert 0.5 < peaks.gb_per_s / listed.gb_per_s < 1.05
