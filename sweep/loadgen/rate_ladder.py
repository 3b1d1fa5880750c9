"""Place the rungs of a load curve and set how long each lasts, from the closed loop and the probes of service times."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sweep.analysis import SATURATED, UNLOADED, percentiles, simulate_latency_ms
from sweep.loadgen.arrivals import draw_unit_arrivals
from sweep.loadgen.load_point import Place, closed_point, open_point

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.analysis import Service
    from sweep.backends import Session
    from sweep.loadgen.arrivals import UnitArrivals
    from sweep.spec import LoadAxes
    from sweep.storage import PointSamples

FIRST_RUNG, LAST_RUNG = 0.2, 1.1  # as shares of the open loop's capacity; the last lies past the knee
COMMON_RUNG = 0.8  # of the peak: the rung at which variants are compared
MIN_RUNGS = 3
MAX_RUNGS = 1000
_PREDICTED_LOADS = (FIRST_RUNG, 0.35, 0.5, 0.6, 0.7, 0.75, 0.8, 0.84, 0.88, 0.91, 0.94)  # of the capacity
_RISE_WEIGHT = 3.0  # of the rise of log p99 against the rate, along the curve
_SIMULATED_ARRIVALS = 4000  # at each predicted load
_UNLOADED_GAP = 3.0  # service times between the arrivals of the unloaded probe: the stream is idle for two of three
_MAX_UNLOADED_REQUESTS = 2000  # of the unloaded probe
_PROBE_SHARE = 4  # a probe lasts 1 / 4 of load.max_s at most
_SHORTEST_S = 0.05  # of a window, however small the budget
_MAX_WEIGHTED_LOAD = 0.95  # load above which windows get no longer
_CLOSED_SHARE = 4  # the closed loop may take 1 / 4 of a budget


def service_time_probes(session: Session, load: LoadAxes, closed: PointSamples, repeat: int) -> list[PointSamples]:
    """Measure the service time of a request with one stream busy (unloaded) and with all streams busy (saturated).

    Args:
        session: what is driven.
        load: how; a probe lasts a quarter of ``max_s`` at most.
        closed: samples of the closed loop.
        repeat: number of the pass, from 0.

    Returns:
        The saturated probe, left out where the closed loop itself ran at depth 1, and the unloaded probe.
    """
    place = Place(index=-1, repeat=repeat, batch=closed.batch)
    short = replace(load, max_s=max(load.max_s / _PROBE_SHARE, load.min_s / 2), min_s=load.min_s / 2)
    probes = []
    if load.depth > 1 and any(stream.max_depth > 1 for stream in session.streams):
        probes.append(replace(closed_point(session, replace(short, depth=1), place), kind=SATURATED))
    saturated = (probes or [closed])[-1]
    # The mean, since the unloaded probe must not queue.
    service_s = float(np.mean((saturated.done_ns - saturated.issued_ns)[saturated.measured])) / 1e9
    rate_rps = 1 / max(_UNLOADED_GAP * service_s, 1e-9)
    unloaded = replace(
        short,
        kind="constant",
        min_requests=min(load.min_requests, _MAX_UNLOADED_REQUESTS),
        warmup_s=load.warmup_s / 4,
        min_s=min(short.min_s, _MAX_UNLOADED_REQUESTS / rate_rps),
    )
    probes.append(replace(open_point(session, unloaded, rate_rps, place), kind=UNLOADED, offered_rps=rate_rps))
    return probes


def place_rungs(service: Service, load: LoadAxes, peak_ips: float, batch: int) -> list[float]:
    """Place ``load.points`` offered rates: few where the predicted curve is flat, more at its knee, one past it.

    The first is at 20% of what the open loop can take, or where ``load.max_s`` brings ``load.min_requests`` if that is
    higher, and the last at 110%; where both together leave no room, there are fewer. Between them the predicted curve
    of log p99 over rate, scaled to one by ``_RISE_WEIGHT``, is cut into pieces of equal length, on either side of 80%
    of the peak, where a rung stands so that variants have a load in common.

    Args:
        service: measured service times.
        load: its ``points``, ``arrivals`` and ``seed``.
        peak_ips: throughput of the closed loop, samples/s.
        batch: samples per request.

    Returns:
        Offered rates, samples/s, ascending.
    """
    capacity_rps = service.capacity_rps
    loads = np.array(_PREDICTED_LOADS)
    arrivals = draw_unit_arrivals(load.arrivals, _SIMULATED_ARRIVALS, (load.seed, 5), service.clients)
    tails_ms = np.maximum.accumulate([_p99_ms(service, arrivals, share * capacity_rps, load.seed) for share in loads])
    rise = np.log(tails_ms / tails_ms[0])
    pieces = np.hypot(
        np.diff(loads) / (loads[-1] - loads[0]), _RISE_WEIGHT * np.diff(rise) / max(float(rise[-1]), 1e-9)
    )
    length = np.concatenate([[0.0], np.cumsum(pieces)])
    inner = (load.points or MIN_RUNGS) - 1
    slowest = min(max(FIRST_RUNG, load.min_requests / load.max_s / capacity_rps), COMMON_RUNG)
    first = float(np.interp(slowest, loads, length))
    cuts = np.linspace(first, length[-1], inner)
    common = COMMON_RUNG * peak_ips / batch / capacity_rps
    if loads[0] < common <= loads[-1]:
        middle = max(float(np.interp(common, loads, length)), first)
        below = 1 + int(np.argmin(np.abs(cuts[1:] - middle)))
        cuts = np.concatenate(
            [np.linspace(first, middle, below + 1), np.linspace(middle, length[-1], inner - below)[1:]]
        )
    shares = np.unique(np.interp(cuts, length, loads))
    return [float(share * capacity_rps * batch) for share in (*shares, LAST_RUNG)]


def _p99_ms(service: Service, arrivals: UnitArrivals, rate_rps: float, seed: int) -> float:
    """Predict the p99 at ``rate_rps``; all rates see the same pattern of arrivals, so that they compare."""
    latency_ms = simulate_latency_ms(service, arrivals.times * (1e9 / rate_rps), seed, arrivals.client)
    return percentiles.percentile(np.sort(latency_ms), percentiles.PERCENTILES["p99"])


def even_rungs(points: int) -> list[float]:
    """Return ``points`` shares of the peak at equal distances, for a queue that is not predicted (server batching)."""
    return [float(share) for share in np.linspace(FIRST_RUNG, LAST_RUNG, points)]


def closed_load(load: LoadAxes) -> LoadAxes:
    """Return the load of the closed loop: within a quarter of the pass's budget, where there is one."""
    if load.budget_s is None:
        return load
    longest = load.budget_s / load.passes / _CLOSED_SHARE
    return replace(load, max_s=max(min(load.max_s, longest), _SHORTEST_S), min_s=min(load.min_s, longest))


