"""Read single figures out of a finished record, for tables, reports and MLflow."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sweep.analysis.accuracy import is_known
from sweep.spec import DriftVerdict, Verdict, slo

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sweep.spec import PercentileName
    from sweep.storage import Point, Record

_KNEE = 0.9  # of the peak, up to which a prediction is held to what was measured
_SHOWN = (Verdict.OK, Verdict.UNSTABLE, Verdict.SHORT)
_TAILS: tuple[PercentileName, ...] = ("p99", "p95", "p90", "p50")
_NONE_OVER = 0.01  # chance of no request over the percentile, below which the count carries it
_NEAR = 0.1  # of the peak, that a rung may be off and still stand for a fraction


def joules(record: Record) -> float | None:
    """Return the energy of a sample, J; None where no GPU's counter measured it."""
    return None if record.telemetry is None else record.telemetry["energy_j_per_sample"]


def score(record: Record) -> float | None:
    """Return the share of labelled samples that the engine got right, 0 to 1; None where there are none."""
    return None if record.accuracy is None else record.accuracy.get("score")


def sqnr_text(record: Record) -> str:
    """Return the SQNR of a record for a table, dB: ``exact`` for equal outputs, ``-`` where it is not known."""
    figures = record.accuracy
    if figures is None or not is_known(figures):
        return "-"
    return "exact" if figures["sqnr_db"] is None else f"{figures['sqnr_db']:.1f}"


def light(record: Record) -> Point | None:
    """Return the lowest rung that has a median and was disturbed neither by the generator nor by overload."""
    return next((point for point in record.points if _is_shown(point)), None)


def near(record: Record, fraction: float) -> Point | None:
    """Return the rung offered nearest to ``fraction`` of the peak, within a tenth of it, under the same condition."""
    if record.peak is None or not record.peak["ips"]:
        return None
    peak = record.peak["ips"]
    offset = {
        round(abs(point["offered_ips"] / peak - fraction), 6): point
        for point in reversed(record.points)
        if _is_shown(point)
    }
    nearest = min(offset, default=None)
    return offset[nearest] if nearest is not None and nearest <= _NEAR else None


def prediction_errors(record: Record) -> list[float]:
    """Return |predicted / measured - 1| of the p99 of each rung up to 90% of the peak whose verdict is ``ok``."""
    highest = _KNEE * ((record.peak and record.peak["ips"]) or 0.0)
    counted = [item for item in record.points if item["verdict"] == Verdict.OK and item["offered_ips"] <= highest]
    predictions = [prediction for item in counted if (prediction := item.get("prediction")) is not None]
    return [abs(error) for prediction in predictions if (error := prediction["error"]["p99"]) is not None]


def _is_shown(point: Point) -> bool:
    return point["verdict"] in _SHOWN and point["latency_ms"]["p50"] is not None


def probably_higher(point: Point, name: PercentileName) -> bool:
    """Tell whether too few of a point's requests are independent to carry a percentile, which is then biased low.

    Without slow requests that come together, ``percentiles.min_count`` with none over the mark is enough: the fewest n
    with ``p ** n`` of at most 1%.
    """
    counted = dict(point.get("independent") or {}).get(name)
    fewest = math.ceil(math.log(_NONE_OVER) / math.log(slo.PERCENTILES[name]))
    return isinstance(counted, (int, float)) and counted < fewest


def curve_is_unusable(record: Record) -> bool:
    """Tell whether a record has points and none below the knee is worth its figures."""
    worth = [point for point in record.points if point["verdict"] == Verdict.OK]
    return bool(record.points) and not worth


def drifted(record: Record) -> bool:
    """Tell whether the machine changed while the variant was measured."""
    return record.drift is not None and record.drift["verdict"] == DriftVerdict.DRIFTED


def carried_tail(points: Iterable[Point]) -> PercentileName | None:
    """Return the highest percentile, up to p99, that any of the points carries; None for none."""
    summaries = [point["latency_ms"] for point in points if _is_shown(point)]
    return next((name for name in _TAILS if any(item[name] is not None for item in summaries)), None)
