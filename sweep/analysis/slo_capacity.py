"""Determine the highest rate that keeps an SLO: the evidence of each point, and the record's ``slo``.

Pure: ``sweep.loadgen.capacity_search`` decides where to measure; the same samples always give the same verdict.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from sweep.analysis import percentiles
from sweep.analysis.slo_estimate import estimate
from sweep.analysis.slo_evidence import Evidence
from sweep.analysis.verdicts import falls_behind, open_verdict
from sweep.spec import SloVerdict, Verdict
from sweep.storage import ASIDE, NEVER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.spec import Slo
    from sweep.storage import PointSamples, SloProbe, SloResult

PROBE, CONFIRM = "probe", "confirm"
_TOGETHER = 2.0  # a run counts for the rates that lie below its own by less than this factor
_AGAIN = 0.95  # confidence with which a rate holds above one that failed
_SHOWN_IPS = 100.0  # rates above this are written without decimals
_CLUSTERED = 2.0  # requests that count as one, from which on the reason names them


def evidence(passes: Sequence[PointSamples], slo: Slo) -> Evidence:
    """Return what the passes of one point show of `slo`, pooled.

    The confidence is the binomial one with the counts divided by their variance inflation: under load slow requests
    come in bursts, and forty of one burst say no more than one.
    """
    p, latency = slo.share, np.concatenate([_latency_ms(samples) for samples in passes])
    over = int(np.count_nonzero(latency > slo.limit_ms))
    inflated = percentiles.inflation(latency, p, slo.limit_ms)
    return Evidence(
        kind=passes[0].kind,
        rate_ips=_offered_ips(passes[0]),
        requests=len(latency),
        over=over,
        inflated=inflated,
        confidence=percentiles.held_confidence(len(latency), over, p, inflated),
        broken=percentiles.broken_confidence(len(latency), over, p, inflated),
        point_verdict=open_verdict(passes)[0]
        if any(samples.measured.any() for samples in passes)
        else Verdict.OVERLOADED,
        grows=not len(latency) or falls_behind(passes) > 0,
        carried=len(latency) >= percentiles.min_count(p),
    )


def _latency_ms(samples: PointSamples) -> percentiles.Floats:
    """Return the latencies of a run; of one that was ended, with what those had waited that were not served by then.

    The warm-up counts where the run ended in it.
    """
    if not samples.overloaded:
        return samples.latency_ms
    served = samples.done_ns != NEVER
    if not served.any():
        return np.empty(0)
    end = int(samples.done_ns[served].max())
    waited = np.where(served, samples.done_ns, end) - samples.scheduled_ns
    counted = served | (samples.scheduled_ns < end)
    measured = counted & ~samples.warmup
    return np.asarray(waited[measured if measured.any() else counted] / 1e6)


def all_evidence(points: Sequence[PointSamples], slo: Slo) -> list[Evidence]:
    """Return the evidence of the rungs, and of the probes and confirming runs for this SLO, in measured order."""
    rungs: dict[int, list[PointSamples]] = {}
    for point in points:
        if point.kind not in ASIDE:
            rungs.setdefault(point.index, []).append(point)
    searched = [[point] for point in points if point.asked == slo.tag]
    return [evidence(passes, slo) for passes in (*rungs.values(), *searched)]


def bracket(items: Sequence[Evidence]) -> tuple[float, float]:
    """Return the highest rate that held below the lowest that failed, and that; 0 and infinity where there is none."""
    high = min((item.rate_ips for item in items if item.failed), default=math.inf)
    low = max(
        (item.rate_ips for item in items if item.verdict == SloVerdict.HELD and item.rate_ips < high), default=0.0
    )
    return low, high


def confirms(item: Evidence) -> bool:
    """Return whether `item` is a confirming run that held, with the count that its percentile needs."""
    return item.kind == CONFIRM and item.verdict == SloVerdict.HELD and item.carried


def confirmed_runs(points: Sequence[PointSamples], slo: Slo) -> list[Evidence]:
    """Return the evidence of each confirming run that holds, by itself or together with those not far above its rate.

    Fewer requests are slow at a lower rate, so that the share of two runs together is at least that of the lower one: a
    run that held neither way is not lost where a lower one follows.

    Args:
        points: every sample of the variant.
        slo: the SLO.
    """
    runs = [point for point in points if point.asked == slo.tag and point.kind == CONFIRM]
    held = []
    for run in runs:
        own = evidence([run], slo)
        above = [other for other in runs if other is not run and counts_below(_offered_ips(other), own.rate_ips)]
        unclear = own.verdict == SloVerdict.UNCLEAR and own.over <= (1 - slo.share) * own.requests
        if not confirms(own) and unclear and above:
            own = evidence([run, *above], slo)
        if confirms(own):
            held.append(own)
    return held


def counts_below(rate_ips: float, lower_ips: float) -> bool:
    """Return whether a run at `rate_ips` counts for the confirmation of `lower_ips` too."""
    return lower_ips <= rate_ips <= lower_ips * _TOGETHER


def _offered_ips(samples: PointSamples) -> float:
    return (samples.offered_rps or 0.0) * samples.batch


def slo_result(points: Sequence[PointSamples], slo: Slo) -> SloResult | None:
    """Return the record's ``slo`` of a variant whose capacity was searched; None where it was not, for this SLO.

    The capacity is the highest rate whose confirming run held, by itself or together with those just above it
    (``confirmed_runs``), with everything below it.

    Args:
        points: every sample of the variant.
        slo: the SLO.
    """
    if not any(point.asked == slo.tag for point in points):
        return None
    items = all_evidence(points, slo)
    high = bracket(items)[1]
    held = confirmed_runs(points, slo)
    confirmed = max((item for item in held if item.rate_ips < high), key=_rate, default=None)
    recovered = [item for item in items if _holds_again(item) and item.rate_ips >= high]
    searched = [item for item in items if item.kind in {PROBE, CONFIRM}]
    likeliest = estimate(items, slo.share)
    return {
        "percentile": slo.share * 100,
        "limit_ms": slo.limit_ms,
        "capacity_ips": confirmed.rate_ips if confirmed else None,
        "confidence": confirmed.confidence if confirmed else None,
        "next_ips": high if high < math.inf else None,
        "monotonic": not recovered,
        "confirmed": confirmed is not None,
        "reason": _reason(items, slo.tag, confirmed, recovered),
        "estimate_ips": likeliest[0] if likeliest else None,
        "estimate_interval": likeliest[1] if likeliest else None,
        "probes": [_probe(item, held) for item in searched],
    }


def _holds_again(item: Evidence) -> bool:
    """Tell whether a run above one that failed is enough to call the curve not monotonic; no capacity follows of it."""
    counts = item.verdict in {SloVerdict.HELD, SloVerdict.UNCLEAR} and item.point_verdict != Verdict.OVERLOADED
    return counts and item.confidence >= _AGAIN


def _rate(item: Evidence) -> float:
    return item.rate_ips


def _probe(item: Evidence, held: Sequence[Evidence]) -> SloProbe:
    probe: SloProbe = {
        "kind": item.kind,
        "offered_ips": item.rate_ips,
        "requests": item.requests,
        "over": item.over,
        "inflation": item.inflated,
        "confidence": item.confidence,
        "verdict": item.verdict,
    }
    together = next((run for run in held if run.rate_ips == item.rate_ips and run.requests > item.requests), None)
    if together and item.kind == CONFIRM and item.verdict == SloVerdict.UNCLEAR:
        probe |= {"requests_together": together.requests, "confidence_together": together.confidence}
    return probe


def _reason(
    items: Sequence[Evidence], slo: str, confirmed: Evidence | None, recovered: Sequence[Evidence]
) -> str | None:
    """Return why there is no capacity, or that the curve is not monotonic; None where neither is so."""
    lowest_failed = min((item for item in items if item.failed), key=_rate, default=None)
    if recovered and lowest_failed:
        again = _ips(min(recovered, key=_rate))
        return f"not monotonic: {slo} ms is broken at {_ips(lowest_failed)} samples/s and holds again at {again}"
    if confirmed:
        return None
    confirming = [item for item in items if item.kind == CONFIRM]
    if all(item.verdict == SloVerdict.INVALID for item in items):
        return "the load generator was the bottleneck at every rate (see the points' reasons)"
    shown = [item for item in items if item.verdict != SloVerdict.INVALID]  # the others say nothing of their rate
    lower = [item for item in shown if lowest_failed and item.rate_ips < lowest_failed.rate_ips]
    if lowest_failed and not lower and not confirming:
        return f"{slo} ms does not hold even at {_ips(lowest_failed)} samples/s: {_counted(lowest_failed)}"
    if confirming:
        return f"no confirming run held; the last, at {_ips(confirming[-1])} samples/s: {_counted(confirming[-1])}"
    return f"no run was long enough to confirm {slo} ms at 99% confidence: raise slo.search_s"


def _counted(item: Evidence) -> str:
    """Word how many requests of a run were too slow, and where that says little, how many of them count as one."""
    clusters = f", where {item.inflated:,.0f} count as one, since slow ones come together"
    unclear = item.verdict == SloVerdict.UNCLEAR and item.inflated >= _CLUSTERED
    return f"{item.over:,} of {item.requests:,} requests were slower ({item.verdict}{clusters if unclear else ''})"


def _ips(item: Evidence) -> str:
    return f"{item.rate_ips:,.0f}" if item.rate_ips >= _SHOWN_IPS else f"{item.rate_ips:.3g}"


def slo_summary(points: Sequence[Sequence[PointSamples]], verdicts: Sequence[Verdict], slo: Slo) -> SloResult:
    """Return the record's ``slo``: the highest rung of the ladder that holds the SLO at 99% confidence.

    ``next_ips`` is the lowest rung that did not hold, so the capacity lies between the two; None means that no rung
    failed. Nothing is ``confirmed`` here: that takes a search (``searched``).

    Args:
        points: the passes of each rung, lowest rate first.
        verdicts: verdict of each rung (``open_verdict``).
        slo: the SLO.
    """
    capacity = confidence = next_ips = None
    monotonic = True
    for passes, verdict in zip(points, verdicts, strict=True):
        rate = (passes[0].offered_rps or 0.0) * passes[0].batch
        latency = np.concatenate([samples.latency_ms for samples in passes])
        held_confidence = percentiles.slo_confidence(latency, slo.share, slo.limit_ms) if len(latency) else 0.0
        if verdict in {Verdict.OVERLOADED, Verdict.INVALID} or held_confidence < percentiles.CONFIDENCE:
            next_ips = rate if next_ips is None else next_ips
        elif next_ips is None:
            capacity, confidence = rate, held_confidence
        else:
            monotonic = False
    return {
        "percentile": slo.share * 100,
        "limit_ms": slo.limit_ms,
        "capacity_ips": capacity,
        "confidence": confidence,
        "next_ips": next_ips,
        "monotonic": monotonic,
        "confirmed": False,
        "reason": None,
        "probes": [],
    }
