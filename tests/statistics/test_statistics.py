"""Coverage, A/A and power on simulated sweeps with fixed seeds: docs/evidence/statistics.md in small, and able to fail.

The bounds leave room for two standard deviations of this smaller count around the 93 to 97% of the full table.
"""

import before
import numpy as np
import pytest
import rankings
import study
from processes import exponential_queue_percentile, queue, sojourn
from scipy import special

from sweep.backends.simulated import SimulatedSession
from sweep.loadgen.load_point import Place, open_point
from sweep.spec import EngineAxes, LoadAxes, ModelRef, OnnxAxes, Precision, Script, SessionAxes, Variant

SWEEPS = 300


def around(share, sweeps=SWEEPS):
    """Two standard deviations."""
    return 2 * (share * (1 - share) / sweeps) ** 0.5


@pytest.mark.parametrize("name", ["p50", "p99"])
@pytest.mark.parametrize(("phi", "count"), [(0.0, 2000), (0.5, 9000)])
def test_percentile_intervals_cover_independent_and_correlated_latencies(phi, count, name) -> None:
    found = study.coverage(study.independent(count, phi), name, SWEEPS)
    assert found.printed >= 0.95 * SWEEPS
    assert 0.93 - around(0.93) <= found.covered <= 0.97 + around(0.97)


@pytest.mark.parametrize(("load", "name"), [(0.2, "p50"), (0.2, "p99"), (0.4, "p99"), (0.6, "p50"), (0.8, "p50")])
def test_percentile_intervals_cover_the_latencies_of_a_queue(load, name) -> None:
    found = study.coverage(study.queue(load, 9000), name, SWEEPS)
    assert found.printed >= 0.8 * SWEEPS
    assert 0.93 - around(0.93) <= found.covered <= 0.97 + around(0.97)


@pytest.mark.parametrize(("load", "count", "name"), [(0.8, 662, "p99"), (0.8, 9000, "p99"), (0.9, 662, "p50")])
def test_where_too_little_is_independent_an_interval_is_withheld_rather_than_wrong(load, count, name) -> None:
    found = study.coverage(study.queue(load, count), name, SWEEPS)
    assert found.printed <= 0.1 * SWEEPS
    assert found.wrong <= 0.05


def test_the_bootstrap_that_was_replaced_misses_the_same_queue() -> None:
    """So that the test above cannot pass by the queue being easy."""
    old = study.coverage(study.queue(0.8, 662), "p99", 60, interval=before.percentile_interval)
    assert old.covered < 0.5


@pytest.mark.parametrize(("cv", "phi"), [(0.005, 0.0), (0.1, 0.0), (1.0, 0.0), (0.1, 0.5)])
def test_the_peaks_interval_covers_its_throughput(cv, phi) -> None:
    held = study.rate_coverage(SWEEPS, 1000, cv=cv, phi=phi).held.value
    assert 0.93 - around(0.93) <= held <= 0.97 + around(0.97)


@pytest.mark.parametrize(
    ("cell", "least", "most"),
    [
        (lambda: rankings.alike(100, cv=0.02), 0.0, 0.05),
        (lambda: rankings.alike(40, starts=3, machine=0.1), 0.0, 0.05),
        (lambda: rankings.alike(8, variants=12, starts=5), 0.0, 0.05),
        (lambda: rankings.slower_one(25, machine=0.2), 0.9, 1.0),
        (lambda: rankings.slower_one(5, variants=12), 0.8, 1.0),
        (lambda: rankings.slower_one(1, variants=100, starts=3, slower=1.5), 1.0, 1.0),
        (lambda: rankings.slower_oracle(40, variants=12), 0.9, 1.0),
        (lambda: rankings.drifted(40), 0.0, 0.05),
        (lambda: rankings.drifted(10, slower=1.2), 0.8, 1.0),
    ],
)
def test_who_is_called_different_and_what_drifted(cell, least, most) -> None:
    """Marks of decision 44, from samples to the answer, with room for two standard errors of so few tables."""
    share = cell()
    assert least - 2 * share.error <= share.value <= most + 2 * share.error


def test_the_queue_of_the_study_is_the_queue_of_the_load_generator() -> None:
    """Same arrivals, constant service: the same latencies to the nanosecond's rounding."""
    script = Script(service_us=1000.0, sample_us=0.0)
    onnx = OnnxAxes(model=ModelRef(name="tiny_cnn", revision=1), precision=Precision(name="fp32", dtype="fp32"))
    session = SessionAxes(script=script)
    variant = Variant(backend="simulated", onnx=onnx, engine=EngineAxes(), session=session, load=LoadAxes())
    load = LoadAxes(kind="poisson", warmup_s=0.0, min_requests=3000, max_wait_s=1e6, max_s=1e6)
    point = open_point(SimulatedSession(script, variant), load, 850.0, Place(index=0, repeat=0, batch=1))
    gaps = np.diff(point.scheduled_ns / 1e6, prepend=0.0)[None]
    assert sojourn(gaps, np.ones_like(gaps))[0] == pytest.approx(point.latency_ms, abs=1e-4)


def test_the_queue_of_the_study_has_the_latencies_of_theory() -> None:
    rng = np.random.default_rng(0)
    rows = queue(rng, 100, 20_000, load=0.7)
    for p in (0.5, 0.99):
        assert np.quantile(rows, p) == pytest.approx(exponential_queue_percentile(p, 0.7), rel=0.03)
    drawn = study.independent(1_000_000).draw(rng, 1)[0]
    truth = study.independent(1).truth["p99"]
    assert np.quantile(drawn, special.ndtr(special.ndtri(0.99))) == pytest.approx(truth, rel=0.01)
