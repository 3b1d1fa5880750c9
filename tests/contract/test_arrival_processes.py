"""What every arrival process of the registry keeps to, and a bursty one that is registered for these tests alone.

The bursty process shows that predictions obey the registry: at 80% load its p99 is four times that of Poisson arrivals,
whose p99 is ten times that of constant ones. A process that was predicted as another would miss every tolerance here.
"""

import dataclasses

import numpy as np
import pytest
from factories import config
from queues import LOAD, session

from sweep.analysis import percentiles, queue_model, record_summary
from sweep.config import variants
from sweep.errors import ConfigError, LoadError
from sweep.loadgen import arrival_trace, arrivals, load_curve, rate_ladder
from sweep.loadgen.arrivals import PROCESSES, ArrivalProcess, draw_due_ns, draw_schedule, draw_unit_arrivals
from sweep.loadgen.load_point import Place, open_point
from sweep.loadgen.slo_model import SloModel
from sweep.storage import samples
from sweep.storage.record import Record

BURSTY = "bursty_of_the_tests"
EVERY = [*PROCESSES, BURSTY]
CAPACITY_TOLERANCE = 0.10  # of the predicted capacity at an SLO (15,000 arrivals), against the measured one
LADDER_TOLERANCE = 0.5  # of the p99 that the ladder predicts from 4,000 arrivals alone, against the measured one
POINT_TOLERANCE = 0.10  # of a point's own prediction, over the rungs below the knee, median
MEASURED = 200_000  # requests of a point that a prediction is held against


@pytest.fixture(params=EVERY)
def name(request, monkeypatch):
    """Give the name of each process, with the bursty one registered; gamma gaps of shape 1/4 have a cv^2 of 4."""
    bursty = ArrivalProcess(gaps=lambda rng, count: rng.gamma(0.25, 4.0, count), help="gamma gaps, cv^2 = 4")
    monkeypatch.setitem(PROCESSES, BURSTY, bursty)
    return request.param


def test_its_gaps_are_finite_non_negative_seeded_and_have_the_mean_1(name) -> None:
    process = arrivals.process(name)
    gaps, again = (process.gaps(np.random.default_rng(7), 200_000) for _ in range(2))
    assert gaps.shape == (200_000,)
    assert np.all(np.isfinite(gaps) & (gaps >= 0))
    assert np.array_equal(gaps, again)
    assert gaps.mean() == pytest.approx(1.0, rel=0.02)
    assert process.help


@pytest.mark.parametrize("clients", [1, 3])
@pytest.mark.parametrize("rate_rps", [0.7, 1234.5, 180_000.0])
def test_its_rate_is_exact_in_the_window(name, rate_rps, clients) -> None:
    counts = (99, 663)
    parts = [draw_schedule(name, rate_rps, counts, (4, 1, 0), rank, clients) for rank in range(clients)]
    assert sum(part.warmup for part in parts) == counts[0]
    assert sum(part.measured for part in parts) == counts[1]
    assert sum(part.rate_rps for part in parts) == pytest.approx(rate_rps)
    assert all(np.all(np.diff(part.due_ns, prepend=0) >= 0) for part in parts)
    ends = [max(int(part.due_ns[last]) for part in parts) / 1e9 for last in (parts[0].warmup - 1, -1)]
    if clients == 1:
        assert ends[0] == pytest.approx(counts[0] / rate_rps, abs=2e-9)
    assert ends[1] == pytest.approx(sum(counts) / rate_rps, abs=2e-9, rel=1e-12)
    same = [draw_schedule(name, rate_rps, counts, (4, 1, 0), rank, clients) for rank in range(clients)]
    assert all(np.array_equal(one.due_ns, other.due_ns) for one, other in zip(parts, same, strict=True))


def test_clients_that_take_turns_offer_the_schedule_of_one(name) -> None:
    if arrivals.process(name).split is not arrivals.Split.IN_TURN:
        assert draw_schedule(name, 900.0, (9, 90), (1,), 1, 3).measured == 30
        return
    whole = draw_due_ns(name, 900.0, (9, 90), (1,))
    parts = [draw_schedule(name, 900.0, (9, 90), (1,), rank, 3).due_ns for rank in range(3)]
    assert np.array_equal(np.sort(np.concatenate(parts)), whole)


