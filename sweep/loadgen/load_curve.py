"""Measure the whole load of one variant: which points, in which order, and when to stop."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sweep.analysis import estimate_service, open_verdict, window_ips
from sweep.loadgen import arrival_trace, rate_ladder
from sweep.loadgen.arrival_processes import PROCESSES
from sweep.loadgen.communicator import latest_now_ns
from sweep.loadgen.load_point import Place, closed_point, open_point, samples_per_request, total_rates, trace_point

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sweep.backends import Session
    from sweep.spec import LoadAxes
    from sweep.storage import PointSamples

KINDS = ("curve", "closed", *PROCESSES, arrival_trace.KIND)
_CLOSED_FIRST = ("curve", "closed", "trace")


def measure(
    session: Session,
    load: LoadAxes,
    *,
    batch: int,
    repeat: int = 0,
    rates_ips: Sequence[float] | None = None,
    report: Callable[[str, int, int], None] = lambda _stage, _done, _of: None,
) -> list[PointSamples]:
    """Measure one pass over the load of a variant.

    Args:
        session: what is driven; a ``communicator.ClientSession`` drives it together with other clients.
        load: how; rates, counts and the rate ladder are those of all clients together.
        batch: samples per inference.
        repeat: which pass this is, from 0.
        rates_ips: offered rates of an earlier pass, samples/s, so that passes share a rate ladder; None places one.
        report: called before each point with its name, how many are done and how many there are.

    Returns:
        The closed loop's samples first (``curve``, ``closed``, ``trace``), in the first pass of a curve the probes of
        service times, then one entry a rung, lowest rate first. The ladder ends after the first overloaded rung.
        Every client returns the same, the samples of all.
    """
    start = latest_now_ns(session)
    points: list[PointSamples] = []
    total = point_count(load)
    if load.kind in _CLOSED_FIRST:
        report("closed loop", 0, total)
        place = Place(index=-1, repeat=repeat, batch=batch)
        points.append(closed_point(session, rate_ladder.closed_load(load), place))
    if load.kind == "closed":
        return points
    if load.kind == "trace":
        report("trace", 1, total)
        return [*points, trace_point(session, load, Place(index=0, repeat=repeat, batch=batch))]
    if load.kind == "curve" and rates_ips is None and load.batch_wait_ms is None:
        points += rate_ladder.service_time_probes(session, rate_ladder.closed_load(load), points[0], repeat)
    rates = list(rates_ips) if rates_ips is not None else place_rates(load, points, batch)
    spent_s = (latest_now_ns(session) - start) / 1e9
    carried = samples_per_request(load, batch)
    windows = _windows_s(load, [rate / carried for rate in rates], points, spent_s)
    for index, (rate, rung_load) in enumerate(zip(rates, windows, strict=True)):
        report(f"{rate:,.0f} samples/s", index + 1, total)
        place = Place(index=index, repeat=repeat, batch=batch)
        points.append(open_point(session, rung_load, rate / carried, place))
        if open_verdict([points[-1]])[0] == "overloaded":
            break
    return points


def place_rates(load: LoadAxes, points: Sequence[PointSamples], batch: int) -> list[float]:
    """Place the offered rates of the rate ladder; the same samples give the same rates.

    Args:
        load: ``rates_ips``, ``fractions`` of the peak, or how many ``points`` to place.
        points: the closed loop and the probes of service times (``curve`` only).
        batch: samples per request.

    Returns:
        Offered rates, samples/s, lowest first.
    """
    if load.kind != "curve":
        return sorted(load.rates_ips)
    peak = window_ips(points[0]) or 0.0
    service = None if load.batch_wait_ms is not None else estimate_service(points)
    if load.fractions or service is None:
        return list(total_rates(load.fractions or rate_ladder.even_rungs(load.points or rate_ladder.MIN_RUNGS), peak))
    return rate_ladder.place_rungs(service, load, peak, batch)


def _windows_s(
    load: LoadAxes, rates_rps: Sequence[float], points: Sequence[PointSamples], spent_s: float
) -> list[LoadAxes]:
    """Return the load of each rung: ``load`` itself, or with windows that keep to the budget of this pass."""
    carried = samples_per_request(load, points[0].batch) if points else 1
    peak_rps = (window_ips(points[0]) or 0.0) / carried if points else max(rates_rps, default=0.0)
    left_s = (load.budget_s or 0.0) / load.passes - spent_s
    windows = rate_ladder.windows_s(load, rates_rps, peak_rps, left_s)
    if windows is None:
        return [load] * len(rates_rps)
    return [replace(load, min_s=window, max_s=window) for window in windows]


def point_count(load: LoadAxes) -> int:
    """Count the points of one pass, without the probes of service times."""
    if load.kind == "curve":
        return 1 + (len(load.fractions) or load.points or rate_ladder.MIN_RUNGS)
    return {"closed": 1, "trace": 2}.get(load.kind, len(load.rates_ips))
