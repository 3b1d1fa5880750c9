"""The generator against queueing theory, on virtual clocks: each theoretical value lies in the simulation's interval.

The interval is Student's, at 99.9%, over independent replications, and must be narrow enough to mean something. Bulk
service has no short formula, so its embedded Markov chain is solved here, by other means than the generator's.
"""

import math

import lazy_loader
import numpy as np
import pytest

from sweep.backends.simulated import SimulatedSession
from sweep.loadgen.load_point import Place, open_point
from sweep.spec import EngineAxes, LoadAxes, ModelRef, OnnxAxes, Precision, Script, SessionAxes, Variant

stats = lazy_loader.load("scipy.stats", suppress_warning=True)  # most of a second, which a collection does without

SERVICE_MS = 1.0
LOADS = [0.2, 0.4, 0.6, 0.8, 0.9]
BATCH = 8
FOREVER_MS = 1e9
REPLICATIONS = 16
CONFIDENCE = 0.999


def session(*, streams=1, distribution="constant", batch=1, sample_us=0.0, seed=0):
    script = Script(service_us=SERVICE_MS * 1000, sample_us=sample_us, distribution=distribution)
    variant = Variant(
        backend="simulated",
        onnx=OnnxAxes(model=ModelRef(name="tiny_cnn", revision=1), precision=Precision(name="fp32", dtype="fp32")),
        engine=EngineAxes(batch=batch),
        session=SessionAxes(streams=streams, script=script),
        load=LoadAxes(seed=seed),
    )
    return SimulatedSession(script, variant)


def mean_waits_ms(rate_rps, count, *, wait_ms=None, only_full=False, **server):
    """Mean wait before service of each replication, ms; ``count`` requests in all.

    ``only_full`` leaves out the last batch of all, which no arrival comes to fill.
    """
    means = []
    for seed in range(REPLICATIONS):
        axes = LoadAxes(
            kind="poisson",
            warmup_s=500 / rate_rps,
            min_s=1e-6,
            min_requests=count // REPLICATIONS,
            max_s=1e6,
            max_wait_s=1e6,
            seed=seed,
            batch_wait_ms=wait_ms,
        )
        made = session(seed=10 * seed, **server)
        point = open_point(made, axes, rate_rps, Place(index=0, repeat=0, batch=server.get("batch", 1)))
        keep = point.measured & (point.ran_with == point.gathers if only_full else True)
        means.append((point.issued_ns[keep] - point.scheduled_ns[keep]).mean() / 1e6)
    return np.array(means)


def assert_within(expected, means, narrow=0.1):
    half = stats.t.ppf((1 + CONFIDENCE) / 2, len(means) - 1) * means.std(ddof=1) / math.sqrt(len(means))
    assert half <= narrow * expected, f"the interval is too wide to tell: {means.mean():.4f} +- {half:.4f}"
    assert abs(means.mean() - expected) <= half, f"theory {expected:.4f}, found {means.mean():.4f} +- {half:.4f}"


def requests(rho, calm=48_000, busy=640_000):
    """A queue near saturation forgets slowly: relaxation time goes with (1 - rho)^-2."""
    return calm if rho < 0.7 else busy


@pytest.mark.parametrize("rho", LOADS)
def test_md1(rho) -> None:
    """Pollaczek-Khinchine: W = rho s / (2 (1 - rho)) for constant service time s."""
    expected = rho * SERVICE_MS / (2 * (1 - rho))
    assert_within(expected, mean_waits_ms(rho * 1000 / SERVICE_MS, requests(rho)))


@pytest.mark.parametrize("rho", LOADS)
def test_mm1(rho) -> None:
    """W = rho s / (1 - rho) for exponential service times of mean s."""
    expected = rho * SERVICE_MS / (1 - rho)
    means = mean_waits_ms(rho * 1000 / SERVICE_MS, requests(rho, busy=960_000), distribution="exponential")
    assert_within(expected, means, narrow=0.15)


@pytest.mark.parametrize("rho", LOADS)
def test_mmc(rho) -> None:
    """Erlang C with four servers."""
    servers, offered = 4, 4 * rho
    tail = offered**servers / (math.factorial(servers) * (1 - rho))
    erlang_c = tail / (sum(offered**k / math.factorial(k) for k in range(servers)) + tail)
    expected = erlang_c * SERVICE_MS / (servers * (1 - rho))
    count = 960_000 if rho < 0.3 else requests(rho, calm=200_000)  # few wait at all in a calm one
    means = mean_waits_ms(offered * 1000 / SERVICE_MS, count, streams=servers, distribution="exponential")
    assert_within(expected, means, narrow=0.15)


