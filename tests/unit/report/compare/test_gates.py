"""What fails a job, and what does not."""

import pytest
from measured_runs import record, results, run, starts

from sweep.errors import ConfigError
from sweep.report.compare import Gate, compare, failures, parse_gates, unchecked


def slo(capacity, limit=10.0):
    missed = None if capacity is None else capacity * 1.05
    known = {"percentile": 99.0, "limit_ms": limit, "confidence": 0.995, "monotonic": True, "confirmed": True}
    return {**known, "capacity_ips": capacity, "next_ips": missed}


def sqnr(value, **figures):
    return {"sqnr_db": value, "max_abs": 0.0 if value is None else 1.0, **figures}


def scored(score):
    return sqnr(40.0, score=score, reference_score=0.97, scored_on="held")


def energy(joules):
    return {"energy_j_per_sample": joules, "sm_clock_mhz": None, "memory_clock_mhz": None, "throttled": False}


def failed(old, new, gates, **options):
    """Messages of the one variant with these fields on each side."""
    comparison = compare(results("a", record(1, **old), record(2)), results("b", record(1, **new), record(2)))
    return [(failure.kind, failure.message) for failure in failures(comparison, parse_gates(gates), **options)]


def test_a_slowdown_fails_from_its_limit_on() -> None:
    comparison = compare(run("a", seed=1), run("b", 0.1, seed=2))
    for text, count in (("slower", 1), ("slower=3%", 1), ("slower=20%", 0), ("slo,accuracy,memory", 0)):
        assert len(failures(comparison, parse_gates(text))) == count, text
    message = failures(comparison, parse_gates("slower=3%"))[0].message
    assert message.endswith("%)")
    assert " slower (95%: " in message
    assert failures(compare(run("a", seed=1), run("b", seed=2)), parse_gates("slower,slo,accuracy,memory")) == []
    assert failures(comparison, []) == []


@pytest.mark.parametrize(
    ("old", "new", "gates", "message"),
    [
        (
            {"slo": slo(900.0)},
            {"slo": slo(500.0)},
            "slo",
            "900 samples/s kept p99 <= 10 ms, 500 do now (est. ratio 0.493 to 0.626)",
        ),
        ({"slo": slo(900.0)}, {"slo": slo(None)}, "slo", "900 samples/s kept p99 <= 10 ms, no rate does now"),
        ({"slo": slo(900.0)}, {"slo": slo(880.0)}, "slo", None),
        ({"slo": slo(900.0)}, {"slo": slo(None, limit=5.0)}, "slo", None),
        ({"accuracy": sqnr(40.0)}, {"accuracy": sqnr(35.0)}, "accuracy", "SQNR fell from 40.0 dB to 35.0 dB"),
        ({"accuracy": sqnr(40.0)}, {"accuracy": sqnr(35.0)}, "accuracy=6dB", None),
        ({"accuracy": sqnr(None)}, {"accuracy": sqnr(60.0)}, "accuracy", "SQNR fell from exact to 60.0 dB"),
        ({"accuracy": sqnr(140.0)}, {"accuracy": sqnr(115.0)}, "accuracy", None),  # the order of summation
        ({"accuracy": scored(0.97)}, {"accuracy": scored(0.95)}, "accuracy", "top-1 fell from 97.00% to 95.00%"),
        ({"accuracy": scored(0.97)}, {"accuracy": scored(0.968)}, "accuracy", None),
        ({"accuracy": scored(0.97)}, {"accuracy": scored(0.968)}, "accuracy=0.1%", "top-1 fell from 97.00% to 96.80%"),
        (
            {"engine": {"device_memory_bytes": 100 << 20}},
            {"engine": {"device_memory_bytes": 120 << 20}},
            "memory",
            "100.0 -> 120.0 MiB, 20.0% more",
        ),
        ({"engine": {"bytes": 100 << 20}}, {"engine": {"bytes": 120 << 20}}, "memory=25%", None),
        ({"telemetry": energy(0.01)}, {"telemetry": energy(0.02)}, "energy", "10 -> 20 mJ per sample, 100.0% more"),
        # A figure that is known no more would be green whatever happened to it.
        ({"telemetry": energy(0.01)}, {}, "energy", "it was 10 mJ per sample and is not known now"),
        ({"engine": {"bytes": 100 << 20}}, {}, "memory", "it was 100.0 MiB of the engine file and is not known now"),
        (
            {"accuracy": sqnr(40.0)},
            {"accuracy": {"sqnr_db": None, "max_abs": None, "unknown": "shapes differ"}},
            "accuracy",
            "SQNR was 40.0 dB and is not known now (shapes differ)",
        ),
        ({"accuracy": sqnr(40.0)}, {"accuracy": None}, "accuracy", "SQNR was 40.0 dB and is not known now"),
        ({}, {"accuracy": sqnr(40.0), "telemetry": energy(0.01)}, "accuracy,energy", None),
        # The memory on the device is not compared with the size of an engine, but sizes with sizes.
        (
            {"engine": {"device_memory_bytes": 500 << 20, "bytes": 100 << 20}},
            {"engine": {"device_memory_bytes": None, "bytes": 101 << 20}},
            "memory",
            None,
        ),
        (
            {"engine": {"device_memory_bytes": None, "bytes": 100 << 20}},
            {"engine": {"device_memory_bytes": 90 << 20, "bytes": 120 << 20}},
            "memory",
            "100.0 -> 120.0 MiB of the engine file, 20.0% more",
        ),
        # Several clients take the memory of all of them.
        (
            {"realised": {"clients": [{"device_memory_bytes": 50 << 20}] * 2}},
            {"realised": {"clients": [{"device_memory_bytes": 50 << 20}] * 3}},
            "memory",
            "100.0 -> 150.0 MiB, 50.0% more",
        ),
    ],
)
def test_each_gate_fails_what_it_is_about(old, new, gates, message) -> None:
    assert failed(old, new, gates) == ([] if message is None else [(gates.partition("=")[0], message)])


