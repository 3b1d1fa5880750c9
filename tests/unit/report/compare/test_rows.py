"""What became of each variant: told apart, not told apart, or not comparable and why."""

import dataclasses

import pytest
from measured_runs import record, results, run, starts
from records import peak

from sweep.errors import ConfigError
from sweep.report.compare import Outcome, compare, failures, parse_gates


def outcomes(comparison):
    return [row.outcome for row in comparison.rows]


def test_equal_measurements_are_green_twenty_times_of_twenty() -> None:
    """Of 20 tables one may tell a difference, by chance; none that reaches 3%."""
    comparisons = [compare(run("a", seed=2 * n), run("b", seed=2 * n + 1)) for n in range(20)]
    assert sum(comparison.count(Outcome.SAME) < 4 for comparison in comparisons) <= 1
    assert [failures(comparison, parse_gates("slower=3%")) for comparison in comparisons] == [[]] * 20


def test_what_the_intervals_rest_on_is_told_of_the_steady_rows() -> None:
    """One that is not steady counts as a single start, which would read as if it had been started once."""
    old, new = run("a", seed=1), run("b", seed=2)
    unsteady = dataclasses.replace(new.records[0], peak={**new.records[0].peak, "verdict": "unstable"})
    comparison = compare(old, results("b", unsteady, *new.records[1:]))
    assert comparison.evidence.startswith("5 starts of each variant on each side; differences under ")
    assert "one start" not in comparison.evidence


@pytest.mark.parametrize("slowdown", [0.03, 0.1])
def test_a_variant_that_got_slower_stands_first_and_alone(slowdown) -> None:
    comparison = compare(run("a", seed=1), run("b", slowdown, seed=2))
    assert outcomes(comparison) == [Outcome.SLOWER, *[Outcome.SAME] * 3]
    row = comparison.rows[0]
    assert row.label == "tiny_cnn fp32 b1 s1"
    assert row.change is not None
    assert row.change.low < 1 - slowdown < row.change.high < 1
    assert comparison.summary.startswith("Of 4 variants: 1 slower, 3 not told apart. Median of the ratios: ")
    assert compare(run("b", slowdown, seed=2), run("a", seed=1)).rows[0].outcome is Outcome.FASTER


def test_with_one_start_the_spread_is_said_to_be_unknown_and_no_small_difference_is_called() -> None:
    comparison = compare(results("a", record(1, [1000.0])), results("b", record(1, [950.0])))
    assert outcomes(comparison) == [Outcome.SAME]
    assert comparison.evidence.startswith("One start on each side: what starts differ by is not known, 2.5% is assumed")
    assert "differences under 7." in comparison.evidence
    assert "repeats=5 on both sides" in comparison.evidence
    assert outcomes(compare(results("a", record(1, [1000.0])), results("b", record(1, [900.0])))) == [Outcome.SLOWER]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            {"peak": peak(900.0, [890.0, 910.0], verdict="unstable", reason="it moved")},
            "NEW: its peak is unstable: it moved; only half or double would be told apart",
        ),
        ({"peak": peak(900.0, [890.0, 910.0], verdict="short")}, "NEW: its peak is short; only half"),
        ({"peak": None}, "NEW has no closed loop, whose peak is what is compared"),
        ({"drift": {"verdict": "drifted", "reason": "by 9%"}}, "NEW: the machine drifted meanwhile; only half"),
        (
            {"status": "invalid", "error": {"stage": "realised", "message": "accuracy: low"}},
            "NEW ended invalid: accuracy: low",
        ),
        ({"facts": {"gpu": "NVIDIA A100"}}, "other GPU: NVIDIA H200 -> NVIDIA A100"),
    ],
)
def test_what_cannot_be_compared_has_its_reason(change, reason) -> None:
    old = results("a", record(1), record(2))
    row = compare(old, results("b", record(1, **change), record(2))).rows[0]
    assert row.outcome is Outcome.INCOMPARABLE
    assert row.reason is not None
    assert row.reason.startswith(reason)
    assert row.change is None
    assert row.lost is (change.get("status") == "invalid" or change.get("peak", row) is None)