def windows_s(load: LoadAxes, rates_rps: Sequence[float], peak_rps: float, left_s: float) -> list[float] | None:
    """Divide the rest of a budget among the rungs.

    Each rung gets what its count needs (``min_s`` and ``min_requests``). What is left goes to the rungs near the knee,
    by 1 / (1 - load), since a queue's own swings last longer there; where it is not enough all get less.
    No window is longer than ``load.max_s``.

    Args:
        load: its ``budget_s``, ``min_s``, ``min_requests``, ``max_s`` and ``warmup_s``.
        rates_rps: offered rates of the rungs, requests/s.
        peak_rps: throughput of the closed loop, requests/s.
        left_s: what is left of the budget, warm-ups included, s.

    Returns:
        Length of each rung's measured window, s; None without a budget.
    """
    if load.budget_s is None:
        return None
    windows = np.array([min(max(load.min_s, load.min_requests / rate), load.max_s) for rate in rates_rps])
    spare_s = left_s - load.warmup_s * len(rates_rps) - float(windows.sum())
    if spare_s <= 0:
        return [float(window) for window in np.maximum(windows * (1 + spare_s / windows.sum()), _SHORTEST_S)]
    loads = np.array(rates_rps) / max(peak_rps, 1e-9)
    weights = np.where(loads >= 1, 0.0, 1 / (1 - np.minimum(loads, _MAX_WEIGHTED_LOAD)))
    headroom = np.maximum(load.max_s - windows, 0.0)
    for _ in rates_rps:  # what a rung at its longest cannot take goes to the others
        open_weights = weights * (headroom > 0)
        if spare_s <= 0 or not open_weights.any():
            break
        added = np.minimum(spare_s * open_weights / open_weights.sum(), headroom)
        windows, headroom, spare_s = windows + added, headroom - added, spare_s - float(added.sum())
    return [float(window) for window in windows]
