"""A slice of the study in two halves, with fixed seeds and wide marks; `make bench-stats` prints it whole."""

import json

import capacity_oracles
import coverages
import families
import halves
import harness
import marks
import numpy as np
import peers
import pytest
import steadiness
import study
from harness import Share

from sweep.analysis import percentiles, stability


@pytest.mark.parametrize("passes", [3, 5])
def test_the_p99_of_repeats_covers_that_of_a_typical_start(passes) -> None:
    same = {"draw": families.lognormal(0.1), "passes": passes, "between": 0.02}
    today = coverages.repeats(40, 0.99, **same)
    assert today.held.value >= 0.85
    assert today.null.value <= 0.1
    assert coverages.repeats_oracle(40, 0.99, **same).value >= 0.85


@pytest.mark.parametrize(
    ("draw", "fewest"), [(families.periodic_stalls(90, 20.0), 0.9), (families.lognormal(0.3), 0.85)]
)
def test_the_peak_covers_its_throughput_where_it_prints_one(draw, fewest) -> None:
    assert coverages.peak(40, draw=draw, passes=1, count=662).held.value >= fewest
    assert coverages.printed_peak(20, draw=draw, count=662).held.value >= fewest - 0.1
    assert coverages.peak_oracle(40, draw=draw, passes=1, count=662).value >= 0.85


def test_a_sticky_server_has_no_interval_rather_than_a_wrong_one() -> None:
    today = coverages.peak(40, draw=families.clock_steps(60), passes=1, count=662)
    assert today.null.value >= 0.9
    assert today.held.of - today.held.count <= 2


def test_the_short_tail_of_a_busy_queue_is_marked() -> None:
    marked, printed = coverages.short_tail(40)
    assert marked.value >= 0.95
    assert printed.value < 0.9
    assert coverages.short_tail(40, load=0.001)[0].value <= 0.1


def test_steady_queues_are_not_unstable_a_step_is_and_past_the_knee_is_overloaded() -> None:
    steady = steadiness.called(15, "unstable", draw=families.exponential, load=0.89, passes=5)
    assert steady.count <= 2
    assert steadiness.called(15, "unstable", draw=families.lognormal(0.1), load=0.8, step=0.1).count >= 12
    assert steadiness.called(15, "overloaded", draw=families.constant, load=1.1) == Share(15, 15)


def test_a_run_at_exactly_the_capacity_seldom_confirms_and_one_below_it_does() -> None:
    """M/M/1 with p99 <= 10 service times: 1 - ln(100) / 10."""
    rate = 1 - 0.4605
    same = {"draw": families.exponential, "limit": 10.0}
    assert halves.confirms(50, **same, rate=rate, count=2000).count <= 3
    assert halves.confirms(25, **same, rate=0.55 * rate, count=5000).count >= 20


def test_peers_call_what_their_rules_say() -> None:
    """Of equal variants whose starts differ by 1%, two figures alone are called different in half of all pairs."""
    assert peers.calls(30, peers.perf_analyzer, slower=1.0, between=0.01).value > 0.2
    assert peers.calls(15, peers.pyperf(), slower=1.05, between=0.0).value > 0.9
    assert peers.our_calls(5, slower=1.1, between=0.01).value > 0.5
    assert peers.requests(peers.pyperf()) == 2 * 20 * 4 * 10
    assert percentiles.slo_confidence(np.ones(7000), 0.99, 10.0) > 0.99


def test_the_oracle_of_a_step_knows_what_a_window_can_show() -> None:
    assert steadiness.step_oracle(draw=families.lognormal(0.1), load=0.5) > 0.99
    assert steadiness.step_oracle(draw=families.weibull(0.6), load=0.5) < 0.3
    assert steadiness.overload_oracle(draw=families.constant) == 1.0
    assert stability.RISK <= 0.05


def test_the_figures_are_the_same_for_any_number_of_processes(monkeypatch, capsys, tmp_path) -> None:
    """Blocks have seeds of their own and are merged in their order; each cell has a standard error."""
    monkeypatch.setattr(harness, "BLOCK", 5)
    monkeypatch.setattr(
        study,
        "HALVES",
        {"tuned": {"gamma": families.erlang(0.5)}, "apart": {}, "fresh": {"sine": families.sine(75, 0.2)}},
    )
    for jobs in ("1", "2"):
        study.main(["25", "repeats", "--jobs", jobs, "--json", str(tmp_path / jobs)])
    first, second = capsys.readouterr().out.split("**p99 of repeats", 2)[1:]
    assert first == second
    assert "fresh" not in first
    rows = json.loads((tmp_path / "2").read_text())[0]["rows"]
    assert rows[0]["labels"] == ["tuned", "gamma"]
    assert all(item["error"] > 0 and item["of"] == 25 for item in rows[0]["cells"] if "null" not in item)
    study.main(["5", "repeats", "--fresh"])
    assert "| fresh | sine |" in capsys.readouterr().out


def test_rows_that_a_function_prints_are_one_table(capsys) -> None:
    """The tables of capacities print themselves, a queue at a time."""

    def say_row(name):
        return lambda say: [
            say(line)
            for line in (
                "**title**",
                "",
                "| half | family | cell |",
                "|---|---|---|",
                f"| tuned | {name} | 1.0% ± 0.5% |",
            )
        ]

    table = harness.Table("confirms", "Title", (), [harness.Printed(say_row("a")), harness.Printed(say_row("b"))])
    tables = harness.measure([table], 1, print)
    assert tables[0]["rows"][1]["cells"] == [{"text": "1.0% ± 0.5%", "value": 0.01, "error": 0.005}]
    lines = capsys.readouterr().out.splitlines()
    assert lines[2:6] == [
        "| half | family | cell |",
        "|---|---|---|",
        "| tuned | a | 1.0% ± 0.5% |",
        "| tuned | b | 1.0% ± 0.5% |",
    ]


def test_the_marks_are_what_was_asked_for_with_an_oracle_beside_each(monkeypatch) -> None:
    monkeypatch.setattr(marks, "_capacity", lambda *_: (0.5, 1.0))
    table = marks.table(100)
    cells = {labels[0]: row for labels, row in table.rows}
    assert len(cells) == len(table.rows) > 40
    assert all(wanted and str(oracle) for _, wanted, oracle in cells.values())
    today, _, oracle = cells["3% slower, starts differ by 1%, 5 starts, 12 variants: called"]
    assert sum(today.blocks()) == sum(oracle.blocks()) == 100
    assert oracle.run(20, 0).value >= 0.8


def test_every_queue_of_the_study_has_a_limit_the_fresh_ones_too() -> None:
    """They are printed once, at the end: nobody has seen them run."""
    queues = (families.TUNED_QUEUES, families.APART_QUEUES, families.FRESH_QUEUES)
    assert {name for each in queues for name in each} <= set(halves.LIMITS)


def test_oracles_know_more_than_the_rule() -> None:
    """Of runs without correlation the exact threshold lies where the binomial one does."""
    counts = np.random.default_rng(3).binomial(7000, 0.01, 2000)
    assert abs(capacity_oracles.most_slow(counts) - 51) <= 2
    assert capacity_oracles.inflation(counts, 7000) < 1.2
    assert capacity_oracles.inflation(10 * counts, 7000) > 8
    assert capacity_oracles.most_slow(np.zeros(100, dtype=int)) == -1
    assert capacity_oracles.votes_hold([0, 0], 700, 1.0).all()
    assert not capacity_oracles.votes_hold([0, 0], 700, 2.0).any()