def test_its_name_is_no_other_kind_of_load_and_the_config_takes_it(name, monkeypatch) -> None:
    assert name not in {"curve", arrival_trace.KIND, *samples.ASIDE}
    curve = variants.from_config(config(load__arrivals=name))
    assert curve.load.arrivals == name
    if name == BURSTY:  # load.kind and the help list what was registered when they were imported
        return
    assert name in load_curve.KINDS
    assert variants.from_config(config(load__kind=name, load__rates_ips=[100.0])).load.rates_ips == (100.0,)
    with pytest.raises(ConfigError, match=f"load.kind={name} needs load.rates_ips"):
        variants.from_config(config(load__kind=name))


def measured_ms(name, rate_rps):
    """Latencies of ``MEASURED`` requests at ``rate_rps`` on a scripted server with constant service of 1 ms."""
    load = dataclasses.replace(LOAD, kind=name, warmup_s=1.0, min_requests=MEASURED, max_s=1e6, max_wait_s=1e6)
    return open_point(session(), load, rate_rps, Place(index=77, repeat=0, batch=1)).latency_ms


def service():
    return queue_model.Service(streams=1, unloaded_ns=np.full(9, 1e6), saturated_ns=np.full(9, 1e6))


def p99(latency_ms):
    return percentiles.percentile(np.sort(latency_ms), 0.99)


def test_the_ladder_predicts_its_tail_and_no_other_ones(name) -> None:
    unit = draw_unit_arrivals(name, rate_ladder._SIMULATED_ARRIVALS, (0, 5))
    for rate_rps in (500.0, 800.0):
        predicted = rate_ladder._p99_ms(service(), unit, rate_rps, 0)
        assert predicted == pytest.approx(p99(measured_ms(name, rate_rps)), rel=LADDER_TOLERANCE)


def test_a_process_predicted_as_another_misses_the_tolerance() -> None:
    """The tolerances tell the processes of the registry apart."""
    tails = {name: p99(measured_ms(name, 800.0)) for name in PROCESSES}
    assert tails["poisson"] > tails["constant"] / (1 - LADDER_TOLERANCE)


@pytest.mark.parametrize("limit_ms", [5.0, 20.0])
def test_the_capacity_at_an_slo_is_predicted_for_it(name, limit_ms) -> None:
    model = SloModel(service(), 1, 0.99, limit_ms, lambda count: draw_unit_arrivals(name, count, (0, 6)))
    capacity = model.capacity_ips()
    assert p99(measured_ms(name, capacity * (1 - CAPACITY_TOLERANCE))) <= limit_ms
    beyond = capacity * (1 + CAPACITY_TOLERANCE)
    assert beyond > 1000 or p99(measured_ms(name, beyond)) > limit_ms


def test_the_prediction_of_each_point_meets_its_measurement(name) -> None:
    load = dataclasses.replace(LOAD, arrivals=name, min_s=20.0, max_s=20.0)
    points = load_curve.measure(session(distribution="exponential"), load, batch=1)
    empty = Record(key="k", sweep="s", status="ok", started_at="2026-01-01T00:00:00+00:00", variant={"label": "x"})
    record = record_summary.summarised(empty, points, None)
    errors = [
        abs(point["prediction"]["error"][percentile])
        for point in record.points
        if point["verdict"] != "overloaded"
        for percentile in ("p50", "p99")
    ]
    assert len(errors) >= 8
    assert np.median(errors) <= POINT_TOLERANCE


@pytest.mark.parametrize("gaps", [np.zeros, lambda count: np.full(count, np.nan), lambda count: np.ones(count + 1)])
def test_gaps_that_are_no_gaps_are_refused_by_name(monkeypatch, gaps) -> None:
    monkeypatch.setitem(PROCESSES, "broken", ArrivalProcess(gaps=lambda _rng, count: gaps(count), help="broken"))
    with pytest.raises(LoadError, match="arrivals=broken"):
        draw_due_ns("broken", 10.0, (5,), (0,))
