"""N clients measure one curve: on virtual clocks, each in a thread, communicating as workers do."""

import dataclasses
import io
import json
import math
import threading

import numpy as np
import pytest
from queues import LOAD, highest, md1_within, session
from rich.console import Console

from sweep.analysis import fairness, measured_window, point_summary, record_summary, slo_capacity
from sweep.analysis.queue_model import Service, simulate_latency_ms
from sweep.errors import ConfigError, LoadError
from sweep.loadgen import capacity_search, load_curve
from sweep.loadgen.arrivals import draw_schedule
from sweep.loadgen.communicator import ClientSession, in_rank_order, merge_clients
from sweep.loadgen.load_point import Place, closed_point, open_point
from sweep.report import html, ranking, table
from sweep.runner import client_group, filters, messages, plan
from sweep.runner.client_group import LeftError, Rendezvous
from sweep.spec import ModelRef, OnnxAxes, Precision, SessionAxes, Variant
from sweep.spec.slo import Slo
from sweep.storage import samples, samples_file
from sweep.storage.record import Record


class ThreadCommunicator:
    """Exchange values between threads: what ``pipe_communicator.PipeCommunicator`` does between processes."""

    def __init__(self, rank, size, rendezvous):
        self.rank, self.size, self._rendezvous, self._round = rank, size, rendezvous, 0

    def all_gather(self, value):
        self._round += 1
        return self._rendezvous.meet(self.rank, self._round, value)

    def all_gather_points(self, own):
        return self.all_gather(own)


def together(clients, work, **server):
    """What ``work(session)`` gives in each of N clients whose sessions are ``queues.session(**server)``."""
    rendezvous = Rendezvous(clients)
    found, errors = {}, []

    def run(number):
        try:
            found[number] = work(ClientSession(session(**server), ThreadCommunicator(number, clients, rendezvous)))
        except Exception as error:  # noqa: BLE001 - raised below, in the test's own thread
            errors.append(error)
            rendezvous.leave()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [found[number] for number in range(clients)]


def same(one, other):
    """Whether two points hold the same samples."""
    for item in dataclasses.fields(one):
        left, right = getattr(one, item.name), getattr(other, item.name)
        if not np.array_equal(left, right) if isinstance(left, np.ndarray) else left != right:
            return False
    return True


@pytest.mark.parametrize("clients", [2, 3])
def test_every_client_measures_the_same_curve_and_decides_alike(clients) -> None:
    curves = together(clients, lambda made: load_curve.measure(made, LOAD, batch=1), streams=2)
    first, *others = curves
    assert all(same(one, other) for points in others for one, other in zip(first, points, strict=True))
    (alone,) = together(1, lambda made: load_curve.measure(made, LOAD, batch=1), streams=2)
    assert fairness.shared([alone[0]]) == {}
    one, all_ = (
        point_summary.closed_rate([alone[0]])["ips"],
        point_summary.closed_rate([first[0]])["ips"],
    )
    assert all_ == pytest.approx(clients * one, rel=0.01)
    assert [point.kind for point in first] == [point.kind for point in alone]
    rungs = [point for point in first if point.kind == "poisson"]
    assert rungs[-1].offered_rps == pytest.approx(1.1 * clients * 2000, rel=0.01)


def test_load_is_split_evenly_with_seeds_of_their_own_over_the_same_time() -> None:
    load = dataclasses.replace(LOAD, warmup_s=0.1, min_s=1.0, min_requests=1001)
    point = together(4, lambda made: open_point(made, load, 1000.0, Place(index=2, repeat=0, batch=1)))[0]
    assert point.offered_rps == 1000.0
    each = [point.scheduled_ns[point.client == number] for number in range(4)]
    assert [len(own) for own in each] == [276] * 4  # a quarter of 100 and of 1001, rounded up
    assert len({tuple(own) for own in each}) == 4
    ends = [int(own[-1]) for own in each]
    assert max(ends) - min(ends) <= 2, "all end at the same time, to the rounding of a float: the window is common"
    assert point.complete
    assert np.all(np.diff(point.scheduled_ns) >= 0)
    again = together(4, lambda made: open_point(made, load, 1000.0, Place(index=2, repeat=0, batch=1)))[0]
    assert np.array_equal(point.scheduled_ns, again.scheduled_ns)


def test_constant_arrivals_of_all_clients_are_constant() -> None:
    load = dataclasses.replace(LOAD, kind="constant", warmup_s=0.0, min_s=0.5, min_requests=400)
    point = together(4, lambda made: open_point(made, load, 800.0, Place(index=0, repeat=0, batch=1)))[0]
    assert np.all(np.abs(np.diff(point.scheduled_ns) - 1e9 / 800) <= 2)


