"""Use a record as a sweep does that has read it: tables, ranking, page, MLflow, gates, recomputing."""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from sweep.analysis import accuracy_gates, reevaluate
from sweep.cli.recompute import summaries
from sweep.report import html, table
from sweep.report.mlflow import record_mapping
from sweep.report.ranking import answer
from sweep.spec.gates import Gates
from sweep.spec.slo import Slo
from sweep.storage import record_file

if TYPE_CHECKING:
    from sweep.storage.record import Record

SLO = Slo("p99", 5.0)
GATES = Gates(min_sqnr_db=30.0, min_top1=0.9, max_error=0.1, min_cosine=0.9, min_score=0.5, max_score_drop=0.1)


@functools.cache
def sound_record() -> Record:
    """Return the record that stands beside others in tables."""
    data = Path(__file__).resolve().parents[1] / "data"
    return record_file.read(next((data / "schemas" / "1").glob("*.json")))


def use_record(record: Record, *, drawn: bool = False) -> None:
    """Use a record in every way; `drawn` renders its page too, which takes longer."""
    sound = sound_record()
    undrifted = dataclasses.replace(record, drift=None)
    assert answer([undrifted, sound], None).text
    for slo, records in ((None, [record]), (SLO, [undrifted, sound])):
        table.print_outcome(Console(file=io.StringIO(), width=200), records, answer(records, slo), slo)
    assert json.dumps(html.context("t", [record], answer([record], None)), allow_nan=False)
    if drawn:
        assert html.render("t", [record, sound], answer([record, sound], SLO))
    record_mapping.params(record)
    record_mapping.tags(record)
    assert all(math.isfinite(value.value) for value in record_mapping.metrics(record))
    assert record_mapping.started_ms(record) <= record_mapping.ended_ms(record)
    reevaluate.failed_gate(record.error)
    for dtype in ("fp32", "int8"):
        accuracy_gates.fault(dtype, record.accuracy, GATES)
    again = summaries.resummed(record, [], {})
    summaries.differing(json.loads(record_file.encode(record)), dataclasses.asdict(again))
