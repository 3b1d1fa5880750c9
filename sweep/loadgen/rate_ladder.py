"""Where the rungs of a curve stand and how long each lasts, from what the closed loop and two probes showed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sweep.analysis import percentiles
from sweep.analysis.queue_model import BUSY, CALM, latencies_ms
from sweep.loadgen.load_point import Place, closed_point, open_point

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.analysis.queue_model import Service
    from sweep.backends.base import Session
    from sweep.spec import LoadAxes
    from sweep.storage.samples import PointSamples

CALMEST, PAST_KNEE = 0.2, 1.1  # first and last rung, as shares of the open loop's capacity
ANCHOR = 0.8  # of the peak: the rung at which variants are compared
FEWEST = 3  # rungs
_GRID = (CALMEST, 0.35, 0.5, 0.6, 0.7, 0.75, 0.8, 0.84, 0.88, 0.91, 0.94)  # where the curve is predicted
_STRETCH = 3.0  # weight of the rise against the rate
_ARRIVALS = 4000  # simulated at each
_CALM_GAP = 3.0  # service times between the arrivals of the calm probe: the stream is idle for two of three
_CALM_MOST = 2000  # requests of the calm probe
_PROBE_SHARE = 4  # a probe lasts this part of load.max_s at most
_SHORTEST_S = 0.05  # a window, however small the budget
_STEEPEST = 0.95  # load above which windows get no longer
_CLOSED_SHARE = 4  # of a budget, that the closed loop may take: one part in this many


def probes(session: Session, load: LoadAxes, closed: PointSamples, repeat: int) -> list[PointSamples]:
    """The two short probes that say what one request costs: ``calm`` alone, ``busy`` with every stream busy.

    ``busy`` is left out where the closed loop itself ran at depth 1, as an open loop does.
    """
    place = Place(index=-1, repeat=repeat, batch=closed.batch)
    short = replace(load, max_s=max(load.max_s / _PROBE_SHARE, load.min_s / 2), min_s=load.min_s / 2)
    made = []
    if load.depth > 1 and any(stream.max_depth > 1 for stream in session.streams):
        once = closed_point(session, replace(short, depth=1), place)
        made.append(replace(once, kind=BUSY))
    keep = (made or [closed])[-1]
    service_s = float(np.mean((keep.done_ns - keep.issued_ns)[keep.measured])) / 1e9  # the mean: it must not queue
    rate = 1 / max(_CALM_GAP * service_s, 1e-9)
    calm = replace(short, kind="constant", min_requests=min(load.min_requests, _CALM_MOST), warmup_s=load.warmup_s / 4)
    calm = replace(calm, min_s=min(calm.min_s, _CALM_MOST / rate))
    made.append(replace(open_point(session, calm, rate, place), kind=CALM, offered_rps=rate))
    return made


def placed_ips(service: Service, load: LoadAxes, peak_ips: float, batch: int) -> list[float]:
    """``load.points`` offered rates in samples/s: few where the predicted curve is flat, more at its knee, one past it.

    The first is at 20% of what the open loop can take and the last at 110%. Between them the predicted curve of
    log p99 over rate, scaled to one by ``_STRETCH``, is cut into pieces of equal length, on either side of 80% of the
    peak, where a rung stands so that variants have a load in common.

    Args:
        service: what a request costs.
        load: its ``points``, ``arrivals`` and ``seed``.
        peak_ips: throughput of the closed loop.
        batch: samples per request.
    """
    capacity = service.capacity_rps
    loads = np.array(_GRID)
    tails = np.maximum.accumulate([_tail_ms(service, load, share * capacity) for share in _GRID])
    rise = np.log(tails / tails[0])
    along = np.hypot(np.diff(loads) / (loads[-1] - loads[0]), _STRETCH * np.diff(rise) / max(float(rise[-1]), 1e-9))
    length = np.concatenate([[0.0], np.cumsum(along)])
    inner = (load.points or FEWEST) - 1
    cuts = np.linspace(0, length[-1], inner)
    anchor = ANCHOR * peak_ips / batch / capacity
    if loads[0] < anchor <= loads[-1]:
        middle = float(np.interp(anchor, loads, length))
        below = 1 + int(np.argmin(np.abs(cuts[1:] - middle)))
        cuts = np.concatenate([np.linspace(0, middle, below + 1), np.linspace(middle, length[-1], inner - below)[1:]])
    shares = np.interp(cuts, length, loads)
    return [float(share * capacity * batch) for share in (*shares, PAST_KNEE)]


def evenly(points: int) -> list[float]:
    """Shares of the peak at equal distances: for a queue that is not predicted, as one whose server gathers batches."""
    return [float(share) for share in np.linspace(CALMEST, PAST_KNEE, points)]


def _tail_ms(service: Service, load: LoadAxes, rate_rps: float) -> float:
    """Predicted p99 at ``rate_rps``; every rate sees the same pattern of arrivals, so that rates compare."""
    rng = np.random.default_rng([load.seed, 5])
    gaps = np.full(_ARRIVALS, 1.0) if load.arrivals == "constant" else rng.exponential(1.0, _ARRIVALS)
    due = np.cumsum(gaps) * (1e9 / rate_rps)
    return percentiles.percentile(np.sort(latencies_ms(service, due, load.seed)), percentiles.PERCENTILES["p99"])


def closed_load(load: LoadAxes) -> LoadAxes:
    """The load of the closed loop: within a quarter of the pass's budget, where there is one."""
    if load.budget_s is None:
        return load
    longest = load.budget_s / load.repeats / _CLOSED_SHARE
    return replace(load, max_s=max(min(load.max_s, longest), _SHORTEST_S), min_s=min(load.min_s, longest))


def windows_s(load: LoadAxes, rates_rps: Sequence[float], peak_rps: float, left_s: float) -> list[float] | None:
    """How long each rung lasts so that all of them take ``left_s``; None without a budget.

    Each gets what its count needs (``min_s`` and ``min_requests``). What is left goes to the rungs near the knee,
    by 1 / (1 - load), since a queue's own swings last longer there; where it is not enough all get less.
    No window is longer than ``load.max_s``.
    """
    if load.budget_s is None:
        return None
    needed = np.array([min(max(load.min_s, load.min_requests / rate), load.max_s) for rate in rates_rps])
    spare = left_s - load.warmup_s * len(rates_rps) - float(needed.sum())
    if spare <= 0:
        return [float(window) for window in np.maximum(needed * (1 + spare / needed.sum()), _SHORTEST_S)]
    loads = np.array(rates_rps) / max(peak_rps, 1e-9)
    weights = np.where(loads >= 1, 0.0, 1 / (1 - np.minimum(loads, _STEEPEST)))
    room = np.maximum(load.max_s - needed, 0.0)
    for _ in rates_rps:  # what one rung cannot take, since it is full, goes to the others
        open_ = weights * (room > 0)
        if spare <= 0 or not open_.any():
            break
        given = np.minimum(spare * open_ / open_.sum(), room)
        needed, room, spare = needed + given, room - given, spare - float(given.sum())
    return [float(window) for window in needed]
