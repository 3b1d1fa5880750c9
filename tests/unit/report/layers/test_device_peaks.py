"""Measured peaks of a device stand in the results folder, and its layer profiles are held against them."""

import pytest
from profiled_layers import FP16, profile, write

from sweep.analysis.layers import Peaks, peaks_of
from sweep.errors import RecordError
from sweep.report.layers import find, peaks_or_data_sheet, peaks_path, profile_path, read_peaks, wording, write_peaks

H200 = Peaks(name="NVIDIA H200", source="measured by X", gb_per_s=None, tflops={"fp16": 700.0}, measured=True)
CPU = Peaks(name="a CPU", source="measured by Y", gb_per_s=10.0, tflops={"fp32": 0.1}, measured=True)


def test_what_was_measured_stands_before_the_data_sheet_and_says_which_is_which(tmp_path) -> None:
    assert read_peaks(tmp_path, "NVIDIA H200") == peaks_of("NVIDIA H200")
    write_peaks(tmp_path / "results", H200)
    write_peaks(tmp_path / "results", CPU)
    peaks = read_peaks(tmp_path / "results", "NVIDIA H200")
    assert peaks is not None
    assert (peaks.of_type("fp16"), peaks.of_type("fp8"), peaks.gb_per_s) == (700.0, 1978.9, 4800.0)
    assert peaks.source.startswith("measured by X, 2")
    assert "; fp32, tf32, bf16, fp8, int8, bandwidth: NVIDIA H200" in peaks.source
    cpu = read_peaks(tmp_path / "results", "a CPU")
    assert cpu is not None
    assert (cpu.tflops, cpu.gb_per_s, cpu.measured) == ({"fp32": 0.1}, 10.0, True)
    assert read_peaks(tmp_path / "results", "another CPU") is None
    assert read_peaks(tmp_path / "results", None) is None


def test_a_damaged_file_is_one_line_and_ends_no_sweep(tmp_path) -> None:
    peaks_path(tmp_path).write_text("{")
    with pytest.raises(RecordError, match=r"peaks.json cannot be read \(.*\): remove it and measure again") as refusal:
        read_peaks(tmp_path, "NVIDIA H200")
    assert "\n" not in str(refusal.value)
    with pytest.raises(RecordError):
        write_peaks(tmp_path, H200)
    assert peaks_or_data_sheet(tmp_path, "NVIDIA H200") == peaks_of("NVIDIA H200")


def test_a_profile_is_held_against_the_measured_peaks_of_its_results_folder(tmp_path) -> None:
    own = profile("net", *FP16)
    path = write(profile_path(tmp_path / "results" / "night", "net"), own)
    before = find(str(path))[0].analysis
    write_peaks(tmp_path / "results", Peaks(name=str(own["device"]), source="measured by X", gb_per_s=1e3, tflops={}))
    after = find(str(path))[0].analysis
    assert after.totals.share_of_bandwidth_peak == pytest.approx(after.totals.gb_per_s / 1e3)
    assert before.totals.share_of_bandwidth_peak != after.totals.share_of_bandwidth_peak
    assert "Peaks: measured by X, 2" in str(wording.rates(after))
