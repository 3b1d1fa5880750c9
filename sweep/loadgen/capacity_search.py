"""Search the capacity at an SLO: predict it, bracket it by short probes, confirm it by full runs."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import scipy

from sweep.analysis import (
    CONFIRM,
    PROBE,
    all_evidence,
    bracket,
    confirmed_runs,
    confirms,
    counts_below,
    estimate_service,
    percentiles,
)
from sweep.loadgen.arrivals import draw_unit_arrivals
from sweep.loadgen.communicator import latest_now_ns
from sweep.loadgen.load_point import Place, open_point
from sweep.loadgen.slo_model import SloModel
from sweep.spec import Slo, SloVerdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sweep.analysis import Evidence, Floats
    from sweep.backends import Session
    from sweep.spec import LoadAxes
    from sweep.storage import PointSamples

MAX_PROBES = 4
_FEW_PROBES = 2  # where a probe holds so few requests that its time is better spent on confirming
_PROBE_REQUESTS = 2000  # of a probe, from which on four of them pay
PROBE_SHARE = 0.05  # of the search's time, each
MAX_CONFIRMS = 3
_FIRST_SHARE, _FIRST_MARGIN = 0.4, 2.0  # of the first confirming run: share of the time, standard deviations to pass
_STEP = 1.015  # below a run that failed, at least
_MAX_REQUESTS = 500_000  # of one run; a longer one would tell nothing more
_FIRST_INDEX = 1000  # of the first probe, so that no rung has its arrivals
_WARMUP_SHARE = 0.05  # of a run, at least
_SIDE = 1.05  # a probe to either side of the estimate is this far from it
_SAME_RATE = 1.015  # rates nearer to each other than this factor are the same
_CONTRADICTION = 1.1  # a rate that failed this far below the estimate contradicts it
_HIGHER_MARGIN = 1.6  # to pass, of a run above a rate that is confirmed
_HIGHER_ROOM = 1.6  # times the independent requests that a spotless run needs: how many count as one is uncertain
_HIGHER_STEP = 1.2  # by which that run is higher where none should pass: time left is spent although it may fail
_LAST_MARGIN = 3.2  # to pass, of the last run, which takes all the time left after one that failed
_LAST_STEP = 1.0  # by which it stays below that one: both count together
_MANY = 5.0  # times the fewest independent requests that confirm: from there on an estimate that errs costs no answer
_SAFE_SHARE = 0.45  # of the estimate, of a run with fewer
_SAFEST_SHARE = 0.38  # of the estimate, of a run that takes all the time since a part of it could confirm nothing
_RATE_STEPS = 400  # rates among which the highest that can be confirmed is looked up
_LOWEST_SHARE = 0.05  # of the saturation rate: where a search without success ends


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchRequest:
    """Request the search of the capacity under an SLO.

    Attributes:
        slo: latency objective.
        search_s: longest duration of the load during the search, s.
    """

    slo: Slo
    search_s: float


def run(
    session: Session,
    load: LoadAxes,
    request: SearchRequest,
    earlier: Sequence[PointSamples],
    report: Callable[[str, int, int], None] = lambda _stage, _done, _of: None,
) -> list[PointSamples]:
    """Search the capacity and confirm it.

    Args:
        session: what is driven.
        load: how; its arrivals, warm-up, bounds and seed.
        request: the SLO and the time.
        earlier: the variant's samples so far: the closed loop, the probes of service times, the rungs.
        report: called before each probe with its name, how many are done and how many there may be.

    Returns:
        What was measured, in order: ``probe`` and ``confirm`` points that carry the SLO's tag; at least one.
    """
    search = _Search(session, load, request, earlier, report)
    search.probe()
    search.confirm()
    return search.points


class _Search:
    """Hold one search: the samples so far and the time that is left."""

    def __init__(
        self,
        session: Session,
        load: LoadAxes,
        request: SearchRequest,
        earlier: Sequence[PointSamples],
        report: Callable[[str, int, int], None],
    ) -> None:
        self.points: list[PointSamples] = []
        self._session, self._load, self._request, self._report = session, load, request, report
        self._evidence = all_evidence(earlier, request.slo)
        self._batch = earlier[0].batch
        self._searched = sum(point.asked is not None for point in earlier)
        self._start_ns = latest_now_ns(session)
        service = estimate_service(earlier)
        assert service is not None  # noqa: S101 - a curve begins with a closed loop; tells mypy
        self._model = SloModel(
            service,
            self._batch,
            request.slo.share,
            request.slo.limit_ms,
            lambda count: draw_unit_arrivals(load.arrivals, count, (load.seed, 6), service.clients),
        )

    @property
    def _left_s(self) -> float:
        return self._request.search_s - (latest_now_ns(self._session) - self._start_ns) / 1e9

    def probe(self) -> None:
        """Measure short probes around the estimate until both its sides are known; a long one where they contradict."""
        above = contradicted(self._model, self._evidence)
        if above is not None:
            self._measure(PROBE, above, self._request.search_s * _FIRST_SHARE)
        for number in range(MAX_PROBES):
            rate = next_probe(self._model, self._evidence)
            if rate is None:
                return
            seconds = self._request.search_s * PROBE_SHARE
            if number >= _FEW_PROBES and seconds * rate / self._batch < _PROBE_REQUESTS and above is None:
                return
            self._measure(PROBE, rate, seconds)

    def confirm(self) -> None:
        """Measure full runs: one with room to pass, then one that takes all the time left.

        The second is higher after one that passed; after one that failed it is lower, at a rate that should pass. The
        first takes all the time where a part of it could confirm nothing.
        """
        for _ in range(MAX_CONFIRMS):
            window_left_s = max(self._left_s / (1 + _WARMUP_SHARE) - self._load.warmup_s, 1e-3)
            chosen = self._next_run(window_left_s)
            if chosen is None:
                return
            rate, seconds = chosen
            needed_s = percentiles.min_count(self._request.slo.share) * self._batch / rate
            if seconds < 2 * needed_s:
                seconds = window_left_s
            if seconds < needed_s:
                self._ensure_tagged(rate)
                return
            self._measure(CONFIRM, rate, seconds)

    def _next_run(self, window_left_s: float) -> tuple[float, float] | None:
        """Return rate and duration of the next confirming run, samples/s and s; None where none is left to try."""
        evidence = self._evidence
        confirmed = confirmed_runs(self.points, self._request.slo)
        if confirmed:
            highest_ips = max(item.rate_ips for item in confirmed)
            rate = next_higher(self._model, evidence, window_left_s / self._batch, highest_ips)
            return None if rate is None else (rate, window_left_s)
        if any(item.kind == CONFIRM for item in evidence):
            rate = self._confirmable(window_left_s, _LAST_MARGIN, _LAST_STEP)
            rate = rate or likeliest_confirm(self._model, evidence, window_left_s / self._batch, _LAST_STEP)
            return None if rate is None else (rate, window_left_s)
        seconds = min(self._request.search_s * _FIRST_SHARE, window_left_s)
        rate = self._confirmable(seconds, _FIRST_MARGIN, _STEP)
        later_rate = self._confirmable(window_left_s - seconds, _LAST_MARGIN, _STEP)
        if rate is None or later_rate is None:
            longest_rate = likeliest_confirm(self._model, evidence, window_left_s / self._batch, _STEP)
            return None if longest_rate is None else (longest_rate, window_left_s)
        return rate, seconds

    def _confirmable(self, seconds: float, margin: float, step: float) -> float | None:
        return next_confirm(self._model, self._evidence, seconds / self._batch, margin, step)

    def _ensure_tagged(self, rate_ips: float) -> None:
        """Measure one probe where nothing was measured, so that the next start of the sweep does not search again."""
        if not self.points:
            self._measure(PROBE, rate_ips, self._request.search_s * PROBE_SHARE)

    def _measure(self, kind: str, rate_ips: float, seconds: float) -> None:
        count = len(self.points)
        self._report(f"{self._request.slo.tag}: {rate_ips:,.0f} samples/s", count, MAX_PROBES + MAX_CONFIRMS)
        rate_rps = rate_ips / self._batch
        window = min(seconds, _MAX_REQUESTS / rate_rps)
        least = percentiles.min_count(self._request.slo.share) if kind == CONFIRM else 1
        warmup_s = max(self._load.warmup_s, _WARMUP_SHARE * window)
        run_load = replace(self._load, min_s=window, max_s=window, min_requests=least, warmup_s=warmup_s)
        place = Place(index=_FIRST_INDEX + self._searched + count, repeat=0, batch=self._batch)
        point = open_point(self._session, run_load, rate_rps, place)
        self.points.append(replace(point, kind=kind, asked=self._request.slo.tag))
        self._evidence += all_evidence(self.points[-1:], self._request.slo)


def contradicted(model: SloModel, evidence: Sequence[Evidence]) -> float | None:
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
    return _allowed(model, evidence, rate, _STEP)


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
    return np.asarray(np.minimum(rates * per_ips, _MAX_REQUESTS) / (scale * model.inflation(rates)))


def _nearest(evidence: Sequence[Evidence], rate: float) -> list[Evidence]:
    usable = [item for item in evidence if item.verdict not in {"invalid", "overloaded"} and item.rate_ips > 0]
    return sorted(usable, key=lambda item: abs(math.log(item.rate_ips / rate)))[:3]


def _spotless_count(p: float) -> float:
    """Return the fewest independent requests that confirm percentile ``p`` with none of them slower."""
    return math.log(1 - percentiles.CONFIDENCE) / math.log(p)


def _confidence_deviations() -> float:
    """Return the one-sided standard deviations of ``percentiles.CONFIDENCE``."""
    return float(scipy.special.ndtri(percentiles.CONFIDENCE))
