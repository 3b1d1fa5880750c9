"""Compare the two sides of a row at the rates that both were offered: latency, and throughput where one is overloaded.

Loads that give their rates (``constant``, ``poisson`` and the other arrival processes, ``trace``) offer both sides the
same ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweep.analysis import latency_comparison, run_comparison, start_spread
from sweep.analysis.best_comparison import Entry
from sweep.analysis.latency_comparison import Measured
from sweep.report.compared_figures import UNSTEADY_ERROR, builds_of
from sweep.spec import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sweep.analysis import StartSpread
    from sweep.analysis.run_comparison import Change
    from sweep.storage import Point, Record

THROUGHPUT = "throughput"
_PERCENTILES = ("p50", "p99")  # those that have an interval
_EQUAL = 1e-3  # by which two offered rates may differ
_UNSTEADY = (Verdict.UNSTABLE, Verdict.SHORT)


@dataclass(frozen=True, slots=True, kw_only=True)
class RateChange:
    """Hold what became of one figure at one offered rate.

    Attributes:
        offered_ips: the rate, samples/s.
        figure: ``p50`` or ``p99`` (ms); ``throughput`` (samples/s) where one side is overloaded.
        old: its earlier value.
        new: its later value.
        change: new over old, with an interval that holds for all rates of all rows together.
    """

    offered_ips: float
    figure: str
    old: float
    new: float
    change: Change

    @property
    def slower(self) -> bool:
        """Return whether the later measurement is worse by more than chance explains."""
        return self.change.slower if self.figure == THROUGHPUT else self.change.faster

    @property
    def faster(self) -> bool:
        """Return whether the later measurement is better by more than chance explains."""
        return self.change.faster if self.figure == THROUGHPUT else self.change.slower

    @property
    def loss(self) -> float:
        """Return the share by which the latency is longer, or the throughput lower; below 0 for a gain."""
        return 1 - self.change.ratio if self.figure == THROUGHPUT else self.change.ratio - 1

    @property
    def name(self) -> str:
        """Return the figure with its unit, for a table."""
        return f"{self.figure} {'samples/s' if self.figure == THROUGHPUT else 'ms'}"

    @property
    def values(self) -> str:
        """Return both values, as ``2.01 -> 2.30``."""
        form = ",.0f" if self.figure == THROUGHPUT else ".3g"
        return f"{self.old:{form}} -> {self.new:{form}}"

    @property
    def ratio(self) -> str:
        """Return new over old with its interval, as ``1.144 (1.101 to 1.190)``."""
        low, high = self.change.low, self.change.high
        return f"{self.change.ratio:.3f} ({low:.3f} " + (f"to {high:.3f})" if math.isfinite(high) else "or more)")

    @property
    def verdict(self) -> str:
        """Return what became of it, in words."""
        words = ("slower", "faster") if self.figure == THROUGHPUT else ("longer", "shorter")
        return words[0] if self.slower else words[1] if self.faster else "not told apart"

    def __str__(self) -> str:
        figure, unit = self.name.split(" ", 1)
        return f"{figure} at {self.offered_ips:,.0f} samples/s {self.values} {unit}, NEW / OLD {self.ratio}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Test:
    """Hold one figure of two points, before all of them are compared together."""

    row: int
    offered_ips: float
    figure: str
    old: float
    new: float
    sides: tuple[Measured, Measured] | tuple[Entry, Entry]


def equal_rates(old: Record, new: Record) -> list[tuple[Point, Point]]:
    """Return the points of both sides that were offered the same rate and measured a server, lowest rate first.

    There is none under `curve`, whose rates each side places by its own peak: those that agree do so by chance.
    """
    if any((record.variant.get("load") or {}).get("kind", "curve") == "curve" for record in (old, new)):
        return []
    pairs = []
    for point in old.points:
        others = [item for item in new.points if _equal(item["offered_ips"], point["offered_ips"])]
        if len(others) == 1 and Verdict.INVALID not in (point["verdict"], others[0]["verdict"]):
            pairs.append((point, others[0]))
    return pairs


def rate_changes(
    pairs: Mapping[int, tuple[Record, Record]], spreads: Sequence[Mapping[str, StartSpread]], tables: float = 1
) -> dict[int, tuple[RateChange, ...]]:
    """Compare all rows at the rates that both of their sides were offered.

    Args:
        pairs: earlier and later record of each row that can be compared, by its number.
        spreads: what starts of the earlier and the later measurement are known to differ by.
        tables: tables of tests between which the risk is shared.

    Returns:
        The changes of each row that has any, by its number.
    """
    tests = [test for row, (old, new) in pairs.items() for test in _tests(row, old, new, spreads)]
    changes: dict[int, Change] = {}
    for names in (("p50",), ("p99",), (THROUGHPUT,)):
        chosen = [number for number, test in enumerate(tests) if test.figure in names]
        # Each figure has a spread of its own, and a share of the risk according to its number of tests.
        share = tables * len(tests) / max(len(chosen), 1)
        changes |= dict(zip(chosen, _compared([tests[number].sides for number in chosen], share), strict=True))
    rows: dict[int, list[RateChange]] = {}
    for number, test in enumerate(tests):
        rows.setdefault(test.row, []).append(
            RateChange(
                offered_ips=test.offered_ips, figure=test.figure, old=test.old, new=test.new, change=changes[number]
            )
        )
    return {row: tuple(found) for row, found in rows.items()}


def _compared(sides: Sequence[tuple[Measured, Measured] | tuple[Entry, Entry]], share: float) -> list[Change]:
    latencies = [(a, b) for a, b in sides if isinstance(a, Measured) and isinstance(b, Measured)]
    if latencies:
        return latency_comparison.latency_changes(latencies, share)
    return run_comparison.changes([(a, b) for a, b in sides if isinstance(a, Entry) and isinstance(b, Entry)], share)


def _tests(row: int, old: Record, new: Record, spreads: Sequence[Mapping[str, StartSpread]]) -> list[_Test]:
    tests = []
    spread = spreads[0].get(old.key) or spreads[1].get(new.key)
    sensitivity = [_sensitivity(record) for record in (old, new)]
    for pair in equal_rates(old, new):
        offered_ips = pair[0]["offered_ips"]
        if Verdict.OVERLOADED in (pair[0]["verdict"], pair[1]["verdict"]):
            achieved = [point["achieved_ips"] for point in pair]
            if achieved[0] and achieved[1]:
                entries = tuple(_entry(ips, record, spread) for ips, record in zip(achieved, (old, new), strict=True))
                tests.append(
                    _Test(
                        row=row,
                        offered_ips=offered_ips,
                        figure=THROUGHPUT,
                        old=achieved[0],
                        new=achieved[1],
                        sides=(entries[0], entries[1]),
                    )
                )
            continue
        for name in _PERCENTILES:
            sides = [
                _measured(record, point, name, spread, slopes)
                for record, point, slopes in zip((old, new), pair, sensitivity, strict=True)
            ]
            before, after = sides
            if before is not None and after is not None:
                tests.append(
                    _Test(
                        row=row,
                        offered_ips=offered_ips,
                        figure=name,
                        old=before.value,
                        new=after.value,
                        sides=(before, after),
                    )
                )
    return tests


def _entry(ips: float | None, record: Record, spread: StartSpread | None) -> Entry:
    """Return what the comparison takes of the throughput of an overloaded rate."""
    value = ips or 0.0
    return Entry(value=value, starts=[value], spread=spread, assumed_cv=start_spread.assumed_cv(record))


def _measured(
    record: Record, point: Point, name: str, spread: StartSpread | None, sensitivity: Mapping[tuple[float, str], float]
) -> Measured | None:
    """Return what the comparison takes of a percentile; None where too few requests carry it or its interval."""
    value, interval = dict(point["latency_ms"]).get(name), dict(point["interval"]).get(name)
    if not isinstance(value, (int, float)) or not isinstance(interval, list) or min(value, interval[0]) <= 0:
        return None
    return Measured(
        value=float(value),
        interval=(float(interval[0]), float(interval[1])),
        passes=passes_of(record),
        start_cv=start_spread.assumed_cv(record) if spread is None else spread.cv,
        freedom=math.inf if spread is None else spread.freedom,
        sensitivity=sensitivity[point["offered_ips"], name],
        error=UNSTEADY_ERROR if point["verdict"] in _UNSTEADY else 0.0,
    )


def _sensitivity(record: Record) -> dict[tuple[float, str], float]:
    """Return by how many times a percentile at a rate changes what the service time does."""
    result: dict[tuple[float, str], float] = {}
    for name in _PERCENTILES:
        known = sorted(
            (point["offered_ips"], float(value))
            for point in record.points
            if point["verdict"] not in (Verdict.OVERLOADED, Verdict.INVALID)
            and isinstance(value := dict(point["latency_ms"]).get(name), (int, float))
            and value > 0
            and point["offered_ips"] > 0
        )
        curve = dict(known)
        if curve:
            values = latency_comparison.sensitivities(list(curve), list(curve.values()))
            result |= {(rate, name): value for rate, value in zip(curve, values, strict=True)}
    return result


def passes_of(record: Record) -> int:
    """Return the passes behind each point of a record."""
    return max(1, int(record.variant.get("repeats") or 1) * builds_of(record))


def _equal(one: float, other: float) -> bool:
    return one > 0 and other > 0 and abs(math.log(one / other)) < _EQUAL
