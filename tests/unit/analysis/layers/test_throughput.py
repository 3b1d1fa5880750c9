"""Columns of records: achieved TFLOP/s, the share of the GPU's peak, and the batch from which it is full."""

import pytest
from measured_runs import record

from sweep.analysis import layers
from sweep.report import ranking
from sweep.report.columns import figures

MODEL = {"parameters": 1, "gmacs": 4.0, "opset": 20, "opset_of_file": None, "made_from": None}
RATES = {1: 4000.0, 4: 15000.0, 16: 20000.0, 64: 20500.0}
RECORDS = [record(batch, [rate], model=MODEL) for batch, rate in RATES.items()]


def test_throughput_is_held_against_the_peak_of_the_precisions_type() -> None:
    assert layers.achieved_tflops(RECORDS[0]) == pytest.approx(2 * 4e9 * 4000 / 1e12)
    assert layers.share_of_peak(RECORDS[0]) == pytest.approx(32 / 67)  # fp32 of an H200
    for other in ({"facts": {"gpu": "unheard of"}}, {"axes": {"backend": "onnxruntime"}}, {"peak": None}):
        assert layers.share_of_peak(record(model=MODEL, **other)) is None  # type: ignore[arg-type]
    assert layers.achieved_tflops(record(model=None)) is None


def test_records_that_differ_in_batch_alone_tell_when_the_device_is_full() -> None:
    others = [record(2, axes={"cuda_graph": True}), record(8, peak=None)]
    full = layers.full_batches([*RECORDS, *others])
    assert set(full) == {item.key for item in RECORDS}
    assert {str(answer) for answer in full.values()} == {"16"}
    assert layers.full_batches(RECORDS[:1]) == {}


def test_the_page_has_a_column_for_each_and_the_terminal_has_no_room() -> None:
    columns = {column.name: column for column in figures(RECORDS, ranking.answer(RECORDS, None), None)}
    names = ("tflops", "compute_peak_share", "full_from_batch")
    assert [columns[name].text(RECORDS[0]) for name in names] == ["32", "47.8%", "16"]
    assert not any(columns[name].on_terminal for name in names)
    without = figures([record()], ranking.answer([record()], None), None)
    assert not {column.name for column in without} & set(names)
