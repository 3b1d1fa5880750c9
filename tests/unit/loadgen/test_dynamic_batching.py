"""Server batching: the rule, the servers that follow it, and what the record says of it."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_queueing_theory import session

from sweep.analysis import point_summary
from sweep.backends.clock import RealClock, VirtualClock
from sweep.loadgen import issue_loops, load_curve, open_loop
from sweep.loadgen.dynamic_batching import BatchQueue, BatchServer, Rule
from sweep.loadgen.load_point import Place, open_point
from sweep.spec import LoadAxes
from sweep.storage import samples, samples_file

NEVER = samples.NEVER
UNBOUNDED = 10**18
MS = 1_000_000


class Scripted:
    """A stream on a virtual clock with a given service time for each inference."""

    max_depth = 1

    def __init__(self, services) -> None:
        self.clock = VirtualClock()
        self.asked = []
        self._services = itertools.cycle(services)

    def enqueue(self, samples=None) -> None:
        self.asked.append(samples)

    def wait(self) -> None:
        self.clock.sleep_until_ns(self.clock.now_ns() + next(self._services))


def served(due, rule, services, *, partial=True):
    """The queue after ``servers`` streams have served it, and the servers."""
    queue = BatchQueue(due, UNBOUNDED, rule)
    crew = [BatchServer(Scripted(times), queue, number, partial=partial) for number, times in enumerate(services)]
    issue_loops._run_in_turn(crew)
    return queue, crew


def batches(queue):
    """(first, count) of each batch, by arrival."""
    first, out = 0, []
    while first < len(queue.due):
        out.append((first, queue.ran_with[first]))
        first += queue.ran_with[first]
    return out


arrivals = st.lists(st.integers(0, 60), min_size=1, max_size=60).map(lambda gaps: np.cumsum(gaps).tolist())
rules = st.builds(Rule, batch=st.integers(1, 9), max_wait_ns=st.integers(0, 200))
crews = st.lists(st.lists(st.integers(1, 150), min_size=1, max_size=6), min_size=1, max_size=4)


@given(arrivals, rules, crews)
def test_none_is_lost_none_is_served_twice_and_order_is_kept(due, rule, services) -> None:
    queue, crew = served(due, rule, services)
    assert sum(size for server in crew for size in server.sizes) == len(due)
    assert all(issued >= arrived for issued, arrived in zip(queue.issued, due, strict=True))
    assert all(done > issued for issued, done in zip(queue.issued, queue.done, strict=True))
    assert all(one <= two for one, two in itertools.pairwise(queue.issued))
    for first, count in batches(queue):
        assert 1 <= count <= rule.batch
        for kept in (queue.issued, queue.done, queue.served_by, queue.ran_with, queue.ready):
            assert len(set(kept[first : first + count])) == 1
    assert sorted(size for server in crew for size in server.sizes) == sorted(count for _, count in batches(queue))


@given(arrivals, rules, crews)
def test_the_wait_is_bounded_and_nothing_is_held_back_while_a_server_is_free(due, rule, services) -> None:
    queue, crew = served(due, rule, services)
    busy = [
        [(queue.issued[first], queue.done[first]) for first, _ in batches(queue) if queue.served_by[first] == number]
        for number in range(len(crew))
    ]
    for first, count in batches(queue):
        ready, issued = queue.ready[first], queue.issued[first]
        assert due[first] <= ready <= due[first] + rule.max_wait_ns
        if issued > ready:  # then every server was at work when it should have left, and it left at an end of service
            assert not queue.slot_free[first]
            assert issued in {end for _, end in busy[queue.served_by[first]]}
            assert all(any(start <= ready < end for start, end in spans) for spans in busy)
        else:
            assert issued == ready
            assert queue.slot_free[first]
        if count < rule.batch:  # it left with all that were there
            assert first + count == len(due) or due[first + count] > issued


@given(arrivals, rules, st.lists(st.integers(1, 150), min_size=1, max_size=6))
def test_one_server_waits_no_longer_than_the_rule_and_one_service_when_a_batch_holds_the_backlog(
    due, rule, services
) -> None:
    queue, _ = served(due, dataclasses.replace(rule, batch=len(due)), [services])
    for issued, arrived in zip(queue.issued, due, strict=True):
        assert issued - arrived <= rule.max_wait_ns + max(services)


@given(arrivals, rules, crews, st.data())
def test_it_has_no_foresight(due, rule, services, data) -> None:
    """Batches that left before a moment are the same whatever arrives from then on."""
    cut = data.draw(st.integers(1, len(due)))
    whole, _ = served(due, rule, services)
    begun, _ = served(due[:cut], rule, services)
    after = due[cut] if cut < len(due) else float("inf")
    for index in range(cut):
        if whole.issued[index] < after:
            assert begun.issued[index] == whole.issued[index]
            assert begun.done[index] == whole.done[index]
            assert begun.ran_with[index] == whole.ran_with[index]


@given(arrivals, crews)
def test_a_batch_of_one_is_the_queue_without_batching(due, services) -> None:
    queue, _ = served(due, Rule(batch=1, max_wait_ns=50), services)
    plain = open_loop.Queue(due, UNBOUNDED)
    issue_loops._run_in_turn(
        [open_loop.OpenServer(Scripted(times), plain, number) for number, times in enumerate(services)]
    )
    assert (queue.issued, queue.done) == (plain.issued, plain.done)


@pytest.mark.parametrize(("partial", "asked"), [(True, [2, None, 1]), (False, [None, None, None])])
def test_a_batch_that_is_not_full_runs_at_its_size_or_is_padded(partial, asked) -> None:
    due = [0, 5, 100, 101, 102, 500]
    queue, (server,) = served(due, Rule(batch=3, max_wait_ns=50), [[10]], partial=partial)
    assert server.sizes == [2, 3, 1]
    assert server.stream.asked == asked
    assert list(queue.issued) == [50, 50, 102, 102, 102, 550]


def test_a_busy_server_takes_a_full_backlog_at_once() -> None:
    queue, (server,) = served([0, 10, 11, 12, 13, 14], Rule(batch=4, max_wait_ns=0), [[100]])
    assert server.sizes == [1, 4, 1]
    assert list(queue.issued) == [0, 100, 100, 100, 100, 200]


class Null:
    """A stream on the host's clock that does nothing."""

    max_depth = 1

    def __init__(self) -> None:
        self.clock = RealClock()

    def enqueue(self, samples=None) -> None:
        pass

    def wait(self) -> None:
        pass


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 4))
def test_threads_lose_none_and_serve_none_twice(seed, streams) -> None:
    gaps = np.random.default_rng(seed).exponential(20_000, 3000).astype(int)
    origin = RealClock().now_ns() + 2 * MS
    due = (np.cumsum(gaps) + origin).tolist()
    queue = BatchQueue(due, UNBOUNDED, Rule(batch=8, max_wait_ns=MS // 10))
    crew = [BatchServer(Null(), queue, number, partial=True) for number in range(streams)]
    issue_loops.run(crew, virtual=False)
    assert sum(size for server in crew for size in server.sizes) == len(due)
    assert np.all(np.array(queue.done) >= np.array(queue.issued))
    assert np.all(np.array(queue.issued) >= np.array(due))
    assert np.all(np.diff(queue.issued) >= 0)
    for first, count in batches(queue):
        assert len(set(queue.served_by[first : first + count])) == 1


@pytest.mark.parametrize("gather", [None, 8])
def test_a_request_costs_the_generator_far_less_than_a_fiftieth_of_a_millisecond(gather) -> None:
    """50,000 requests/s from one process: 20 us each, here on a crowded machine; `make bench` has the real figure."""
    costs = []
    for _ in range(5):
        due = [RealClock().now_ns()] * 10_000
        queue = open_loop.Queue(due, UNBOUNDED)
        crew = [open_loop.OpenServer(Null(), queue, 0)]
        if gather:
            queue = BatchQueue(due, UNBOUNDED, Rule(batch=gather, max_wait_ns=0))
            crew = [BatchServer(Null(), queue, 0, partial=True)]
        issue_loops.run(crew, virtual=False)
        costs.append((queue.done[-1] - queue.issued[0]) / len(due) / 1000)
    assert min(costs) < 20


GATHERED = LoadAxes(kind="poisson", warmup_s=0.1, min_s=1.0, min_requests=2000, batch_wait_ms=2.0, max_s=100.0)


def gathered(rate_rps, load=GATHERED, **made):
    return open_point(session(batch=8, **made), load, rate_rps, Place(index=0, repeat=0, batch=8))


def test_a_request_is_one_sample_and_its_wait_for_others_counts() -> None:
    point = gathered(100.0)
    assert (point.batch, point.gathers) == (1, 8)
    lone = point.measured & (point.ran_with == 1)
    assert lone.sum() > 1000
    assert np.median(point.latency_ms[lone[point.measured]]) == pytest.approx(3.0, abs=0.01)  # 2 ms wait, 1 ms service
    found = point_summary.open_summary([point])
    assert found["verdict"] == "ok"
    assert found["offered_ips"] == 100.0
    assert found["issue_lag_ms"] == 0.0  # waiting on purpose is not the generator's lag
    assert found["batching"]["mean_batch"] == pytest.approx(1 + 100 * 0.002, rel=0.05)
    assert found["batching"]["fill"] == found["batching"]["mean_batch"] / 8


def test_the_mean_batch_counts_each_inference_once() -> None:
    point = gathered(7000.0)
    inferences = len(np.unique(point.issued_ns[point.measured]))
    found = point_summary.open_summary([point])["batching"]
    assert found["mean_batch"] == pytest.approx(np.count_nonzero(point.measured) / inferences, rel=0.01)
    assert found["mean_batch"] > 6


def test_a_backlog_that_grows_is_overloaded() -> None:
    point = gathered(20_000.0, dataclasses.replace(GATHERED, min_requests=40_000, max_wait_s=0.2))
    assert point.overloaded
    assert 0 < np.count_nonzero(point.measured) < 40_000
    assert np.all(point.done_ns[point.ran_with == 0] == NEVER)
    assert point_summary.open_summary([point])["verdict"] == "overloaded"


def test_a_long_wait_for_others_is_no_backlog() -> None:
    load = dataclasses.replace(GATHERED, batch_wait_ms=500.0, max_wait_s=0.1, min_requests=64)
    assert point_summary.open_summary([gathered(10.0, load)])["verdict"] == "ok"


class Late(VirtualClock):
    """Wakes 2 ms late, as a generator that is starved does."""

    def sleep_until_ns(self, due_ns):
        return super().sleep_until_ns(max(self.now_ns(), due_ns + 2 * MS if due_ns > self.now_ns() else due_ns))


@pytest.mark.parametrize("wait_ms", [None, 0.0, 1.0])
def test_a_generator_that_issues_late_makes_the_point_invalid(wait_ms) -> None:
    starved = session(batch=8)
    starved.streams[0].clock = Late()
    load = dataclasses.replace(GATHERED, batch_wait_ms=wait_ms)
    found = point_summary.open_summary([open_point(starved, load, 10.0, Place(index=0, repeat=0, batch=8))])
    assert found["issue_lag_ms"] == pytest.approx(2.0)
    assert found["verdict"] == "invalid"
    assert "bottleneck" in found["reason"]


def test_a_curve_has_its_peak_at_full_batches_and_its_rungs_in_single_samples() -> None:
    load = dataclasses.replace(GATHERED, kind="curve", fractions=(0.5, 0.8))
    points = load_curve.measure(session(batch=8), load, batch=8)
    assert [point.batch for point in points] == [8, 1, 1]
    peak = point_summary.closed_summary(points[:1])["ips"]
    assert peak == pytest.approx(8000, rel=0.01)
    assert [point.offered_rps for point in points[1:]] == pytest.approx([0.5 * peak, 0.8 * peak])
    again = load_curve.measure(
        session(batch=8), load, batch=8, repeat=1, rates_ips=[point.offered_rps for point in points[1:]]
    )
    assert [point.offered_rps for point in again[1:]] == [point.offered_rps for point in points[1:]]


def test_padding_costs_the_full_batch() -> None:
    true_size, padded = session(batch=8, sample_us=1000.0), session(batch=8, sample_us=1000.0)
    padded.partial_batches = False
    place = Place(index=0, repeat=0, batch=8)
    shortest = [
        point_summary.open_summary([open_point(made, GATHERED, 10.0, place)])["latency_ms"]["p50"]
        for made in (true_size, padded)
    ]
    assert shortest == pytest.approx([2 + 1 + 1, 2 + 1 + 8], abs=0.01)


def test_gpu_times_go_to_all_requests_that_ran_together() -> None:
    made = session(batch=8, streams=2)
    for number, stream in enumerate(made.streams):
        ran = []
        plain = stream.enqueue

        def enqueue(samples=None, plain=plain, ran=ran, number=number):
            plain(samples)
            ran.append((number, 8 if samples is None else samples, len(ran)))

        def take(ran=ran):
            rows = np.array(ran, dtype=np.float32).reshape(-1, 3)
            ran.clear()
            return np.hstack([rows, np.zeros((len(rows), 1), np.float32)])

        stream.enqueue, stream.take_parts_ms = enqueue, take
    point = open_point(made, GATHERED, 3000.0, Place(index=0, repeat=0, batch=8))
    assert np.array_equal(point.gpu_h2d_ms, point.stream)
    assert np.array_equal(point.gpu_compute_ms, point.ran_with)
    for stream in range(2):
        mine = point.stream == stream
        assert np.array_equal(np.unique(point.gpu_d2h_ms[mine]), np.arange(len(np.unique(point.issued_ns[mine]))))


def test_what_ran_together_is_kept_on_disk(tmp_path) -> None:
    point = gathered(3000.0)
    samples_file.save(tmp_path / "s.npz", [point])
    (again,) = samples_file.load(tmp_path / "s.npz")
    assert again.gathers == 8
    assert np.array_equal(again.ran_with, point.ran_with)
    assert np.array_equal(again.ready_ns, point.ready_ns)
    assert point_summary.open_summary([again]) == point_summary.open_summary([point])
