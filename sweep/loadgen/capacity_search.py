"""Search the capacity at an SLO: predict it, bracket it by short probes, confirm it by full runs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sweep.analysis import (
    CONFIRM,
    PROBE,
    all_evidence,
    confirmed_runs,
    estimate_service,
    percentiles,
)
from sweep.loadgen import search_rates
from sweep.loadgen.arrivals import draw_unit_arrivals
from sweep.loadgen.communicator import latest_now_ns
from sweep.loadgen.load_point import Place, open_point
from sweep.loadgen.slo_model import SloModel
from sweep.spec import Slo  # noqa: TC001 - msgspec reads the types of SearchRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sweep.backends import Session
    from sweep.spec import LoadAxes
    from sweep.storage import PointSamples

MAX_PROBES = 4
_FEW_PROBES = 2  # where a probe holds so few requests that its time is better spent on confirming
_PROBE_REQUESTS = 2000  # of a probe, from which on four of them pay
PROBE_SHARE = 0.05  # of the search's time, each
MAX_CONFIRMS = 3
_FIRST_SHARE, _FIRST_MARGIN = 0.4, 2.0  # of the first confirming run: share of the time, standard deviations to pass
_FIRST_INDEX = 1000  # of the first probe, so that no rung has its arrivals
_WARMUP_SHARE = 0.05  # of a run, at least
_LAST_MARGIN = 3.2  # to pass, of the last run, which takes all the time left after one that failed
_LAST_STEP = 1.0  # by which it stays below that one: both count together


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
        above = search_rates.recovery_probe(self._model, self._evidence)
        if above is not None:
            self._measure(PROBE, above, self._request.search_s * _FIRST_SHARE)
        for number in range(MAX_PROBES):
            rate = search_rates.next_probe(self._model, self._evidence)
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
            rate = search_rates.next_higher(self._model, evidence, window_left_s / self._batch, highest_ips)
            return None if rate is None else (rate, window_left_s)
        if any(item.kind == CONFIRM for item in evidence):
            rate = self._confirmable(window_left_s, _LAST_MARGIN, _LAST_STEP)
            rate = rate or search_rates.likeliest_confirm(
                self._model, evidence, window_left_s / self._batch, _LAST_STEP
            )
            return None if rate is None else (rate, window_left_s)
        seconds = min(self._request.search_s * _FIRST_SHARE, window_left_s)
        rate = self._confirmable(seconds, _FIRST_MARGIN, search_rates.STEP)
        later_rate = self._confirmable(window_left_s - seconds, _LAST_MARGIN, search_rates.STEP)
        if rate is None or later_rate is None:
            longest_rate = search_rates.likeliest_confirm(
                self._model, evidence, window_left_s / self._batch, search_rates.STEP
            )
            return None if longest_rate is None else (longest_rate, window_left_s)
        return rate, seconds

    def _confirmable(self, seconds: float, margin: float, step: float) -> float | None:
        return search_rates.next_confirm(self._model, self._evidence, seconds / self._batch, margin, step)

    def _ensure_tagged(self, rate_ips: float) -> None:
        """Measure one probe where nothing was measured, so that the next start of the sweep does not search again."""
        if not self.points:
            self._measure(PROBE, rate_ips, self._request.search_s * PROBE_SHARE)

    def _measure(self, kind: str, rate_ips: float, seconds: float) -> None:
        count = len(self.points)
        self._report(f"{self._request.slo.tag}: {rate_ips:,.0f} samples/s", count, MAX_PROBES + MAX_CONFIRMS)
        rate_rps = rate_ips / self._batch
        window = min(seconds, search_rates.MAX_REQUESTS / rate_rps)
        least = percentiles.min_count(self._request.slo.share) if kind == CONFIRM else 1
        warmup_s = max(self._load.warmup_s, _WARMUP_SHARE * window)
        run_load = replace(self._load, min_s=window, max_s=window, min_requests=least, warmup_s=warmup_s)
        place = Place(index=_FIRST_INDEX + self._searched + count, repeat=0, batch=self._batch)
        point = open_point(self._session, run_load, rate_rps, place)
        self.points.append(replace(point, kind=kind, asked=self._request.slo.tag))
        self._evidence += all_evidence(self.points[-1:], self._request.slo)
