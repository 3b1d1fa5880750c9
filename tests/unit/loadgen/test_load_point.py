"""The generator on the virtual clock. test_queueing.py holds it against theory."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweep.analysis.measured_window import window_ips
from sweep.analysis.point_summary import closed_summary, open_summary
from sweep.backends.simulated import SimulatedSession
from sweep.errors import LoadError
from sweep.loadgen import load_curve
from sweep.loadgen.arrivals import draw_due_ns
from sweep.loadgen.load_point import Place, closed_point, open_point
from sweep.spec import EngineAxes, LoadAxes, ModelRef, OnnxAxes, Precision, Script, SessionAxes, Variant

SERVICE_US = 1000.0


def session(streams=1, distribution="constant", seed=0):
    script = Script(service_us=SERVICE_US, sample_us=0.0, distribution=distribution)
    variant = Variant(
        backend="simulated",
        onnx=OnnxAxes(model=ModelRef(name="tiny_cnn", revision=1), precision=Precision(name="fp32", dtype="fp32")),
        engine=EngineAxes(batch=1),
        session=SessionAxes(streams=streams, script=script),
        load=LoadAxes(seed=seed),
    )
    return SimulatedSession(script, variant)


@given(st.sampled_from(["poisson", "constant"]), st.floats(1.0, 1e5), st.integers(1, 500), st.integers(0, 2**32))
def test_a_schedule_is_ascending_seeded_and_complete(kind, rate, count, seed) -> None:
    drawn = draw_due_ns(kind, rate, (count // 3, count), (seed,))
    assert len(drawn) == count // 3 + count
    assert np.all(np.diff(drawn) >= 0)
    assert np.array_equal(drawn, draw_due_ns(kind, rate, (count // 3, count), (seed,)))


@pytest.mark.parametrize(
    ("seed", "other"), [((0, 5, 0), (0, 5)), ((0, 6, 0), (0, 6)), ((0, 3, 0, 0), (0, 3, 0)), ((1, 2), (2, 1))]
)
def test_a_zero_at_the_end_of_a_seed_makes_other_arrivals(seed, other) -> None:
    """Rung 4 of pass 0 had the arrivals that its own prediction drew, and client 0 those of a single client."""
    first, second = (draw_due_ns("poisson", 10.0, (50,), each) for each in (seed, other))
    assert not np.array_equal(first, second)


def test_streams_and_seeds_share_no_service_times() -> None:
    drawn = {
        tuple(stream._rng.exponential(size=3)) for seed in (0, 1) for stream in session(2, "exponential", seed).streams
    }
    assert len(drawn) == 4
    assert tuple(np.random.default_rng((0, 7, 0)).exponential(size=3)) not in drawn


@pytest.mark.parametrize("kind", ["poisson", "constant"])
def test_each_stretch_offers_exactly_the_rate_that_was_asked(kind) -> None:
    drawn = draw_due_ns(kind, 50.0, (100, 662), (4,)) / 1e9
    assert drawn[99] == pytest.approx(2.0, abs=1e-6)
    assert drawn[-1] - drawn[99] == pytest.approx(662 / 50, abs=1e-6)


def test_poisson_gaps_have_the_asked_mean_and_spread() -> None:
    gaps = np.diff(draw_due_ns("poisson", 100.0, (50_000,), (3,))) / 1e9
    assert gaps.mean() == pytest.approx(0.01, rel=0.02)
    assert gaps.std() == pytest.approx(0.01, rel=0.03)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(LoadError, match="poisson, constant"):
        draw_due_ns("bursty", 1.0, (1,), (0,))


@pytest.mark.parametrize("streams", [1, 3])
def test_closed_loop_finds_the_capacity(streams) -> None:
    load = LoadAxes(warmup_s=0.3, min_s=2.0, min_requests=662)
    point = closed_point(session(streams), load, Place(index=-1, repeat=0, batch=2))
    assert window_ips(point) == pytest.approx(streams * 2 * 1e6 / SERVICE_US, rel=0.01)
    assert closed_summary([point])["verdict"] == "ok"
    assert point.warmup.any()
    assert np.all(np.diff(point.issued_ns) >= 0)


def test_no_request_is_lost_served_twice_or_out_of_order() -> None:
    load = LoadAxes(warmup_s=0.0, min_s=1.0, min_requests=2000)
    point = open_point(session(3, "exponential"), load, 2500.0, Place(index=1, repeat=0, batch=1))
    assert np.all(point.done_ns >= 0)
    assert np.all(np.diff(point.issued_ns) >= 0)
    for stream in range(3):
        mine = point.stream == stream
        assert np.all(point.issued_ns[mine][1:] >= point.done_ns[mine][:-1])


def test_overload_stops_early_and_keeps_what_was_done() -> None:
    load = LoadAxes(warmup_s=0.1, min_s=5.0, min_requests=10_000, max_s=60.0, max_wait_s=0.2)
    point = open_point(session(), load, 2000.0, Place(index=0, repeat=0, batch=1))
    assert point.overloaded
    assert 0 < np.count_nonzero(point.measured) < 10_000
    assert open_summary([point])["verdict"] == "overloaded"


def test_a_server_that_stalls_shows_its_true_tail() -> None:
    """One second in ten the server stands still: the schedule goes on, and those who wait are counted."""
    stalled = session()
    stream = stalled.streams[0]
    served = stream.enqueue

    def enqueue() -> None:
        now = stream.clock.now_ns()
        if now % 10_000_000_000 < 1_000_000_000:
            stream._free_ns = max(stream._free_ns, now - now % 10_000_000_000 + 1_000_000_000)
        served()

    stream.enqueue = enqueue
    load = LoadAxes(warmup_s=0.0, min_s=100.0, min_requests=1, max_s=200.0, max_wait_s=5.0)
    point = open_point(stalled, load, 100.0, Place(index=0, repeat=0, batch=1))
    from_schedule = np.sort(point.latency_ms)
    from_send = np.sort((point.done_ns - point.issued_ns)[point.measured] / 1e6)
    share = np.mean(from_schedule > 500)
    assert 0.03 < share < 0.08  # half of the tenth that arrived in the stall waited over 500 ms
    assert np.mean(from_send > 500) < 0.01  # a timer that starts at the send hides them


def test_the_ladder_ends_after_the_first_overloaded_rung() -> None:
    load = LoadAxes(fractions=(0.5, 1.5, 2.0), warmup_s=0.1, min_s=0.5, max_wait_s=0.05)
    points = load_curve.measure(session(), load, batch=1)
    assert [point.index for point in points] == [-1, -1, -1, 0, 1]
    assert [point.kind for point in points] == ["closed", "busy", "calm", "poisson", "poisson"]


def test_a_later_pass_offers_the_same_rates_with_other_arrivals() -> None:
    load = LoadAxes(fractions=(0.5,), warmup_s=0.1, min_s=0.5)
    first = load_curve.measure(session(), load, batch=1)
    second = load_curve.measure(session(), load, batch=1, repeat=1, rates_ips=[first[-1].offered_rps])
    assert [point.kind for point in second] == ["closed", "poisson"]
    assert second[-1].offered_rps == first[-1].offered_rps
    assert not np.array_equal(second[-1].scheduled_ns[:50], first[-1].scheduled_ns[:50])


def test_a_loop_that_starts_after_its_end_serves_one_request_a_stream() -> None:
    """As on a machine so busy that the time is over before the first."""
    load = LoadAxes(min_s=0.0, max_s=0.0, min_requests=1, warmup_s=0.0)
    found = closed_point(session(streams=2), load, Place(index=-1, repeat=0, batch=1))
    assert sorted(found.stream[~found.warmup]) == [0, 1]


def test_a_slow_model_ends_at_the_longest_time_and_says_short() -> None:
    load = LoadAxes(min_s=1.0, max_s=2.0, min_requests=662, warmup_s=0.1)
    point = open_point(session(), load, 100.0, Place(index=0, repeat=0, batch=1))
    found = open_summary([point])
    assert found["requests"] == 200
    assert found["verdict"] == "short"
    assert found["latency_ms"]["p99"] is None