@pytest.mark.parametrize(("ips", "outcome"), [(700.0, Outcome.INCOMPARABLE), (400.0, Outcome.SLOWER)])
def test_a_collapse_is_called_however_unsteady_it_is(ips, outcome) -> None:
    """Else the slowest machine of all would pass, since it completes too few requests for a steady peak."""
    old = results("a", record(1, [1000.0] * 3), record(2, [2000.0, 2001.0, 1999.0]))
    new = results("b", record(1, peak=peak(ips, None, verdict="short")), record(2, [2000.0, 2001.0, 2002.0]))
    row = compare(old, new).rows[0]
    assert row.outcome is outcome
    assert row.reason == "NEW: its peak is short; only half or double would be told apart"


@pytest.mark.parametrize(("half", "slower"), [(0.001, True), (0.05, False)])
def test_the_interval_inside_the_starts_holds_where_they_agree_more_closely(half, slower) -> None:
    """A simulated backend repeats itself to the last bit; what one start knows of its throughput stays."""
    old, new = (
        record(1, [ips] * 3, peak=peak(ips, [ips * (1 - half), ips * (1 + half)], batches=3, passes_ips=[ips] * 3))
        for ips in (1000.0, 970.0)
    )
    row = compare(results("a", old), results("b", new)).rows[0]
    assert (row.outcome is Outcome.SLOWER) is slower


def test_a_comparison_of_other_machines_is_refused_in_one_line_unless_anyway() -> None:
    old, new = results("a", record(1), record(2)), results("b", *(record(n, facts={"gpu": "A100"}) for n in (1, 2)))
    with pytest.raises(ConfigError, match=r"^a and b are not comparable: other GPU: NVIDIA H200 -> A100; --anyway"):
        compare(old, new)
    comparison = compare(old, new, anyway=True)
    assert outcomes(comparison) == [Outcome.SAME] * 2
    assert comparison.notes == ("compared anyway: other GPU: NVIDIA H200 -> A100",)
    with pytest.raises(ConfigError, match=r"other load: load.depth 2 -> 4; --anyway"):
        compare(results("a", record()), results("b", record(axes={"depth": 4})))


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        (results("a"), results("b", record()), "a has no records"),
        (results("a", record(1)), results("b", record(2)), "a and b have no variant in common: tiny_cnn fp32 b1 s1 is"),
        (
            results("a", record(1)),
            results("b", record(1, axes={"backend": "simulated"})),
            "a and b have no variant in common: tiny_cnn fp32 b1 s1 of tensorrt_rtx is in one, tiny_cnn",
        ),
    ],
)
def test_two_measurements_without_a_common_variant_are_one_line(old, new, line) -> None:
    with pytest.raises(ConfigError) as caught:
        compare(old, new)
    assert str(caught.value).startswith(line)


def test_facts_that_differ_are_told_in_order_clocks_too() -> None:
    def clocked(mhz, **facts):
        spread = {"mean": mhz, "min": mhz, "max": mhz}
        state = {"sm_clock_mhz": spread, "memory_clock_mhz": None, "throttled": mhz < 1500}
        return record(facts=facts, telemetry={**state, "energy_j_per_sample": None})

    old = results("a", clocked(1980.0))
    assert compare(old, results("b", clocked(1975.0))).facts == ()
    told = compare(old, results("b", clocked(1400.0, host="b", driver="580.2", tensorrt=None))).facts
    assert [str(fact) for fact in told] == [
        "driver 570.1 -> 580.2",
        "host a -> b",
        "SM clock 1,980 MHz -> 1,400 MHz",
        "throttled 0 variants -> 1 variants",
    ]


def test_variants_of_one_side_have_their_rows() -> None:
    comparison = compare(
        results("a", record(1, starts(100.0, seed=1)), record(2)),
        results("b", record(1, starts(100.0, seed=2)), record(4)),
    )
    assert outcomes(comparison) == [Outcome.REMOVED, Outcome.SAME, Outcome.ADDED]
    assert comparison.rows[0].lost
    assert len({row.label for row in comparison.rows}) == 3


def test_one_record_on_both_sides_and_several_of_a_variant_are_told() -> None:
    old = results("a", record(1), record(2, started_at="2026-01-02T00:00:00.000+00:00"), record(2))
    again = [dataclasses.replace(item, started_at="2026-01-03T00:00:00.000+00:00") for item in old.records[:2]]
    assert compare(old, results("b", *again)).notes == (
        "OLD has 3 records of 2 variants: the latest of each is compared",
    )
    assert compare(old, old).notes == ("OLD and NEW are the same records: nothing can differ in them",)
    assert compare(old, results("b", old.records[0], again[1])).notes[0] == (
        "1 of 2 variants is one record on both sides: nothing can differ in it"
    )
