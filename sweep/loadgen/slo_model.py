"""Model the share of requests that miss an SLO's limit as a function of the offered rate."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from sweep.analysis import percentiles, simulate_latency_ms

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sweep.analysis import Evidence, Floats, Service
    from sweep.loadgen.arrivals import UnitArrivals

_LOADS = np.array([0.02, 0.2, 0.4, 0.55, 0.66, 0.75, 0.82, 0.88, 0.92, 0.96, 1.0, 1.1])  # of the capacity, simulated
_MIN_REQUESTS = 15_000  # simulated at each load
_MIN_TAIL_REQUESTS = 60  # beyond the limit, of those simulated at the capacity
_SHIFTS = np.exp(np.linspace(-0.7, 0.4, 221))  # measured over predicted capacity, tried by the fit
_SLOPES = np.exp(np.linspace(-0.8, 0.8, 9))  # measured over predicted steepness of the share, tried by the fit
_MAX_LOGIT = 30.0  # past it a share is 0 or 1
_RATE_STEPS = 4000  # of the log rate, among which a rate is looked up
_WEIGHT_WIDTH = 0.1  # standard deviation of a point's weight, in log rate from the capacity
_PRIOR = 0.3  # standard deviation of the log of measured over predicted capacity, and of the log of the slope


class SloModel:
    """Predict the share of slow requests by simulation, then fit it to what was measured.

    The fit moves the predicted curve along the logarithm of the rate and stretches its logit.

    Args:
        service: measured service times.
        batch: samples per request.
        p: percentile of the SLO as a share, such as 0.99.
        limit_ms: its limit, ms.
        draw_arrivals: draws n arrivals of the load's own process, at a mean rate of one per unit of time.

    Attributes:
        p: share of the requests that has to stay within the limit.
        saturation_ips: samples/s past which the queue grows without end.
        effective_requests: independent requests behind the fit, at least 1.
    """

    def __init__(
        self, service: Service, batch: int, p: float, limit_ms: float, draw_arrivals: Callable[[int], UnitArrivals]
    ) -> None:
        self.p = p
        self.saturation_ips = service.capacity_rps * batch
        count = max(_MIN_REQUESTS, math.ceil(_MIN_TAIL_REQUESTS / (1 - p)))
        arrivals = draw_arrivals(count)
        due_ns = arrivals.times * 1e9
        simulated = [
            simulate_latency_ms(service, due_ns / (load * service.capacity_rps), client=arrivals.client)
            for load in _LOADS
        ]
        shares = [float(np.mean(latency_ms > limit_ms)) for latency_ms in simulated]
        inflation = [percentiles.inflation(latency_ms, p, limit_ms) for latency_ms in simulated]
        self._log_inflation = np.log(np.maximum.accumulate(inflation))
        self._logits = _logit(np.clip(np.maximum.accumulate(shares), 0.2 / count, 1 - 0.2 / count))
        self._log_rates = np.log(_LOADS * self.saturation_ips)
        self._shift, self._slope = 0.0, 1.0
        self.effective_requests = 1.0

    def slow_share(self, rates_ips: Floats) -> Floats:
        """Return the share of requests over the limit at ``rates_ips``, shape (n,), samples/s."""
        return self._slow_share(np.log(rates_ips) - self._shift, self._slope)

    def inflation(self, rates_ips: Floats) -> Floats:
        """Return how many requests count as one (``percentiles.inflation``) at ``rates_ips``, shape (n,), samples/s."""
        return np.asarray(np.exp(np.interp(np.log(rates_ips) - self._shift, self._log_rates, self._log_inflation)))

    def _slow_share(self, log_rate: Floats | float, slope: Floats | float) -> Floats:
        """Return the predicted share, its logit stretched by ``slope`` around the share that the SLO allows."""
        pivot = math.log((1 - self.p) / self.p)
        logit = pivot + slope * (np.interp(log_rate, self._log_rates, self._logits) - pivot)
        return np.asarray(1 / (1 + np.exp(-np.clip(logit, -_MAX_LOGIT, _MAX_LOGIT))))

    def capacity_ips(self) -> float:
        """Return the highest rate that keeps the SLO, samples/s; the lowest simulated rate where none does."""
        simulated = np.exp(self._log_rates + self._shift)
        log_rates = np.linspace(math.log(simulated[0]), math.log(simulated[-1]), _RATE_STEPS)
        within = np.flatnonzero(self._slow_share(log_rates - self._shift, self._slope) <= 1 - self.p)
        return float(math.exp(log_rates[within[-1] if len(within) else 0]))

    def fit(self, evidence: Sequence[Evidence]) -> None:
        """Move and stretch the curve to its likeliest place, by the binomial likelihood of what was measured nearby.

        Args:
            evidence: evidence of all points that were measured so far; ``invalid`` ones are left out.
        """
        counted = [item for item in evidence if item.verdict != "invalid" and item.requests]
        for _ in range(3):  # what is near depends on where the capacity lies
            around = math.log(self.capacity_ips())
            scores = -((np.log(_SHIFTS) / _PRIOR) ** 2 + (np.log(_SLOPES[:, None]) / _PRIOR) ** 2) / 2
            for item in counted:
                scores = scores + self._log_likelihood(item, around)
            slope, shift = np.unravel_index(int(np.argmax(scores)), scores.shape)
            self._shift, self._slope = float(np.log(_SHIFTS[shift])), float(_SLOPES[slope])
        around = math.log(self.capacity_ips())
        self.effective_requests = max(
            sum(_weight(item, around) * item.requests / item.inflated for item in counted), 1.0
        )

    def _log_likelihood(self, item: Evidence, around: float) -> Floats:
        log_rate, weight = math.log(item.rate_ips), _weight(item, around)
        shares = self._slow_share(log_rate - np.log(_SHIFTS), _SLOPES[:, None])
        over = item.requests if item.verdict == "overloaded" else item.over
        binomial = over * np.log(shares) + (item.requests - over) * np.log1p(-shares)
        return np.asarray(weight * binomial / item.inflated)


def _weight(item: Evidence, around: float) -> float:
    return math.exp(-(((math.log(item.rate_ips) - around) / _WEIGHT_WIDTH) ** 2) / 2)


def _logit(share: Floats) -> Floats:
    return np.asarray(np.log(share / (1 - share)))
