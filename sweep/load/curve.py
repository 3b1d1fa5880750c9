"""The load of one variant, whole: which points, in which order, when to stop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sweep.load.points import Place, closed_point, open_point, samples_per_request, total_rates, trace_point
from sweep.summary import open_verdict, window_ips

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sweep.axes import LoadAxes
    from sweep.backends.base import Session
    from sweep.samples import PointSamples

KINDS = ("curve", "closed", "poisson", "constant", "trace")
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
    """One pass over the load of a variant.

    Args:
        session: what is driven.
        load: how.
        batch: samples per inference.
        repeat: which pass this is, from 0.
        rates_ips: offered rates of an earlier pass, so that passes share a ladder; None places one.
        report: called before each point with its name, how many are done and how many there are.

    Returns:
        The closed loop's samples first (``curve``, ``closed``, ``trace``), then one entry a rung, lowest rate first.
        The ladder ends after the first overloaded rung.
    """
    points: list[PointSamples] = []
    total = point_count(load)
    if load.kind in _CLOSED_FIRST:
        report("closed loop", 0, total)
        points.append(closed_point(session, load, Place(index=-1, repeat=repeat, batch=batch)))
    if load.kind == "closed":
        return points
    if load.kind == "trace":
        report("trace", 1, total)
        return [*points, trace_point(session, load, Place(index=0, repeat=repeat, batch=batch))]
    if rates_ips is None:
        peak = window_ips(points[0]) if points else None
        rates_ips = total_rates(load.fractions, peak or 0.0) if load.kind == "curve" else sorted(load.rates_ips)
    for index, rate in enumerate(rates_ips):
        report(f"{rate:,.0f} samples/s", len(points), total)
        place = Place(index=index, repeat=repeat, batch=batch)
        points.append(open_point(session, load, rate / samples_per_request(load, batch), place))
        if open_verdict([points[-1]])[0] == "overloaded":
            break
    return points


def point_count(load: LoadAxes) -> int:
    """Points of one pass."""
    if load.kind == "curve":
        return 1 + len(load.fractions)
    return {"closed": 1, "trace": 2}.get(load.kind, len(load.rates_ips))
