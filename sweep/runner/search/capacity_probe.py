"""Predict the capacity of a probe by the queue model, from the service times that it measured."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from sweep.analysis import estimate_service, simulate_latency_ms
from sweep.errors import RecordError
from sweep.storage import samples_file

if TYPE_CHECKING:
    from sweep.analysis import Service
    from sweep.spec import Slo
    from sweep.storage import Record, Store

_ARRIVALS = 4000
_HALVINGS = 10
_LEAST, _MOST = 0.02, 1.2  # of the peak


def with_predicted(record: Record, store: Store, slo: Slo) -> Record:
    """Return the record of a probe with the predicted capacity in place of a searched one; unchanged without a peak."""
    if record.peak is None or not record.peak["ips"]:
        return record
    try:
        service = estimate_service(list(samples_file.load(store.samples_path(record.key))))
    except RecordError:
        return record
    if service is None:
        return record
    ips = predicted_ips(service, record.peak["ips"], int(record.variant.get("batch", 1)), slo)
    result = {
        "percentile": 100 * slo.share,
        "limit_ms": slo.limit_ms,
        "capacity_ips": ips,
        "next_ips": None,
        "reason": "predicted from a probe",
    }
    return dataclasses.replace(record, slo=result)  # type: ignore[arg-type]  # never written


def predicted_ips(service: Service, peak_ips: float, batch: int, slo: Slo) -> float | None:
    """Return the highest rate at which the simulated queue keeps the limit, samples/s; None if none does."""
    gaps = np.random.default_rng(0).exponential(1.0, _ARRIVALS)
    unit = np.cumsum(gaps * _ARRIVALS / gaps.sum())

    def holds(ips: float) -> bool:
        due_ns = unit * (1e9 * batch / ips)
        latency = simulate_latency_ms(service, due_ns)
        return float(np.quantile(latency, slo.share)) <= slo.limit_ms

    low, high = _LEAST * peak_ips, _MOST * peak_ips
    if not holds(low):
        return None
    for _ in range(_HALVINGS):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
