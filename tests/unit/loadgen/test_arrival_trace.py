"""Replay of a file of arrivals: what is read, what is refused, what the key knows, what is measured."""

import dataclasses

import numpy as np
import pytest
from factories import config
from hypothesis import given, settings
from hypothesis import strategies as st
from test_dynamic_batching import Late
from test_queueing_theory import session

from sweep.analysis import point_summary
from sweep.config import variants
from sweep.errors import LoadError
from sweep.loadgen import arrival_trace, load_curve
from sweep.runner import time_estimate
from sweep.spec import LoadAxes, engine_key, variant_key


@pytest.fixture
def arrivals(tmp_path):
    """Makes a file of the text given; its path."""

    def make(text, name="arrivals.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return make


def planned(path, **values):
    return variants.from_config(config(load__kind="trace", load__trace=path, **values))


def load(path, **changes):
    return dataclasses.replace(
        LoadAxes(kind="trace", **arrival_trace.axes(path, changes.pop("scale", 1.0), 600.0)), **changes
    )


@pytest.mark.parametrize(
    "text",
    [
        "0\n0.5\n0.5\n2\n",
        "time\n0\n0.5\n0.5\n2\n",
        "arrival_s\n10\n10.5\n10.5\n12\n",
        "id,arrival_s,tokens\na,1,7\nb,1.5,8\nc,1.5,9\nd,3,1\n",
        "\ufeff0\r\n0.5\r\n\r\n5e-1\r\n2\r\n",
        '"100"\n"100.5"\n"100.5"\n"102"\n',
    ],
)
def test_times_are_read_and_count_from_the_first(arrivals, text) -> None:
    assert arrival_trace.read(arrivals(text)).times_s.tolist() == [0.0, 0.5, 0.5, 2.0]


@given(st.lists(st.floats(0, 1e6), min_size=2).map(sorted).filter(lambda times: times[-1] - times[0] > 1e-3))
@settings(max_examples=50, deadline=None)
def test_what_is_written_is_replayed(tmp_path_factory, times) -> None:
    path = tmp_path_factory.mktemp("t") / "t.csv"
    path.write_text("\n".join(map(repr, times)))
    found = arrival_trace.replay_schedule(LoadAxes(kind="trace", **arrival_trace.axes(str(path), 1.0, 1e9)))
    assert len(found.due_ns) == len(times)
    assert np.all(np.diff(found.due_ns) >= 0)
    assert np.allclose(found.due_ns / 1e9, np.array(times) - times[0], atol=2e-9)
    assert found.rate_rps == pytest.approx((len(times) - 1) / (times[-1] - times[0]))
    assert found.measured == len(times)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "holds 0 arrivals"),
        ("arrival_s\n", "holds 0 arrivals"),
        ("1.5\n", "holds 1 arrivals"),
        ("1.5\n1.5\n", "holds 2 arrivals and no time between them"),
        ("0\n2\n1\n", "line 3: 1 comes before 2"),
        ("0\n\n2\n1\n", "line 4: 1 comes before 2"),
        ("0\nnan\n", "line 2: 'nan' is no time in seconds"),
        ("nan\n1\n", "line 1: 'nan' is no time"),
        ("0\ninf\n", "line 2: 'inf' is no time in seconds"),
        ("-1\n0\n", "line 1: -1 is negative"),
        ("0\nsoon\n", "line 2: 'soon' is no time in seconds"),
        ("t,arrival_s\n1\n", "line 2: '' is no time in seconds"),
        ("0,1\n1,2\n", "has 2 columns (0, 1) and none called arrival_s"),
        ("start,end\n1,2\n", "has 2 columns (start, end) and none called arrival_s"),
        (b"\xff\xfe\x00", "is no text file"),
        ("0\n1e-300\n", "is over in 1e-300 s"),
        ("0\n700\n", "lasts 700 s, and a worker that is silent for timeout_s=600 is killed: set timeout_s=760"),
    ],
)
def test_a_bad_file_is_one_line_before_anything_runs(arrivals, text, line) -> None:
    path = arrivals(text)
    with pytest.raises(LoadError) as caught:
        planned(path)
    assert line in str(caught.value)
    assert path in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_not_named_is_one_line(tmp_path) -> None:
    with pytest.raises(LoadError, match=r"load.trace=.*none.csv: cannot be read \(No such file"):
        planned(str(tmp_path / "none.csv"))
    with pytest.raises(LoadError, match="cannot be read"):
        planned(str(tmp_path))
    with pytest.raises(LoadError, match=r"load.kind=trace needs load.trace, as in load.trace=arrivals.csv"):
        planned(None)


def test_the_key_knows_the_content_and_the_speed_and_not_the_path(arrivals) -> None:
    first = planned(arrivals("0\n1\n"))
    assert variant_key(planned(arrivals("0\n1\n", "moved.csv"))) == variant_key(first)
    assert variant_key(planned(arrivals("0\n1\n"), load__trace_scale=1.0)) == variant_key(first)
    others = [
        planned(arrivals("0\n1.5\n", "changed.csv")),
        planned(arrivals("0\n1\n"), load__trace_scale=2.0),
        planned(arrivals("0\n1\n"), batch=2, batching__max_wait_ms=1.0),
    ]
    assert len({variant_key(item) for item in [first, *others]}) == 4
    assert {engine_key(item) for item in others[:2]} == {engine_key(first)}
    assert others[1].label == "tiny_cnn fp32 b1 s1 trace-arrivals x2"
    assert others[2].label == "tiny_cnn fp32 b2 s1 w1ms trace-arrivals"


