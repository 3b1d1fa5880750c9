"""Scripted servers on the virtual clock, and what queueing theory says of them. Service times have a mean of 1 ms."""

from __future__ import annotations

import math

from sweep.analysis import slo_capacity
from sweep.backends.simulated import SimulatedSession
from sweep.loadgen import capacity_search, load_curve
from sweep.spec import LoadAxes, ModelRef, OnnxAxes, Precision, Script, SessionAxes, Variant
from sweep.spec.slo import Slo

LOAD = LoadAxes(points=7, max_wait_s=10.0)


def session(streams=1, distribution="constant", seed=0, service_us=1000.0, **script):
    made = Script(service_us=service_us, sample_us=0.0, distribution=distribution, **script)
    variant = Variant(
        backend="simulated",
        onnx=OnnxAxes(model=ModelRef(name="tiny_cnn", revision=1), precision=Precision(name="fp32", dtype="fp32")),
        session=SessionAxes(streams=streams, script=made),
        load=LoadAxes(seed=seed),
    )
    return SimulatedSession(made, variant)


def searched(limit_ms, search_s, name="p99", load=LOAD, **server):
    """(the record's slo, the curve's samples, the search's samples)."""
    known = load_curve.measure(session(**server), load, batch=1)
    ask = capacity_search.SearchRequest(slo=Slo(name, limit_ms), search_s=search_s)
    made = capacity_search.run(session(**server), load, ask, known)
    return slo_capacity.slo_result([*known, *made], Slo(name, limit_ms)), known, made


def erlang_c(servers, busy):
    """Share of arrivals of M/M/c that wait; ``busy`` is the offered load in servers."""
    tail = busy**servers / (math.factorial(servers) * (1 - busy / servers))
    return tail / (sum(busy**k / math.factorial(k) for k in range(servers)) + tail)


def md1_within(rate, limit_ms):
    """P(time in M/D/1 <= limit) at ``rate`` arrivals a service time (Erlang 1909)."""
    wait = limit_ms - 1
    terms = ((-rate * (wait - k)) ** k / math.factorial(k) * math.exp(rate * (wait - k)) for k in range(int(wait) + 1))
    return (1 - rate) * math.fsum(terms)


def mmc_within(servers, rate, limit_ms):
    """P(time in M/M/c <= limit) at ``rate`` arrivals a service time."""
    apart = servers - 1 - rate
    waits = limit_ms if abs(apart) < 1e-9 else (1 - math.exp(-apart * limit_ms)) / apart
    return 1 - math.exp(-limit_ms) * (1 + erlang_c(servers, rate) * waits)


def highest(within, servers, p):
    """Arrivals/s at which ``within(rate)`` falls to ``p``."""
    low, high = 1e-3, servers * (1 - 1e-6)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if within(middle) >= p else (low, middle)
    return low * 1000