def test_poisson_arrivals_of_all_clients_are_poisson() -> None:
    each = [draw_schedule("poisson", 1000.0, (0, 40_000), (5,), number, 4).due_ns for number in range(4)]
    gaps = np.diff(np.sort(np.concatenate(each))) / 1e6
    assert gaps.mean() == pytest.approx(1.0, rel=0.01)
    assert gaps.std() == pytest.approx(1.0, rel=0.03)
    assert np.percentile(gaps, 90) == pytest.approx(math.log(10), rel=0.03)


def test_a_trace_is_dealt_out_and_none_of_it_is_lost(tmp_path) -> None:
    from sweep.loadgen import arrival_trace

    path = tmp_path / "arrivals.csv"
    path.write_text("\n".join(f"{number / 100:.2f}" for number in range(301)))
    load = dataclasses.replace(LOAD, kind="trace", min_requests=100, **arrival_trace.axes(str(path), 1.0, 600.0))
    point = together(3, lambda made: load_curve.measure(made, load, batch=1))[0][1]
    assert [int((point.client == number).sum()) for number in range(3)] == [101, 100, 100]
    assert np.array_equal(point.scheduled_ns, arrival_trace.replay_schedule(load).due_ns)
    assert point.offered_rps == pytest.approx(100.0)


def test_only_the_window_in_which_all_ran_counts() -> None:
    """One client starts late and one ends early: what the others did meanwhile is marked."""

    def part(start_ms, end_ms, gap_ms):
        done = np.arange(start_ms + gap_ms, end_ms + 1, gap_ms, dtype=np.int64) * 1_000_000
        issued = done - gap_ms * 1_000_000
        shown = {"slot_free": np.ones(len(done), dtype=bool), "warmup": np.zeros(len(done), dtype=bool)}
        return samples.PointSamples(
            kind="closed", index=-1, repeat=0, batch=2, offered_rps=None, overloaded=False, complete=True,
            origin_ns=7_000_000 + int(issued[0]), scheduled_ns=issued - issued[0], issued_ns=issued - issued[0],
            done_ns=done - issued[0], stream=np.zeros(len(done), dtype=np.int16), **shown,
        )  # fmt: skip

    parts = [part(0, 1000, 1), part(200, 900, 2)]

    class Gathered:
        rank, size = 0, 2

        def all_gather_points(self, own):
            return parts

    found = merge_clients(ClientSession(session(), Gathered()), parts[0], 900)
    assert found.origin_ns == 7_000_000
    kept = found.scheduled_ns[found.measured]
    assert (kept.min(), kept.max()) == (200_000_000, 900_000_000)
    shared = fairness.shared([found])
    assert [item["achieved_ips"] for item in shared["clients"]] == pytest.approx([2000.0, 1000.0], rel=0.002)
    assert sum(item["achieved_ips"] for item in shared["clients"]) == pytest.approx(measured_window.window_ips(found))
    assert shared["fairness"]["jain"] == pytest.approx(0.9, rel=0.002)
    assert found.complete
    assert not merge_clients(ClientSession(session(), Gathered()), parts[0], 2000).complete
    parts[1] = dataclasses.replace(parts[1], done_ns=np.full_like(parts[1].done_ns, samples.NEVER))
    nothing = merge_clients(ClientSession(session(), Gathered()), parts[0], 900)
    assert not nothing.measured.any()
    assert not nothing.complete
    parts[1] = dataclasses.replace(parts[0], index=3)
    with pytest.raises(LoadError, match="different points"):
        merge_clients(ClientSession(session(), Gathered()), parts[0], 900)


def test_a_window_that_is_too_short_for_the_count_is_measured_again_longer() -> None:
    load = dataclasses.replace(LOAD, kind="closed", warmup_s=0.01, min_s=0.01, min_requests=5000, max_s=20.0)
    point = together(2, lambda made: closed_point(made, load, Place(index=-1, repeat=0, batch=1)))[0]
    assert point.complete
    assert point.measured.sum() >= 5000


def test_each_client_has_a_queue_of_its_own() -> None:
    """Twice M/D/1, not M/D/2: nobody takes another client's arrivals."""
    load = dataclasses.replace(LOAD, min_requests=40_000, max_s=100.0)
    point = together(2, lambda made: open_point(made, load, 1400.0, Place(index=3, repeat=0, batch=1)))[0]
    within = [float(np.mean(point.latency_ms <= limit)) for limit in (1.5, 3.0, 6.0)]
    assert within == pytest.approx([md1_within(0.7, limit) for limit in (1.5, 3.0, 6.0)], abs=0.02)