def bulk_wait_ms(rate, least, most, service_ms):
    """Mean wait of M/D/1 with bulk service: ``least`` to ``most`` customers are served together.

    The general bulk service rule of Neuts (1967, A general class of bulk queues with Poisson input, Annals of
    Mathematical Statistics 38, 759-770; Bailey 1954 for the embedded chain): a free server waits until ``least`` are
    there and takes up to ``most``. The chain of the queue's length at the ends of services is solved numerically; the
    mean length over time is that of a cycle (renewal reward), and Little's law turns it into the mean wait.

    Args:
        rate: arrivals per ms.
        least: fewest served together.
        most: most served together.
        service_ms: service time of k customers, as a function of k.
    """
    states = 400
    matrix = np.zeros((states, states))
    area, length = np.zeros(states), np.zeros(states)
    for queue in range(states):
        taken = min(max(queue, least), most)
        left, took = max(queue - taken, 0), service_ms(taken)
        arrivals = stats.poisson.pmf(np.arange(states - left), rate * took)
        matrix[queue, left:] = arrivals
        matrix[queue, -1] += max(1 - arrivals.sum(), 0)
        gathering = np.arange(queue, least)  # lengths while the server waits for the fewest, 1/rate each
        area[queue] = gathering.sum() / rate + left * took + rate * took**2 / 2
        length[queue] = len(gathering) / rate + took
    system = np.vstack([matrix.T - np.eye(states), np.ones(states)])[1:]
    at_end = np.linalg.solve(system, np.eye(states)[-1])
    assert at_end[-1] < 1e-9  # the states are enough
    return float(at_end @ area / (at_end @ length) / rate)


def test_the_chain_gives_pollaczek_khinchine_for_one_at_a_time() -> None:
    for rho in LOADS:
        assert bulk_wait_ms(rho, 1, 1, lambda _: 1.0) == pytest.approx(rho / (2 * (1 - rho)), rel=1e-6)


@pytest.mark.parametrize("sample_ms", [0.0, 0.25])
@pytest.mark.parametrize("rho", LOADS)
def test_what_is_there_is_served_together(rho, sample_ms) -> None:
    """max_wait 0: a free server takes 1 to 8 at once; a batch takes as long as its size says."""

    def service_ms(size):
        return SERVICE_MS + sample_ms * size

    rate = rho * BATCH / service_ms(BATCH)
    expected = bulk_wait_ms(rate, 1, BATCH, service_ms)
    means = mean_waits_ms(
        rate * 1000, requests(rho, busy=320_000), wait_ms=0.0, batch=BATCH, sample_us=sample_ms * 1000
    )
    assert_within(expected, means)


@pytest.mark.parametrize("rho", LOADS)
def test_only_full_batches_are_served(rho) -> None:
    """A wait that never ends: every batch is full, and the wait to fill it counts."""
    rate = rho * BATCH / SERVICE_MS
    expected = bulk_wait_ms(rate, BATCH, BATCH, lambda _: SERVICE_MS)
    means = mean_waits_ms(rate * 1000, requests(rho, busy=320_000), wait_ms=FOREVER_MS, only_full=True, batch=BATCH)
    assert_within(expected, means)


@pytest.mark.parametrize("arrivals_in_wait", [0.5, 1.0, 2.0, 4.0, 8.0])
def test_the_wait_alone(arrivals_in_wait) -> None:
    """Batches that never fill and a stream always free: the oldest waits w, those behind it w/2 on average.

    The first arrival opens a window of w, in which Poisson(rate w) follow: (w + rate w w/2) / (1 + rate w) each.
    """
    wait_ms = 2.0
    rate = arrivals_in_wait / wait_ms
    expected = (wait_ms + arrivals_in_wait * wait_ms / 2) / (1 + arrivals_in_wait)
    means = mean_waits_ms(rate * 1000, 32_000, wait_ms=wait_ms, batch=1000, streams=4)
    assert_within(expected, means, narrow=0.02)
