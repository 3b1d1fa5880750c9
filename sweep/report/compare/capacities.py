"""Compare the capacities of two measurements under one SLO: the ratio of each row, with an interval for all rows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from sweep.analysis import best_comparison, moderation, run_comparison, start_spread
from sweep.report.compared_figures import capacity_ips, capacity_ratio, starts_ips
from sweep.spec import of_percent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sweep.analysis import StartSpread
    from sweep.storage import Record

_NORMAL_HALF = 1.96  # standard errors in half of an interval of 95%


def capacity_changes(
    alike: Mapping[int, tuple[Record, Record]], spreads: Sequence[Mapping[str, StartSpread]]
) -> dict[int, tuple[float, float]]:
    """Return the ends of the ratio of the capacities of each row that has them on both sides under one SLO.

    They hold for all rows together, and are widened by what starts differ by.
    """
    chosen = {
        number: (old, new)
        for number, (old, new) in alike.items()
        if capacity_ips(old) and capacity_ips(new) and slo_text(old) == slo_text(new)
    }
    errors = _start_errors(list(chosen.values()), spreads)
    result = {}
    for (number, (old, new)), (error, freedom) in zip(chosen.items(), errors, strict=True):
        factor = max(run_comparison.factor_of(len(chosen), freedom), best_comparison.LEAST_BAND / math.sqrt(2))
        margin = math.exp(factor * error)
        low, high = capacity_ratio(new, old, factor / _NORMAL_HALF)
        if low > 0 or math.isfinite(high):  # a search that held everywhere, and nowhere failed, bounds nothing
            result[number] = (low / margin, high * margin)
    return result


def _start_errors(
    pairs: Sequence[tuple[Record, Record]], spreads: Sequence[Mapping[str, StartSpread]]
) -> list[tuple[float, float]]:
    """Return what one start on each side adds to the log ratio of each pair, with the degrees of freedom.

    It comes from the starts of the pairs, where they have several; else from what is known or assumed of them.
    """
    logs = [[np.log(starts_ips(record)) for record in pair] for pair in pairs]
    own = [sum(max(len(starts) - 1, 0) for starts in sides) for sides in logs]
    sample = [
        sum(float(starts.var()) * len(starts) for starts in sides if len(starts) > 1) / max(freedom, 1)
        for sides, freedom in zip(logs, own, strict=True)
    ]
    moderated = moderation.moderate(sample, own) if any(own) else None
    errors = []
    for number, (old, new) in enumerate(pairs):
        if own[number] and moderated is not None:
            errors.append((math.sqrt(2 * float(moderated.variances[number])), float(moderated.freedom[number])))
            continue
        spread = spreads[0].get(old.key) or spreads[1].get(new.key)
        sides = [
            best_comparison.Entry(value=1.0, starts=[1.0], spread=spread, assumed_cv=start_spread.assumed_cv(record))
            for record in (old, new)
        ]
        known = [best_comparison.start_cv(entry) for entry in sides]
        errors.append((math.hypot(*(cv for cv, _ in known)), min(freedom for _, freedom in known)))
    return errors


def slo_text(record: Record) -> str:
    """Return the SLO of a record in words; it has one."""
    if record.slo is None:
        return "no SLO"
    try:
        return str(of_percent(record.slo["percentile"], record.slo["limit_ms"]))
    except KeyError:
        return f"p{record.slo['percentile']:g} <= {record.slo['limit_ms']:g} ms"
