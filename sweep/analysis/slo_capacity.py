"""The most samples/s that keep an SLO: what each point says of it, and the record's ``slo``.

Pure: ``sweep.loadgen.capacity_search`` decides where to measure; the same samples always give the same verdict.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sweep.analysis import percentiles

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.spec import JsonDict
    from sweep.storage.samples import PointSamples

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweep.analysis.verdicts import open_verdict
from sweep.storage.samples import ASIDE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.spec import JsonDict
    from sweep.storage.samples import PointSamples

PROBE, CONFIRM = "probe", "confirm"
_SHOWN_IPS = 100.0  # rates above this are written without decimals


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What one open-loop point says of an SLO.

    Attributes:
        kind: ``probe``, ``confirm``, or the arrivals of a rung.
        rate_ips: offered rate, samples/s.
        requests: measured.
        over: of them, slower than the limit.
        inflated: requests that count as one (``percentiles.inflation``).
        confidence: that the SLO holds at this rate.
        broken: confidence that it does not.
        point_verdict: of the point itself (``verdicts.open_verdict``).
        carried: enough requests for the percentile to be printed.
    """

    kind: str
    rate_ips: float
    requests: int
    over: int
    inflated: float
    confidence: float
    broken: float
    point_verdict: str
    carried: bool

    @property
    def verdict(self) -> str:
        """``held`` or ``broken`` at 99% confidence, ``unclear``, ``overloaded``, or ``invalid``: no measurement."""
        if self.point_verdict in {"overloaded", "invalid"}:
            return self.point_verdict
        if self.confidence >= percentiles.CONFIDENCE:
            return "held"
        return "broken" if self.broken >= percentiles.CONFIDENCE else "unclear"

    @property
    def failed(self) -> bool:
        """It does not hold at this rate, at 99% confidence or by overload."""
        return self.verdict in {"broken", "overloaded"}


def tag(name: str, limit_ms: float) -> str:
    """The SLO as samples carry it: ``p99<=10``."""
    return f"{name}<={limit_ms:g}"


def evidence(passes: Sequence[PointSamples], p: float, limit_ms: float) -> Evidence:
    """What the passes of one point say, pooled.

    The confidence is the binomial one with the counts divided by their variance inflation: under load slow requests
    come in bursts, and forty of one burst say no more than one.
    """
    latency = np.concatenate([samples.latency_ms for samples in passes])
    over = int(np.count_nonzero(latency > limit_ms))
    inflated = percentiles.inflation(latency, p, limit_ms)
    return Evidence(
        kind=passes[0].kind,
        rate_ips=(passes[0].offered_rps or 0.0) * passes[0].batch,
        requests=len(latency),
        over=over,
        inflated=inflated,
        confidence=percentiles.held_confidence(len(latency), over, p, inflated),
        broken=percentiles.broken_confidence(len(latency), over, p, inflated),
        point_verdict=open_verdict(passes)[0] if len(latency) else "overloaded",
        carried=len(latency) >= percentiles.min_count(p),
    )


def all_evidence(points: Sequence[PointSamples], name: str, limit_ms: float) -> list[Evidence]:
    """Of the rungs, and of the probes and confirming runs that were measured for this SLO, in measured order."""
    rungs: dict[int, list[PointSamples]] = {}
    for point in points:
        if point.kind not in ASIDE:
            rungs.setdefault(point.index, []).append(point)
    own = [[point] for point in points if point.asked == tag(name, limit_ms)]
    p = percentiles.PERCENTILES[name]
    return [evidence(passes, p, limit_ms) for passes in (*rungs.values(), *own)]


def bracket(seen: Sequence[Evidence]) -> tuple[float, float]:
    """Highest rate that held and lowest that failed, 0 and infinity where there is none; the first below the second."""
    high = min((item.rate_ips for item in seen if item.failed), default=math.inf)
    low = max((item.rate_ips for item in seen if item.verdict == "held" and item.rate_ips < high), default=0.0)
    return low, high


def confirms(item: Evidence) -> bool:
    """A confirming run that held, with the count that its percentile needs."""
    return item.kind == CONFIRM and item.verdict == "held" and item.carried


