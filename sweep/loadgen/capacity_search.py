"""Search the capacity at an SLO: predict it, bracket it by short probes, confirm it by full runs."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import scipy

from sweep.analysis import CONFIRM, PROBE, all_evidence, bracket, confirms, estimate_service, percentiles
from sweep.loadgen.arrivals import draw_unit_arrivals
from sweep.loadgen.communicator import latest_now_ns
from sweep.loadgen.load_point import Place, open_point
from sweep.loadgen.slo_model import SloModel
from sweep.spec import Slo  # noqa: TC001 - msgspec reads the annotations of `SearchRequest` when the program runs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sweep.analysis import Evidence
    from sweep.backends import Session
    from sweep.spec import LoadAxes
    from sweep.storage import PointSamples

MAX_PROBES = 4
PROBE_SHARE = 0.05  # of the search's time, each
# Of each confirming run: share of the time, room to pass (standard deviations), step below a run that failed.
CONFIRMS = ((0.35, 0.6, 1.015), (0.2, 1.2, 1.015), (0.15, 2.0, 1.04), (0.1, 2.3, 1.1))
_MAX_REQUESTS = 500_000  # of one run; a longer one would tell nothing more
_FIRST_INDEX = 1000  # of the first probe, so that no rung has its arrivals
_WARMUP_SHARE = 0.05  # of a run, at least
_SIDE = 1.05  # a probe to either side of the estimate is this far from it
_SAME_RATE = 1.015  # rates nearer to each other than this factor are the same
_CONTRADICTION = 1.1  # a rate that failed this far below the estimate contradicts it
_LAST_MARGIN = 1.2  # to pass, of a run that takes all the time left: no other run could confirm anything after it
_SHORT_SHARE = 0.8  # all the time left is also taken where less could confirm only this part of its rate
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
        self._session, self._load, self._request, self._earlier, self._report = session, load, request, earlier, report
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
    def _evidence(self) -> list[Evidence]:
        return all_evidence([*self._earlier, *self.points], self._request.slo)

    @property
    def _left_s(self) -> float:
        return self._request.search_s - (latest_now_ns(self._session) - self._start_ns) / 1e9

    def probe(self) -> None:
        """Measure short probes around the estimate until both its sides are known; a long one where they contradict."""
        above = contradicted(self._model, self._evidence)
        if above is not None:
            self._measure(PROBE, above, self._request.search_s * CONFIRMS[0][0])
        for _ in range(MAX_PROBES):
            rate = next_probe(self._model, self._evidence)
            if rate is None:
                return
            self._measure(PROBE, rate, self._request.search_s * PROBE_SHARE)

    def confirm(self) -> None:
        """Measure full runs in the time left: lower after one that failed, higher after one that passed with a margin.

        A run takes its share of the time, or all that is left where its share would not carry the percentile.
        """
        for share, margin, step in CONFIRMS:
            window_left_s = max(self._left_s / (1 + _WARMUP_SHARE) - self._load.warmup_s, 1e-3)
            seconds = min(self._request.search_s * share, window_left_s)
            rate, longest_rate, later_rate = (
                next_confirm(self._model, self._evidence, each / self._batch, most_margin, step)
                for each, most_margin in (
                    (seconds, margin),
                    (window_left_s, max(margin, _LAST_MARGIN)),
                    (window_left_s - seconds, _LAST_MARGIN),
                )
            )
            if longest_rate is not None and (rate is None or later_rate is None or rate < _SHORT_SHARE * longest_rate):
                rate, seconds = longest_rate, window_left_s
            if rate is None:
                return
            needed_s = percentiles.min_count(self._request.slo.share) * self._batch / rate
            if seconds < 2 * needed_s:
                seconds = window_left_s
            if seconds < needed_s:
                self._ensure_tagged(rate)
                return
            self._measure(CONFIRM, rate, seconds)

    def _ensure_tagged(self, rate_ips: float) -> None:
        """Measure one probe where nothing was measured, so that the next start of the sweep does not search again."""
        if not self.points:
            self._measure(PROBE, rate_ips, self._request.search_s * PROBE_SHARE)

    def _measure(self, kind: str, rate_ips: float, seconds: float) -> None:
        count = len(self.points)
        self._report(f"{self._request.slo.tag}: {rate_ips:,.0f} samples/s", count, MAX_PROBES + len(CONFIRMS))
        rate_rps = rate_ips / self._batch
        window = min(seconds, _MAX_REQUESTS / rate_rps)
        least = percentiles.min_count(self._request.slo.share) if kind == CONFIRM else 1
        warmup_s = max(self._load.warmup_s, _WARMUP_SHARE * window)
        run_load = replace(self._load, min_s=window, max_s=window, min_requests=least, warmup_s=warmup_s)
        place = Place(index=_FIRST_INDEX + self._searched + count, repeat=0, batch=self._batch)
        point = open_point(self._session, run_load, rate_rps, place)
        self.points.append(replace(point, kind=kind, asked=self._request.slo.tag))


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
    failed_ips = [item.rate_ips for item in evidence if item.kind == CONFIRM and item.verdict != "held"]
    low, high = bracket(evidence)
    if rate > high * _CONTRADICTION:  # what failed there contradicts the estimate: only what held is left
        rate = low
    rate = min([rate, high / _SAME_RATE, *(rate_ips / step for rate_ips in failed_ips)])
    confirmed_ips = max((item.rate_ips for item in evidence if confirms(item) and item.rate_ips < high), default=0.0)
    hopeless = rate < _LOWEST_SHARE * model.saturation_ips or (
        rate > low and float(model.slow_share(np.array(rate))) > 1 - model.p
    )
    return None if hopeless or rate <= confirmed_ips * _SAME_RATE else rate


def _confirmable(model: SloModel, evidence: Sequence[Evidence], per_ips: float, margin: float) -> float | None:
    """Return the highest rate whose run should pass the 99% rule with ``margin``; None where no run of that length can.

    Near the knee slow requests come in ever longer bursts, so that the same count says ever less: a rate further down
    may be the highest that this much time can confirm. How many count as one is predicted by rate, and scaled by what
    was measured.
    """
    rates = np.exp(
        np.linspace(math.log(_LOWEST_SHARE * model.saturation_ips), math.log(model.capacity_ips()), _RATE_STEPS)
    )
    nearest = _nearest(evidence, float(rates[-1]))
    measured = [item.inflated / float(model.inflation(np.array(item.rate_ips))) for item in nearest]
    scale = max(float(np.median(measured or [1.0])), 1.0)
    counts = np.minimum(rates * per_ips, _MAX_REQUESTS) / (scale * model.inflation(rates))
    shares = model.slow_share(rates)
    deviations = _confidence_deviations() + margin * np.sqrt(1 + counts / model.effective_requests)
    enough = counts >= math.log(1 - percentiles.CONFIDENCE) / math.log(model.p)  # with none of them slower
    passing = np.flatnonzero(enough & (shares + deviations * np.sqrt(shares / np.maximum(counts, 1)) <= 1 - model.p))
    return float(rates[passing[-1]]) if len(passing) else None


def _nearest(evidence: Sequence[Evidence], rate: float) -> list[Evidence]:
    usable = [item for item in evidence if item.verdict not in {"invalid", "overloaded"} and item.rate_ips > 0]
    return sorted(usable, key=lambda item: abs(math.log(item.rate_ips / rate)))[:3]


def _confidence_deviations() -> float:
    """Return the one-sided standard deviations of ``percentiles.CONFIDENCE``."""
    return float(scipy.special.ndtri(percentiles.CONFIDENCE))