def test_a_prediction_knows_the_queues_of_the_clients() -> None:
    service = Service(streams=2, clients=2, unloaded_ns=np.full(10, 1e6), saturated_ns=np.full(10, 1e6))
    due = np.cumsum(np.random.default_rng(1).exponential(1e9 / 1400, 60_000))
    found = simulate_latency_ms(service, due)
    within = [float(np.mean(found <= limit)) for limit in (1.5, 3.0, 6.0)]
    assert within == pytest.approx([md1_within(0.7, limit) for limit in (1.5, 3.0, 6.0)], abs=0.02)


def test_the_capacity_of_two_clients_is_found_over_all_their_requests() -> None:
    ask = capacity_search.SearchRequest(slo=Slo("p99", 5.0), search_s=100.0)

    def work(made):
        known = load_curve.measure(made, LOAD, batch=1)
        return known, capacity_search.run(made, LOAD, ask, known)

    (known, found), (_, others) = together(2, work)
    assert all(same(one, other) for one, other in zip(found, others, strict=True))
    slo = slo_capacity.slo_result([*known, *found], Slo("p99", 5.0))
    truth = 2 * highest(lambda rate: md1_within(rate, 5.0), 1, 0.99)
    assert slo["confirmed"]
    assert 0.9 * truth <= slo["capacity_ips"] <= truth


def test_samples_of_clients_come_back_from_disk_and_give_the_same_summary(tmp_path) -> None:
    points = together(2, lambda made: load_curve.measure(made, LOAD, batch=1), distribution="exponential")[0]
    samples_file.save(tmp_path / "s.npz", points)
    again = samples_file.load(tmp_path / "s.npz")
    assert all(same(one, other) for one, other in zip(points, again, strict=True))
    empty = Record(key="k", sweep="s", status="ok", started_at="2026-01-01T00:00:00+00:00", variant={})
    made = record_summary.summarise(empty, points, Slo("p99", 20.0))
    assert made == record_summary.summarise(empty, again, Slo("p99", 20.0))
    for point in made.points:
        assert sum(item["achieved_ips"] for item in point["clients"]) == pytest.approx(point["achieved_ips"])
        assert sum(item["requests"] for item in point["clients"]) == point["requests"]
    assert made.peak["fairness"]["jain"] > 0.99


def test_the_report_has_a_curve_of_each_client_and_the_table_says_who_was_starved() -> None:
    points = together(2, lambda made: load_curve.measure(made, LOAD, batch=1))[0]
    empty = Record(key="k", sweep="s", status="ok", started_at="2026-01-01T00:00:00+00:00", variant={"label": "mlp c2"})
    made = record_summary.summarise(empty, points, None)
    data = html.render("t", [made]).partition('id="data">')[2].partition("</script>")[0]
    (drawn,) = json.loads(data)["variants"]
    assert [len(item["clients"]) for item in drawn["points"]] == [2] * len(made.points)
    first = drawn["points"][0]
    assert first["x"] == pytest.approx(sum(item["x"] for item in first["clients"]), rel=1e-4)

    def said(record):
        out = io.StringIO()
        table.print_outcome(Console(file=out, width=200), [record], ranking.answer([record], None), None)
        return out.getvalue()

    assert "served alike" not in said(made)
    made.points[0]["fairness"]["p99_ratio"] = 3.0
    made.points[0]["clients"][0]["p99_interval"], made.points[0]["clients"][1]["p99_interval"] = [3.0, 3.1], [1.0, 1.1]
    offered = f"{made.points[0]['offered_ips']:,.0f}"
    starved = f"its clients were not served alike at {offered} samples/s: the worst client's p99 was 3.0 times"
    assert starved in said(made)


def test_jains_index_and_what_is_unfair() -> None:
    assert fairness.jain([5.0, 5.0, 5.0]) == pytest.approx(1.0)
    assert fairness.jain([5.0, 0.0]) == pytest.approx(0.5)
    assert fairness.jain([None, None]) is None
    spans = ([1.0, 1.2], [2.4, 2.6])
    each = [{"achieved_ips": rate, "p99_interval": span} for rate, span in zip((300.0, 100.0), spans, strict=True)]
    starved = {"clients": each, "fairness": {"jain": fairness.jain([300.0, 100.0]), "p99_ratio": 1.0}}
    assert fairness.unfair(starved) == "they got 300, 100 samples/s (Jain's index 0.80)"
    tail = {"clients": each, "fairness": {"jain": 1.0, "p99_ratio": 2.5}}
    assert fairness.unfair(tail) == "the worst client's p99 was 2.5 times the best one's"
    each[0]["p99_interval"] = [1.0, 2.5]
    assert fairness.unfair(tail) is None
    each[0]["p99_interval"] = None
    assert fairness.unfair(tail) is None
    assert fairness.unfair({"fairness": {"jain": 1.0, "p99_ratio": None}}) is None
    assert fairness.unfair({}) is None


