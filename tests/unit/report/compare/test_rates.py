"""Loads that give their rates: latency at equal rates, what an overload shows, and what is not compared."""

import dataclasses
import io
import json

import pytest
from measured_runs import record, results
from records import point

from sweep.cli.console import Terminal
from sweep.report.compare import (
    Outcome,
    as_json,
    as_junit,
    as_markdown,
    as_page,
    compare,
    failures,
    parse_gates,
    print_comparison,
)

AXES = {"kind": "poisson", "rates_ips": (100.0, 400.0)}


def at(rate, p50, p99=None, wide=1.01, **changes):
    """A rate whose percentiles have intervals of a factor of `wide` to both sides."""
    known = {name: value for name, value in (("p50", p50), ("p99", p99)) if value is not None}
    interval = {name: [value / wide, value * wide] for name, value in known.items()}
    return point(rate, known, interval={"p50": None, "p99": None} | interval, **changes)


def measured(*points, repeats=5, axes=None, **changes):
    every = AXES | {"repeats": repeats} | (axes or {})
    return record(1, [1000.0] * repeats, axes=every, points=list(points), peak=None, **changes)


def compared(old, new):
    return compare(results("a", old), results("b", new))


def test_a_longer_latency_at_an_equal_rate_is_slower_and_fails_from_its_limit_on() -> None:
    old, new = (measured(at(100, 1.0, 2.0), at(400, 2.0, p99)) for p99 in (5.0, 5.5))
    comparison = compared(old, new)
    (row,) = comparison.rows
    assert row.outcome is Outcome.SLOWER
    assert [(item.offered_ips, item.figure, item.verdict) for item in row.rates] == [
        (100, "p50", "not told apart"),
        (100, "p99", "not told apart"),
        (400, "p50", "not told apart"),
        (400, "p99", "longer"),
    ]
    (failure,) = failures(comparison, parse_gates("slower=3%"))
    assert failure.message.startswith("p99 at 400 samples/s 5 -> 5.5 ms, NEW / OLD 1.100 (1.0")
    assert failures(comparison, parse_gates("slower=20%")) == []
    assert "4 figures at rates that both were offered: half of them tell a difference of 1." in comparison.evidence
    back = compared(measured(at(400, 2.0, 5.5)), measured(at(400, 2.0, 5.0)))
    assert [row.outcome for row in back.rows] == [Outcome.FASTER]
    rates = json.loads(as_json(comparison, [failure]))["rows"][0]["rates"]
    assert rates[3]["figure"] == "p99"
    assert rates[3]["ratio"] == pytest.approx(1.1)
    assert 1 < rates[3]["ratio_interval"][0] < 1.1 < rates[3]["ratio_interval"][1]
    page = as_page(comparison, [failure]).decode()
    assert page.count('<tr class="slower">') == 2
    assert "p99 latency at throughput" in page
    assert "| 🔴 - | tiny\\_cnn fp32 b1 s1 | 400 | p99 ms | 5 -\\> 5.5 | 1.100 (" in as_markdown(comparison, [failure])
    assert b"p99 at 400 samples/s 5 -&gt; 5.5 ms" in as_junit(comparison, [failure])


@pytest.mark.parametrize(
    ("old", "new", "outcome", "reason"),
    [
        (measured(at(100, 1.0), repeats=1), measured(at(100, 1.2), repeats=1), Outcome.SAME, None),  # one start
        (measured(at(100, 1.0), repeats=1), measured(at(100, 2.0), repeats=1), Outcome.SLOWER, None),
        (measured(at(100, 1.0)), measured(at(100, 1.5, verdict="unstable")), Outcome.SAME, None),
        (measured(at(100, 1.0)), measured(at(100, 9.0, verdict="overloaded", achieved_ips=60.0)), Outcome.SLOWER, None),
        (measured(at(100, 1.0)), measured(at(100, 9.0, verdict="overloaded", achieved_ips=98.0)), Outcome.SAME, None),
        (measured(at(100, 1.0)), measured(at(100, None)), Outcome.INCOMPARABLE, "no closed loop, and no rate at which"),
        (measured(at(100, 1.0)), measured(at(130, 1.0)), Outcome.INCOMPARABLE, "no closed loop, and no rate at which"),
    ],
)
def test_what_a_rate_tells(old, new, outcome, reason) -> None:
    (row,) = compared(old, new).rows
    assert row.outcome is outcome
    assert (row.reason or "").startswith(reason or "") == (reason is not None or row.reason is None)
    assert not row.lost


def test_a_generator_that_was_the_bottleneck_has_lost_what_was_measured_before() -> None:
    (row,) = compared(measured(at(100, 1.0)), measured(at(100, 1.0, verdict="invalid"))).rows
    assert (row.outcome, row.lost) == (Outcome.INCOMPARABLE, True)


def test_rates_that_a_curve_places_by_its_own_peak_are_not_compared() -> None:
    curve = {"kind": "curve", "rates_ips": ()}
    old, new = (measured(at(100, p50), axes=curve) for p50 in (1.0, 3.0))
    assert compared(*(dataclasses.replace(item, peak=record(1).peak) for item in (old, new))).rows[0].rates == ()


def test_of_a_long_table_those_told_apart_stand_first_and_the_rest_is_counted() -> None:
    old = [measured(at(100, 1.0), axes={"streams": n}) for n in range(1, 5)]
    new = [measured(at(100, 1.0 + 0.5 * (n == 4)), axes={"streams": n}) for n in range(1, 5)]
    shown, more = compare(results("a", *old), results("b", *new)).rates(2)
    assert [change.verdict for _, change in shown] == ["longer", "not told apart"]
    assert more == "and 2 more figures at equal rates, 0 of them told apart"


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_narrow_terminal_keeps_what_was_told_apart(width) -> None:
    old, new = (measured(at(100, 1.0, 2.0), at(400, 2.0, p99)) for p99 in (5.0, 5.5))
    out = io.StringIO()
    print_comparison(Terminal(file=out, width=width), compared(old, new))
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= width
    assert "1.100 (1.0" in " ".join(text.split())
    assert "longer" in text
    assert ("5 -> 5.5" in " ".join(text.split())) == (width != 80)
    assert ("3 figures at equal rates are not told apart." in text) == (width == 60)
