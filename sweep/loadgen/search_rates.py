"""Choose the rates of a capacity search: of its probes, and of its confirming runs by what each can confirm."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import scipy

from sweep.analysis import CONFIRM, bracket, confirms, counts_below, percentiles
from sweep.spec import SloVerdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.analysis import Evidence, Floats
    from sweep.loadgen.slo_model import SloModel

STEP = 1.015  # below a run that failed, at least
MAX_REQUESTS = 500_000  # of one run; a longer one would tell nothing more
_SIDE = 1.05  # a probe to either side of the estimate is this far from it
_SAME_RATE = 1.015  # rates nearer to each other than this factor are the same
_CONTRADICTION = 1.1  # a rate that failed this far below the estimate contradicts it
_HIGHER_MARGIN = 1.6  # to pass, of a run above a rate that is confirmed
_HIGHER_ROOM = 1.6  # times the independent requests that a spotless run needs: how many count as one is uncertain
_HIGHER_STEP = 1.2  # by which that run is higher where none should pass: time left is spent although it may fail
_MANY = 5.0  # times the fewest independent requests that confirm: from there on an estimate that errs costs no answer
_SAFE_SHARE = 0.45  # of the estimate, of a run with fewer
_SAFEST_SHARE = 0.38  # of the estimate, of a run that takes all the time since a part of it could confirm nothing
_RATE_STEPS = 400  # rates among which the highest that can be confirmed is looked up
_LOWEST_SHARE = 0.05  # of the saturation rate: where a search without success ends


def recovery_probe(model: SloModel, evidence: Sequence[Evidence]) -> float | None:
    """Return the rate to probe where a point failed far below the estimate: does the SLO hold again above it?

    Args:
        model: the estimate.
        evidence: evidence of what was measured so far.

    Returns:
        The rate, samples/s; None where no point failed so, or where the answer was measured.
    """
    model.fit(evidence)
    high, rate = bracket(evidence)[1], model.capacity_ips() / _CONTRADICTION
    recovered = any(item.verdict == "held" and item.rate_ips > high for item in evidence)
    return None if recovered or rate <= high * _CONTRADICTION else rate


def next_probe(model: SloModel, evidence: Sequence[Evidence]) -> float | None:
    """Return the rate of the next probe.

    First the estimate itself, then whichever side of it was not measured, within what held and what failed. Where a
    point failed far below the estimate: half-way (in the log) between that point and the highest that held.

    Args:
        model: the estimate.
        evidence: evidence of what was measured so far.

    Returns:
        The rate, samples/s; None once both sides of the estimate were measured.
    """
    model.fit(evidence)
    low, high = bracket(evidence)
    rate = model.capacity_ips()
    floor = _LOWEST_SHARE * model.saturation_ips
    half_way = math.sqrt(max(low, floor) * high) if high < math.inf else 0.0
    candidates = [rate, rate * _SIDE, rate / _SIDE] if rate <= high * _CONTRADICTION else [half_way]
    inside = (min(max(item, low * _SAME_RATE, floor), max(high / _SAME_RATE, floor)) for item in candidates)
    return next((item for item in inside if not any(_is_same_rate(other.rate_ips, item) for other in evidence)), None)


def _is_same_rate(rate: float, other_rate: float) -> bool:
    return max(rate, other_rate) <= min(rate, other_rate) * _SAME_RATE


def next_confirm(
    model: SloModel, evidence: Sequence[Evidence], per_ips: float, margin: float, step: float
) -> float | None:
    """Return the rate of the next confirming run.

    As high as the estimate allows: the share of slow requests must pass the 99% rule although the run and the
    estimate are both off by chance, by ``margin`` standard deviations. Above what was confirmed, below what failed.

    Args:
        model: the estimate.
        evidence: evidence of what was measured so far.
        per_ips: requests of the run for each sample/s at which it is offered.
        margin: 1 passes five times in six, 2.3 ninety-nine in a hundred.
        step: factor by which to stay below a run that failed.

    Returns:
        The rate, samples/s; None where none is left to try.
    """
    model.fit(evidence)
    rate = _confirmable(model, evidence, per_ips, margin)
    if rate is None:
        return None
    if not any(confirms(item) for item in evidence):
        rate = _safe(model, evidence, rate, per_ips)
    return _allowed(model, evidence, rate, step)


def next_higher(model: SloModel, evidence: Sequence[Evidence], per_ips: float, confirmed_ips: float) -> float | None:
    """Return the rate of the run that takes the time left after one that confirmed: nothing is lost where it fails.

    Where no higher one should pass it lies half-way (in the log) to the estimate, by a fifth at most.

    Args:
        model: the estimate.
        evidence: evidence of what was measured so far.
        per_ips: requests of the run for each sample/s at which it is offered.
        confirmed_ips: highest rate that is confirmed, samples/s.

    Returns:
        The rate, samples/s; None where no rate above what was confirmed is below what failed.
    """
    model.fit(evidence)
    rate = _confirmable(model, evidence, per_ips, _HIGHER_MARGIN, _HIGHER_ROOM) or 0.0
    if rate <= confirmed_ips * _SAME_RATE:
        rate = min(confirmed_ips * _HIGHER_STEP, math.sqrt(confirmed_ips * model.capacity_ips()))
    return _allowed(model, evidence, rate, STEP)


def likeliest_confirm(model: SloModel, evidence: Sequence[Evidence], per_ips: float, step: float) -> float | None:
    """Return the rate at which a run is most likely to pass although none is sure to: time left is better spent so.

    Args:
        model: the estimate.
        evidence: evidence of what was measured so far.
        per_ips: requests of the run for each sample/s at which it is offered.
        step: factor by which to stay below a run that failed.

    Returns:
        The rate, samples/s; None where no rate keeps the limit or has the count that the percentile needs.
    """
    model.fit(evidence)
    rates = _candidates(model)
    slack, enough = np.full(len(rates), -math.inf), np.zeros(len(rates), dtype=np.bool_)
    for counts, shares in _expected(model, evidence, rates, per_ips):
        slack = np.maximum(slack, (1 - model.p - shares) / np.sqrt((1 - model.p) / np.maximum(counts, 1)))
        enough |= counts >= _spotless_count(model.p)
    usable = rates * per_ips >= percentiles.min_count(model.p)
    for wanted in (usable & enough, usable):  # where no run can be long enough, the one that comes closest
        best = int(np.argmax(np.where(wanted, slack, -math.inf)))
        if wanted[best] and slack[best] > 0:
            rate = min(float(rates[best]), _SAFEST_SHARE * model.capacity_ips())
            return _allowed(model, evidence, rate, step)
    return None


def _safe(model: SloModel, evidence: Sequence[Evidence], rate: float, per_ips: float) -> float:
    """Return `rate`, or a lower one where so few requests will count that an estimate which errs loses the answer.

    The closed loop and two short probes miss what comes once in a thousand requests. At less than half of the capacity
    a run confirms in spite of it; what it leaves on the table a later run takes.
    """
    counts = float(_counts(model, evidence, np.array([rate]), per_ips)[0])
    return rate if counts >= _MANY * _spotless_count(model.p) else min(rate, _SAFE_SHARE * model.capacity_ips())


def _allowed(model: SloModel, evidence: Sequence[Evidence], rate: float, step: float) -> float | None:
    """Return ``rate``, or a lower one below what failed; None where none is left to try."""
    failed_ips = [item.rate_ips for item in evidence if item.kind == CONFIRM and item.verdict != "held"]
    low, high = bracket(evidence)
    if rate > high * _CONTRADICTION:  # what failed there contradicts the estimate: only what held is left
        rate = low
    rate = min([rate, high / _SAME_RATE, *(rate_ips / step for rate_ips in failed_ips)])
    confirmed_ips = max((item.rate_ips for item in evidence if confirms(item) and item.rate_ips < high), default=0.0)
    hopeless = rate < _LOWEST_SHARE * model.saturation_ips * (1 - 1e-9) or (
        rate > low and float(model.slow_share(np.array(rate))) > 1 - model.p
    )
    return None if hopeless or rate <= confirmed_ips * _SAME_RATE else rate


def _confirmable(
    model: SloModel, evidence: Sequence[Evidence], per_ips: float, margin: float, room: float = 1.0
) -> float | None:
    """Return the highest rate whose run should pass the 99% rule with ``margin``; None where no run of that length can.

    Near the knee slow requests come in ever longer bursts, so that the same count says ever less: a rate further down
    may be the highest that this much time can confirm. How many count as one is predicted by rate, and scaled by what
    was measured.
    """
    rates = _candidates(model)
    passes = np.zeros(len(rates), dtype=np.bool_)
    for counts, shares in _expected(model, evidence, rates, per_ips):
        deviations = _confidence_deviations() + margin * np.sqrt(1 + counts / model.effective_requests)
        enough = counts >= room * _spotless_count(model.p)
        passes |= enough & (shares + deviations * np.sqrt(shares / np.maximum(counts, 1)) <= 1 - model.p)
    passing = np.flatnonzero(passes & (rates * per_ips >= percentiles.min_count(model.p)))
    return float(rates[passing[-1]]) if len(passing) else None


def _expected(
    model: SloModel, evidence: Sequence[Evidence], rates: Floats, per_ips: float
) -> list[tuple[Floats, Floats]]:
    """Return the requests that will count as independent, and the share that is slow, of a run at each rate.

    The first entry is the run alone, the second the run together with the unclear ones just above its rate.
    """
    counts, shares = _counts(model, evidence, rates, per_ips), model.slow_share(rates)
    before, slow = np.zeros(len(rates)), np.zeros(len(rates))
    for item in evidence:
        if item.kind == CONFIRM and item.verdict == SloVerdict.UNCLEAR:
            counted = np.array([counts_below(item.rate_ips, rate) for rate in rates])
            before += counted * item.requests / item.inflated
            slow += counted * item.over / item.inflated
    together = counts + before
    return [(counts, shares), (together, (shares * counts + slow) / np.maximum(together, 1e-9))]


def _candidates(model: SloModel) -> Floats:
    lowest, highest = _LOWEST_SHARE * model.saturation_ips, model.capacity_ips()
    return np.asarray(np.exp(np.linspace(math.log(lowest), math.log(highest), _RATE_STEPS)))


def _counts(model: SloModel, evidence: Sequence[Evidence], rates: Floats, per_ips: float) -> Floats:
    """Return the requests of a run at each rate that count as independent."""
    nearest = _nearest(evidence, model.capacity_ips())
    measured = [item.inflated / float(model.inflation(np.array(item.rate_ips))) for item in nearest]
    scale = max([*measured, 1.0])  # the largest: near the knee of several servers the median lost two answers of five
    return np.asarray(np.minimum(rates * per_ips, MAX_REQUESTS) / (scale * model.inflation(rates)))


def _nearest(evidence: Sequence[Evidence], rate: float) -> list[Evidence]:
    usable = [item for item in evidence if item.verdict not in {"invalid", "overloaded"} and item.rate_ips > 0]
    return sorted(usable, key=lambda item: abs(math.log(item.rate_ips / rate)))[:3]


def _spotless_count(p: float) -> float:
    """Return the fewest independent requests that confirm percentile ``p`` with none of them slower."""
    return math.log(1 - percentiles.CONFIDENCE) / math.log(p)


def _confidence_deviations() -> float:
    """Return the one-sided standard deviations of ``percentiles.CONFIDENCE``."""
    return float(scipy.special.ndtri(percentiles.CONFIDENCE))