def test_clients_load_in_turn() -> None:
    inside, most = [], []

    def make(number):
        inside.append(number)
        most.append(len(inside))
        inside.remove(number)
        return number

    assert together(3, lambda made: in_rank_order(made.communicator, lambda: make(made.communicator.rank))) == [0, 1, 2]
    assert most == [1, 1, 1]


def test_a_joined_condition_leaves_out_combinations_and_those_that_nobody_asked_for_are_no_error() -> None:
    made = plan.make(
        Variant(
            backend="simulated",
            onnx=OnnxAxes(model=ModelRef(name="mlp", revision=1), precision=Precision(name="fp32", dtype="fp32")),
            session=SessionAxes(streams=streams, clients=clients),
        )
        for streams in (1, 8)
        for clients in (1, 2, 4)
    )
    left = filters.of(made, (), ("clients:2|4&streams:8", "clients:1&mps:50"))
    labels = [work.variant.label for work in left.works]
    assert labels == ["mlp fp32 b1 s1", "mlp fp32 b1 s1 c2", "mlp fp32 b1 s1 c4", "mlp fp32 b1 s8"]
    with pytest.raises(ConfigError, match="no such axis; did you mean clients"):
        filters.of(made, (), ("client:2&streams:8",))


def test_who_waits_for_one_that_left_is_told() -> None:
    met = Rendezvous(2)
    told = []

    def wait():
        try:
            met.meet(0, 0, None)
        except LeftError as error:
            told.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    met.leave()
    thread.join(10)
    assert len(told) == 1
    with pytest.raises(LeftError):
        met.meet(1, 1, None)


def result(sqnr_db, sm_count, mismatch=None, nonfinite=0, gate=None, **figures):
    return messages.Result(
        engine={"key": "e", "device_memory_bytes": sm_count * 10},
        realised={"contexts": 1, "sm_count": sm_count, "notes": []},
        accuracy={"sqnr_db": sqnr_db, "nonfinite": nonfinite, "note": None, **figures},
        mismatch=mismatch,
        gate=gate,
    )


def test_the_record_has_the_sm_count_of_each_client_the_worst_accuracy_and_any_mismatch() -> None:
    exact = result(None, 66, max_abs=0.0)
    found = client_group.merged([result(50.0, 66), result(40.0, 60, "asked for 66 SMs, found 60"), exact])
    assert [item["sm_count"] for item in found.realised["clients"]] == [66, 60, 66]
    assert found.accuracy == {"sqnr_db": 40.0, "nonfinite": 0, "note": "the worst of 3 clients"}
    assert found.mismatch == "client 2 of 3: asked for 66 SMs, found 60"
    assert client_group.merged([result(50.0, 66), result(None, 66, nonfinite=3)]).accuracy["nonfinite"] == 3
    assert client_group.merged([result(50.0, 66), result(50.0, 66)]).mismatch is None


def test_a_client_that_could_not_be_compared_is_no_better_than_one_that_was() -> None:
    unknown = result(None, 66, unknown="no output is of floats")
    assert client_group.merged([result(9.0, 66), unknown]).accuracy["unknown"] == "no output is of floats"


def test_the_worst_client_is_the_one_that_goes_wrong_under_load() -> None:
    right, later = result(39.0, 66), result(40.0, 66)
    later.accuracy["again"] = {"sqnr_db": 12.0, "nonfinite": 0}
    assert client_group.merged([right, later]).accuracy["again"]["sqnr_db"] == 12.0
    low, high = result(40.0, 66), result(40.0, 66)
    low.accuracy["score"], high.accuracy["score"] = 0.7, 0.8
    assert client_group.merged([high, low]).accuracy["score"] == 0.7


def test_a_gate_that_a_client_does_not_keep_is_not_judged_again() -> None:
    """The record's accuracy is that of the worst client, which may be another."""
    found = client_group.merged([result(50.0, 66), result(9.0, 66, "accuracy: too low", gate="min_sqnr_db")])
    assert (found.mismatch, found.gate) == ("client 2 of 2: accuracy: too low", None)