def searched(points: Sequence[PointSamples], name: str, limit_ms: float) -> JsonDict | None:
    """The record's ``slo`` of a variant whose capacity was searched; None where it was not, for this SLO.

    Args:
        points: every sample of the variant.
        name: percentile, as ``p99``.
        limit_ms: its limit.

    Returns:
        {percentile, limit_ms, capacity_ips, confidence, next_ips, monotonic, confirmed, reason, probes}. The capacity
        is the highest rate whose confirming run held with everything below it; ``next_ips`` the lowest that did not
        hold. ``reason`` says why there is no capacity, or that the curve is not monotonic.
    """
    if not any(point.asked == tag(name, limit_ms) for point in points):
        return None
    seen = all_evidence(points, name, limit_ms)
    low, high = bracket(seen)
    taken = max((item for item in seen if confirms(item) and item.rate_ips < high), key=_rate, default=None)
    recovered = [item for item in seen if item.verdict == "held" and item.rate_ips > high]
    own = [item for item in seen if item.kind in {PROBE, CONFIRM}]
    return {
        "percentile": percentiles.PERCENTILES[name] * 100,
        "limit_ms": limit_ms,
        "capacity_ips": taken.rate_ips if taken else None,
        "confidence": taken.confidence if taken else None,
        "next_ips": high if high < math.inf else None,
        "monotonic": not recovered,
        "confirmed": taken is not None,
        "reason": _reason(seen, tag(name, limit_ms), low, taken, recovered),
        "probes": [_said(item) for item in own],
    }


def _rate(item: Evidence) -> float:
    return item.rate_ips


def _said(item: Evidence) -> JsonDict:
    return {
        "kind": item.kind,
        "offered_ips": item.rate_ips,
        "requests": item.requests,
        "over": item.over,
        "inflation": item.inflated,
        "confidence": item.confidence,
        "verdict": item.verdict,
    }


def _reason(
    seen: Sequence[Evidence], slo: str, low: float, taken: Evidence | None, recovered: Sequence[Evidence]
) -> str | None:
    """Why there is no capacity, or that it is not all that there is to say; None where it is."""
    failed = min((item for item in seen if item.failed), key=_rate, default=None)
    if recovered and failed:
        what = f"{slo} ms is broken at {_ips(failed)} samples/s and holds again at {_ips(min(recovered, key=_rate))}"
        return f"not monotonic: {what}"
    if taken:
        return None
    confirming = [item for item in seen if item.kind == CONFIRM]
    if all(item.verdict == "invalid" for item in seen):
        return "the load generator was the bottleneck at every rate (see the points' reasons)"
    if failed and not low and not confirming:
        return f"{slo} ms does not hold even at {_ips(failed)} samples/s: {_counted(failed)}"
    if confirming:
        return f"no confirming run held; the last, at {_ips(confirming[-1])} samples/s: {_counted(confirming[-1])}"
    return f"no run was long enough to confirm {slo} ms at 99% confidence: raise slo.search_s"


def _counted(item: Evidence) -> str:
    return f"{item.over:,} of {item.requests:,} requests were slower ({item.verdict})"


def _ips(item: Evidence) -> str:
    return f"{item.rate_ips:,.0f}" if item.rate_ips >= _SHOWN_IPS else f"{item.rate_ips:.3g}"


def slo_summary(
    points: Sequence[Sequence[PointSamples]], verdicts: Sequence[str], p: float, limit_ms: float
) -> JsonDict:
    """The record's ``slo``: the highest rung of the ladder that holds the SLO at 99% confidence.

    ``points`` holds the passes of each rung, lowest rate first, ``verdicts`` what ``open_verdict`` said of it.
    ``next_ips`` is the lowest rung that did not hold, so the capacity lies between the two; None means that no
    rung failed. Nothing is ``confirmed`` here: that takes a search (``sweep.analysis.slo_capacity``).
    """
    capacity = confidence = following = None
    monotonic = True
    for passes, verdict in zip(points, verdicts, strict=True):
        rate = (passes[0].offered_rps or 0.0) * passes[0].batch
        latency = np.concatenate([samples.latency_ms for samples in passes])
        sure = percentiles.slo_confidence(latency, p, limit_ms) if len(latency) else 0.0
        if verdict in {"overloaded", "invalid"} or sure < percentiles.CONFIDENCE:
            following = rate if following is None else following
        elif following is None:
            capacity, confidence = rate, sure
        else:
            monotonic = False
    return {
        "percentile": p * 100,
        "limit_ms": limit_ms,
        "capacity_ips": capacity,
        "confidence": confidence,
        "next_ips": following,
        "monotonic": monotonic,
        "confirmed": False,
        "reason": None,
        "probes": [],
    }
