"""Evaluate a stored record again under today's SLO and accuracy gates."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from sweep.analysis import accuracy_gates, memory
from sweep.analysis.record_summary import with_slo
from sweep.errors import RecordError
from sweep.spec import Limits, Status
from sweep.storage import samples_file

if TYPE_CHECKING:
    from sweep.spec import Gates, Slo
    from sweep.storage import ErrorInfo, Record, Store

_GATE_IN_MESSAGE = re.compile(r"(?:under load, on stream \d+: )?accuracy: .*\(accuracy\.(\w+)\)")


def regated(store: Store, record: Record, gates: Gates, limits: Limits | None = None) -> Record:
    """Return the record as these gates and limits have it, rewritten if that changes its status.

    What is invalid for another reason than a gate stays so, as does what made one of several clients invalid: the
    record's accuracy may be another's.
    """
    failed = failed_gate(record.error) if record.status == Status.INVALID else None
    if not (record.status == Status.OK or failed is not None):
        return record
    dtype = (record.variant.get("precision_recipe") or {}).get("dtype")
    if record.accuracy is not None and dtype is not None:
        fault = accuracy_gates.fault(dtype, record.accuracy, gates)
    elif failed not in {None, memory.MEMORY_GATE}:
        return record
    else:
        fault = None
    fault = fault or memory.fault(record, limits or Limits())
    if (fault is not None) == (failed is not None) and (failed == memory.MEMORY_GATE) == (
        fault is not None and fault.gate == memory.MEMORY_GATE
    ):
        return record
    error = None if fault is None else mismatch_error(fault.message, fault.gate)
    judged = replace(record, status=Status.INVALID if fault else Status.OK, error=error)
    store.write(judged)
    return judged


def mismatch_error(message: str, gate: str | None) -> ErrorInfo:
    """Return ``Record.error`` of a variant whose outputs or engine are not what was requested.

    Args:
        message: how they differ, in one line.
        gate: the gate (a field of ``Gates`` or ``Limits``) that is not kept; None where it is no gate.
    """
    return {"stage": "realised", "kind": "Mismatch", "message": message, "stderr_tail": [], "gate": gate}


def failed_gate(error: ErrorInfo | None) -> str | None:
    """Return the gate of accuracy or memory that made a record invalid; None for any other error."""
    if error is None:
        return None
    if "gate" in error:
        return error["gate"]
    # Records of earlier versions have the gate in the message alone.
    match = _GATE_IN_MESSAGE.match(error["message"])
    return match and match[1]


def rejudged(store: Store, key: str, slo: Slo | None) -> Record | None:
    """Return the record of ``key`` judged by ``slo``, rewritten if that changes it; None if it cannot be read.

    Without an SLO the record stays as it is, an earlier judgement included.
    """
    try:
        record = store.read(key)
    except RecordError:
        return None
    if slo is None or not record.points or _judged_by(record, slo):
        return record
    try:
        points = samples_file.load(store.samples_path(key))
    except RecordError:
        return record
    judged = with_slo(record, points, slo)
    store.write(judged)
    return judged


def _judged_by(record: Record, slo: Slo) -> bool:
    judged = record.slo
    return judged is not None and (judged["percentile"], judged["limit_ms"]) == (slo.share * 100, slo.limit_ms)
