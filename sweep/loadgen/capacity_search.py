"""The search for the capacity at an SLO: predict, bracket, narrow down by short probes, confirm by full runs."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import scipy

from sweep.analysis import percentiles
from sweep.analysis.queue_model import estimate_service
from sweep.analysis.slo_capacity import CONFIRM, PROBE, all_evidence, bracket, confirms
from sweep.loadgen.arrivals import draw_unit_arrivals
from sweep.loadgen.communicator import latest_now_ns
from sweep.loadgen.load_point import Place, open_point
from sweep.loadgen.slo_model import SloModel
from sweep.spec.slo import Slo  # noqa: TC001 - msgspec reads the annotations of ``Ask`` when the program runs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sweep.analysis.slo_capacity import Evidence
    from sweep.backends.base import Session
    from sweep.spec import LoadAxes
    from sweep.storage.samples import PointSamples

PROBES = 4  # at most
PROBE_SHARE = 0.05  # of the search's time, each
# of each run that tries to confirm: share of the time, room to pass (standard deviations), step below one that failed
CONFIRMS = ((0.35, 0.6, 1.015), (0.2, 1.2, 1.015), (0.15, 2.0, 1.04), (0.1, 2.3, 1.1))
_MOST = 500_000  # requests of one run: past this a longer one tells nothing more
_INDEX = 1000  # of the first probe: its arrivals are those of no rung
_WARM_SHARE = 0.05  # of a run, that is warm-up at least
_SIDE = 1.05  # a probe to either side of the estimate is this far from it
_CLOSE = 1.015  # rates nearer to each other than this are the same
_APART = 1.1  # a rate that failed this far below the estimate contradicts it
_LONG_ROOM = 1.2  # of a run that takes all the time that is left: no other could confirm anything after it
_WORTH = 0.8  # it is also taken where a shorter one could confirm no more than this part of its rate
_FINE = 400  # rates among which the highest that can be confirmed is looked for
_LOWEST = 0.05  # of the capacity to serve: where a search that finds nothing ends


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """An SLO whose capacity is wanted.

    Attributes:
        slo: the SLO.
        search_s: seconds of load that the search may take.
    """

    slo: Slo
    search_s: float


def run(
    session: Session,
    load: LoadAxes,
    ask: Ask,
    known: Sequence[PointSamples],
    report: Callable[[str, int, int], None] = lambda _stage, _done, _of: None,
) -> list[PointSamples]:
    """Search the capacity and confirm it.

    Args:
        session: what is driven.
        load: how; its arrivals, warm-up, bounds and seed.
        ask: what is wanted.
        known: the variant's samples so far: the closed loop, the probes of service times, the rungs.
        report: called before each probe with its name, how many are done and how many there may be.

    Returns:
        What was measured, in order: ``probe`` and ``confirm`` points that carry the SLO's tag; at least one.
    """
    search = _Search(session, load, ask, known, report)
    search.probe()
    search.confirm()
    return search.made


class _Search:
    """One search: what is known, what was measured, and the time that it has left."""

    def __init__(
        self,
        session: Session,
        load: LoadAxes,
        ask: Ask,
        known: Sequence[PointSamples],
        report: Callable[[str, int, int], None],
    ) -> None:
        self.made: list[PointSamples] = []
        self._session, self._load, self._ask, self._known, self._report = session, load, ask, known, report
        self._batch = known[0].batch
        self._taken = sum(point.asked is not None for point in known)
        self._start_ns = latest_now_ns(session)
        service = estimate_service(known)
        assert service is not None  # noqa: S101 - a curve begins with a closed loop; tells mypy
        self._model = SloModel(
            service,
            self._batch,
            ask.slo.share,
            ask.slo.limit_ms,
            lambda count: draw_unit_arrivals(load.arrivals, count, (load.seed, 6), service.clients),
        )

    @property
    def _seen(self) -> list[Evidence]:
        return all_evidence([*self._known, *self.made], self._ask.slo)

    @property
    def _left_s(self) -> float:
        return self._ask.search_s - (latest_now_ns(self._session) - self._start_ns) / 1e9

    def probe(self) -> None:
        """Short probes around the estimate until both its sides were seen; a long one where the two contradict."""
        above = contradicted(self._model, self._seen)
        if above is not None:
            self._measure(PROBE, above, self._ask.search_s * CONFIRMS[0][0])
        for _ in range(PROBES):
            rate = next_probe(self._model, self._seen)
            if rate is None:
                return
            self._measure(PROBE, rate, self._ask.search_s * PROBE_SHARE)

    def confirm(self) -> None:
        """Full runs: step down after one that fails, up where one passed with room to spare; in the time that is left.

        A run takes its share of the time, or all that is left where the share would not carry the percentile.
        """
        for share, room, step in CONFIRMS:
            left = max(self._left_s / (1 + _WARM_SHARE) - self._load.warmup_s, 1e-3)
            seconds = min(self._ask.search_s * share, left)
            rate, longer, after = (
                next_confirm(self._model, self._seen, each / self._batch, most, step)
                for each, most in ((seconds, room), (left, max(room, _LONG_ROOM)), (left - seconds, _LONG_ROOM))
            )
            if longer is not None and (rate is None or after is None or rate < _WORTH * longer):
                rate, seconds = longer, left
            if rate is None:
                return
            needed_s = percentiles.min_count(self._ask.slo.share) * self._batch / rate
            if seconds < 2 * needed_s:
                seconds = left
            if seconds < needed_s:
                self._ensure_tagged(rate)
                return
            self._measure(CONFIRM, rate, seconds)

    def _ensure_tagged(self, rate_ips: float) -> None:
        """A search that could do nothing leaves a mark too, so that the next start does not begin it again."""
        if not self.made:
            self._measure(PROBE, rate_ips, self._ask.search_s * PROBE_SHARE)

    def _measure(self, kind: str, rate_ips: float, seconds: float) -> None:
        done = len(self.made)
        self._report(f"{self._ask.slo.tag}: {rate_ips:,.0f} samples/s", done, PROBES + len(CONFIRMS))
        rate_rps = rate_ips / self._batch
        window = min(seconds, _MOST / rate_rps)
        least = percentiles.min_count(self._ask.slo.share) if kind == CONFIRM else 1
        warmup_s = max(self._load.warmup_s, _WARM_SHARE * window)
        one = replace(self._load, min_s=window, max_s=window, min_requests=least, warmup_s=warmup_s)
        place = Place(index=_INDEX + self._taken + done, repeat=0, batch=self._batch)
        point = open_point(self._session, one, rate_rps, place)
        self.made.append(replace(point, kind=kind, asked=self._ask.slo.tag))


def contradicted(model: SloModel, seen: Sequence[Evidence]) -> float | None:
    """The rate to look at where something failed far below the estimate: does the SLO hold again above it?

    None where nothing did, or where the answer is known.
    """
    model.fit(seen)
    high, rate = bracket(seen)[1], model.capacity_ips() / _APART
    known = any(item.verdict == "held" and item.rate_ips > high for item in seen)
    return None if known or rate <= high * _APART else rate


def next_probe(model: SloModel, seen: Sequence[Evidence]) -> float | None:
    """Where to look next, samples/s; None once the estimate has been seen from both sides.

    First the estimate itself, then whichever side of it no point has shown, within what held and what failed. Where
    something failed far below the estimate: half-way (in the log) between that and what held.
    """
    model.fit(seen)
    low, high = bracket(seen)
    rate = model.capacity_ips()
    floor = _LOWEST * model.saturation_ips
    halved = math.sqrt(max(low, floor) * high) if high < math.inf else 0.0
    wanted = [rate, rate * _SIDE, rate / _SIDE] if rate <= high * _APART else [halved]
    inside = (min(max(item, low * _CLOSE, floor), max(high / _CLOSE, floor)) for item in wanted)
    return next((item for item in inside if not any(_same(other.rate_ips, item) for other in seen)), None)


def _same(one: float, other: float) -> bool:
    return max(one, other) <= min(one, other) * _CLOSE


def next_confirm(model: SloModel, seen: Sequence[Evidence], per_ips: float, room: float, step: float) -> float | None:
    """The rate at which to try to confirm the SLO; None where none is left to try.

    As high as the estimate allows: the share of slow requests must pass the 99% rule although the run and the
    estimate are both off by chance, by ``room`` standard deviations. Above what was confirmed, below what failed.

    Args:
        model: the estimate.
        seen: what was measured.
        per_ips: requests of the run for each sample/s at which it is offered.
        room: 1 passes five times in six, 2.3 ninety-nine in a hundred.
        step: how far below a run that failed.
    """
    model.fit(seen)
    rate = _confirmable(model, seen, per_ips, room)
    if rate is None:
        return None
    failed = [item.rate_ips for item in seen if item.kind == CONFIRM and item.verdict != "held"]
    low, high = bracket(seen)
    if rate > high * _APART:  # what failed there contradicts the estimate: only what held is left
        rate = low
    rate = min([rate, high / _CLOSE, *(other / step for other in failed)])
    confirmed = max((item.rate_ips for item in seen if confirms(item) and item.rate_ips < high), default=0.0)
    hopeless = rate < _LOWEST * model.saturation_ips or (
        rate > low and float(model.slow_share(np.array(rate))) > 1 - model.p
    )
    return None if hopeless or rate <= confirmed * _CLOSE else rate


def _confirmable(model: SloModel, seen: Sequence[Evidence], per_ips: float, room: float) -> float | None:
    """The highest rate whose run should pass the 99% rule with ``room``; None where no run of that length can.

    Near the knee slow requests come in ever longer bursts, so that the same count says ever less: a rate further down
    may be the highest that this much time can confirm. How many count as one is predicted by rate, and scaled by what
    was measured.
    """
    rates = np.exp(np.linspace(math.log(_LOWEST * model.saturation_ips), math.log(model.capacity_ips()), _FINE))
    near = _nearest(seen, float(rates[-1]))
    measured = [item.inflated / float(model.inflation(np.array(item.rate_ips))) for item in near]
    scale = max(float(np.median(measured or [1.0])), 1.0)
    counts = np.minimum(rates * per_ips, _MOST) / (scale * model.inflation(rates))
    shares = model.slow_share(rates)
    deviations = _sure_deviations() + room * np.sqrt(1 + counts / model.effective_requests)
    enough = counts >= math.log(1 - percentiles.CONFIDENCE) / math.log(model.p)  # with none of them slower
    passing = np.flatnonzero(enough & (shares + deviations * np.sqrt(shares / np.maximum(counts, 1)) <= 1 - model.p))
    return float(rates[passing[-1]]) if len(passing) else None


def _nearest(seen: Sequence[Evidence], rate: float) -> list[Evidence]:
    usable = [item for item in seen if item.verdict not in {"invalid", "overloaded"} and item.rate_ips > 0]
    return sorted(usable, key=lambda item: abs(math.log(item.rate_ips / rate)))[:3]


def _sure_deviations() -> float:
    """Standard deviations behind ``percentiles.CONFIDENCE``, one-sided."""
    return float(scipy.special.ndtri(percentiles.CONFIDENCE))