def test_what_is_lost_fails_every_gate() -> None:
    bad = {"status": "failed", "error": {"stage": "build", "message": "no kernel"}}
    assert failed({}, bad, "memory") == [("lost", "NEW ended failed: no kernel")]
    assert failed(bad, {}, "memory") == []
    gone = compare(results("a", record(1), record(2)), results("b", record(2)))
    assert [failure.kind for failure in failures(gone, parse_gates("slo"))] == ["lost"]
    assert failures(gone, parse_gates("slo"), allow_missing=True) == []
    other = compare(
        results("a", record(1, starts(9.0, seed=1)), record(2)),
        results("b", record(1, starts(5.0, seed=2), facts={"gpu": "x"}), record(2)),
    )
    assert failures(other, parse_gates("slower")) == []  # nothing shows that it is slower


def test_a_gate_that_checks_nothing_says_so() -> None:
    known = compare(run("a", seed=1), run("b", seed=2))
    assert unchecked(known, parse_gates("slower,slo,energy")) == [
        "--fail-on slo checks nothing: no variant has a capacity under one SLO on both sides",
        "--fail-on energy checks nothing: no variant has the energy of a sample (the counter of a GPU) on both sides",
    ]
    figures = {"slo": slo(900.0), "accuracy": sqnr(40.0), "telemetry": energy(0.01), "engine": {"bytes": 1 << 20}}
    all_known = compare(results("a", record(1, **figures)), results("b", record(1, **figures)))
    assert unchecked(all_known, parse_gates("slower,slo,accuracy,memory,energy")) == []
    assert unchecked(known, []) == []


def test_the_intervals_of_capacities_hold_for_all_rows_together() -> None:
    def low(rows):
        made = [results(name, *(record(n, slo=slo(900.0)) for n in range(1, rows + 1))) for name in "ab"]
        return compare(*made).rows[0].capacity[0]

    assert low(40) < low(1) < 1
    unbounded = {**slo(900.0), "next_ips": None}
    (row,) = compare(results("a", record(1, slo=unbounded)), results("b", record(1, slo=unbounded))).rows
    assert row.capacity is None


def test_gates_are_read_with_their_defaults() -> None:
    assert parse_gates("slower=3%, slo,accuracy,memory") == [
        Gate(kind="slower", share=0.03),
        Gate(kind="slo"),
        Gate(kind="accuracy", share=0.005, db=3.0),
        Gate(kind="memory", share=0.05),
    ]
    assert parse_gates("accuracy=1dB,accuracy=0.2%") == [Gate(kind="accuracy", share=0.002, db=1.0)]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "slow=3%",
            "--fail-on slow=3%: no such gate, did you mean slo.*there are slower, slo, accuracy, memory, energy",
        ),
        ("slower=3", "--fail-on slower=3: slower takes a percentage from 0 to 100, as 3%"),
        ("slower=nan%", "slower takes a percentage"),
        ("slower=-1%", "slower takes a percentage"),
        ("memory=200%", "memory takes a percentage"),
        ("accuracy=3", "accuracy takes a percentage from 0 to 100, as 3%, or a number of dB, as 3dB"),
        ("slo=5", "--fail-on slo takes no limit"),
        ("slower=3%,slower=5%", "--fail-on slower=5%: slower is given twice"),
        (",", "--fail-on names no gate"),
    ],
)
def test_a_gate_that_says_nothing_is_refused_in_one_line(text, line) -> None:
    with pytest.raises(ConfigError, match=line):
        parse_gates(text)
