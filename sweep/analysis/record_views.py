"""Read single figures out of a finished record, for tables, reports and MLflow."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sweep.spec import JsonDict
    from sweep.storage.record import Record

_KNEE = 0.9  # of the peak, up to which a prediction is held to what was measured
_NEAR = 0.1  # of the peak, that a rung may be off and still stand for a fraction


def joules(record: Record) -> float | None:
    """Energy of a sample, where a GPU's counter told it."""
    return (record.telemetry or {}).get("energy_j_per_sample")


def score(record: Record) -> float | None:
    """Share of labelled samples that the engine got right, where there are some."""
    return (record.accuracy or {}).get("score")


def light(record: Record) -> JsonDict | None:
    """The lowest rung that has a median and was not spoilt by the generator or by overload."""
    return next((point for point in record.points if _shown(point)), None)


def near(record: Record, fraction: float) -> JsonDict | None:
    """The rung offered nearest to ``fraction`` of the peak, within a tenth of it, under the same condition."""
    if record.peak is None or not record.peak["ips"]:
        return None
    peak = record.peak["ips"]
    offset = {
        round(abs(point["offered_ips"] / peak - fraction), 6): point
        for point in reversed(record.points)
        if _shown(point)
    }
    nearest = min(offset, default=None)
    return offset[nearest] if nearest is not None and nearest <= _NEAR else None


def prediction_errors(record: Record) -> list[float]:
    """|predicted / measured - 1| of the p99 of each rung below the knee: up to 90% of the peak, verdict ``ok``."""
    peak = (record.peak or {}).get("ips") or 0.0
    counted = [item for item in record.points if item["verdict"] == "ok" and item["offered_ips"] <= _KNEE * peak]
    errors = [(item.get("prediction") or {}).get("error", {}).get("p99") for item in counted]
    return [abs(error) for error in errors if error is not None]


def _shown(point: JsonDict) -> bool:
    return point["verdict"] in {"ok", "unstable", "short"} and point["latency_ms"]["p50"] is not None


def drifted(record: Record) -> bool:
    """Whether the machine changed while the variant was measured."""
    return record.drift is not None and record.drift["verdict"] == "drifted"


def carried_tail(points: Iterable[JsonDict]) -> str | None:
    """The highest percentile, up to p99, that any of the points carries; None for none."""
    known = [point["latency_ms"] for point in points if _shown(point)]
    return next((name for name in ("p99", "p95", "p90", "p50") if any(item[name] is not None for item in known)), None)