def test_a_changed_file_is_another_variant_and_a_worker_refuses_it(arrivals) -> None:
    path = arrivals("0\n1\n")
    before = planned(path)
    arrivals("0\n1\n2\n")
    assert variant_key(planned(path)) != variant_key(before)
    with pytest.raises(LoadError, match="changed since the sweep was planned"):
        arrival_trace.replay_schedule(before.load)


def test_other_kinds_of_load_leave_the_trace_alone(arrivals) -> None:
    asked = config(load__kind="curve", load__trace=arrivals("bad\nfile\n"))
    assert variant_key(variants.from_config(asked)) == variant_key(variants.from_config(config()))


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_speed_out_of_range_is_refused(arrivals, scale) -> None:
    with pytest.raises(Exception, match=r"load\.trace_scale=.*must be above 0"):
        planned(arrivals("0\n1\n"), load__trace_scale=scale)


def text_of(gaps_s):
    return "\n".join(f"{at:.9f}" for at in np.cumsum(gaps_s))


def test_a_closed_loop_comes_first_and_then_every_arrival_as_it_stands(arrivals) -> None:
    gaps = np.random.default_rng(0).exponential(0.01, 1000)
    asked = load(arrivals(text_of(gaps)), warmup_s=0.1, min_s=0.2)
    closed, traced = load_curve.measure(session(), asked, batch=1)
    assert (closed.kind, traced.kind, traced.index) == ("closed", "trace", 0)
    assert closed.warmup.any()
    assert not traced.warmup.any()
    assert np.allclose(traced.scheduled_ns / 1e9, np.cumsum(gaps) - gaps[0], atol=1e-8)
    assert np.all(traced.done_ns >= traced.issued_ns)
    found = point_summary.open_summary([traced])
    assert found["verdict"] == "ok"
    assert found["requests"] == 1000
    assert found["offered_ips"] == pytest.approx(999 / (np.cumsum(gaps)[-1] - gaps[0]))


def test_every_pass_replays_the_same_arrivals_at_the_asked_speed(arrivals) -> None:
    path = arrivals(text_of(np.full(700, 0.01)))
    slow, fast = load(path, warmup_s=0.1), load(path, warmup_s=0.1, scale=4.0)
    first, second = (
        load_curve.measure(session(), slow, batch=1, repeat=repeat, rates_ips=[1.0])[1] for repeat in (0, 1)
    )
    assert np.array_equal(first.scheduled_ns, second.scheduled_ns)
    quick = load_curve.measure(session(), fast, batch=1)[1]
    assert np.allclose(quick.scheduled_ns * 4, first.scheduled_ns, atol=8)
    assert quick.offered_rps == pytest.approx(4 * first.offered_rps)


def test_bursts_are_no_unsteadiness_and_no_overload_while_the_backlog_is_bounded(arrivals) -> None:
    """A trace that ends in its longest queue: the steady rules would call it overloaded and unstable."""
    gaps = np.concatenate([np.full(1000, 0.01), np.full(300, 0.0002)])
    found = point_summary.open_summary([load_curve.measure(session(), load(arrivals(text_of(gaps))), batch=1)[1]])
    assert found["verdict"] == "ok"
    assert found["latency_ms"]["p50"] == pytest.approx(1.0, abs=0.1)
    assert found["latency_ms"]["p99"] > 200  # 300 requests of 1 ms in 60 ms


def test_a_backlog_past_the_bound_is_overloaded(arrivals) -> None:
    asked = load(arrivals(text_of(np.full(5000, 0.0005))), max_wait_s=0.2)
    traced = load_curve.measure(session(), asked, batch=1)[1]
    assert 0 < np.count_nonzero(traced.measured) < 5000
    assert point_summary.open_summary([traced])["verdict"] == "overloaded"


def test_a_trace_that_is_too_short_says_so(arrivals) -> None:
    found = point_summary.open_summary(
        [load_curve.measure(session(), load(arrivals(text_of(np.full(100, 0.01)))), batch=1)[1]]
    )
    assert (found["verdict"], found["reason"]) == ("short", "the trace ended before load.min_requests were done")
    assert found["latency_ms"]["p90"] is not None
    assert found["latency_ms"]["p99"] is None


def test_a_generator_that_replays_late_makes_the_point_invalid(arrivals) -> None:
    starved = session()
    starved.streams[0].clock = Late()
    found = point_summary.open_summary(
        [load_curve.measure(starved, load(arrivals(text_of(np.full(700, 0.05)))), batch=1)[1]]
    )
    assert found["verdict"] == "invalid"


def test_arrivals_of_a_trace_are_gathered_like_any_others(arrivals) -> None:
    bursts = np.tile([0.1, 0.0, 0.0, 0.0, 0.0005], 200)
    asked = load(arrivals(text_of(bursts)), batch_wait_ms=2.0)
    closed, traced = load_curve.measure(session(batch=4), asked, batch=4)
    assert (closed.batch, traced.batch) == (4, 1)
    assert sorted(set(traced.ran_with.tolist())) == [1, 4]  # four at once fill a batch, the fifth waits alone
    assert point_summary.open_summary([traced])["batching"]["mean_batch"] == pytest.approx(2.5)


def test_the_plan_knows_how_long_a_trace_lasts(arrivals) -> None:
    path = arrivals("0\n100\n")
    slow, fast = (time_estimate._load_s(planned(path, load__trace_scale=scale).load) for scale in (None, 2.0))
    assert slow[0] - fast[0] == pytest.approx(50)
    assert slow[0] > 100
