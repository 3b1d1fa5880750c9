"""Predicted share of slow requests by offered rate, fitted to what probes showed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from sweep.analysis import percentiles
from sweep.analysis.queue_model import latencies_ms

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sweep.analysis.queue_model import Floats, Service
    from sweep.analysis.slo_capacity import Evidence

_LOADS = np.array([0.02, 0.2, 0.4, 0.55, 0.66, 0.75, 0.82, 0.88, 0.92, 0.96, 1.0, 1.1])
_REQUESTS = 15_000  # simulated at each of them, at least
_TAIL_REQUESTS = 60  # beyond the limit, of those simulated at the capacity
_SHIFTS = np.exp(np.linspace(-0.7, 0.4, 221))  # how far the measured capacity may lie from the predicted one
_SLOPES = np.exp(np.linspace(-0.8, 0.8, 9))  # how much steeper than predicted the share may rise
_STEEPEST = 30.0  # a logit past which a share is 0 or 1
_FINE = 4000  # steps in which a rate is looked for
_NEAR = 0.1  # weight of a point falls with the distance of its log rate from the capacity, by this
_PRIOR = 0.3  # standard deviation of the log of measured over predicted capacity, and of the log of the slope


class Shape:
    """Predicted share of slow requests by offered rate, moved along the rate until it fits what was measured.

    Args:
        service: what a request costs.
        batch: samples per request.
        p: percentile of the SLO, as 0.99.
        limit_ms: its limit.
        arrivals: draws n arrival times in units of the mean gap.
    """

    def __init__(
        self, service: Service, batch: int, p: float, limit_ms: float, arrivals: Callable[[int], Floats]
    ) -> None:
        self.p = p
        self.ceiling_ips = service.capacity_rps * batch
        count = max(_REQUESTS, math.ceil(_TAIL_REQUESTS / (1 - p)))
        due = arrivals(count) * 1e9
        simulated = [latencies_ms(service, due / (load * service.capacity_rps)) for load in _LOADS]
        shares = [float(np.mean(latencies > limit_ms)) for latencies in simulated]
        inflated = [percentiles.inflation(latencies, p, limit_ms) for latencies in simulated]
        self._log_inflated = np.log(np.maximum.accumulate(inflated))
        self._logits = _logit(np.clip(np.maximum.accumulate(shares), 0.2 / count, 1 - 0.2 / count))
        self._log_rates = np.log(_LOADS * self.ceiling_ips)
        self._shift, self._slope = 0.0, 1.0
        self.seen = 1.0  # independent requests behind the fit

    def share(self, rate_ips: float) -> float:
        """Share of requests over the limit at ``rate_ips``."""
        return float(self._share(math.log(rate_ips) - self._shift, self._slope))

    def shares(self, rates_ips: Floats) -> Floats:
        """As ``share``, of many rates."""
        return self._share(np.log(rates_ips) - self._shift, self._slope)

    def inflated(self, rates_ips: Floats) -> Floats:
        """Predict how many requests count as one at these rates (``percentiles.inflation``)."""
        return np.asarray(np.exp(np.interp(np.log(rates_ips) - self._shift, self._log_rates, self._log_inflated)))

    def _share(self, log_rate: Floats | float, slope: Floats | float) -> Floats:
        """The predicted share, its logit stretched by ``slope`` around the share that the SLO allows."""
        pivot = math.log((1 - self.p) / self.p)
        logit = pivot + slope * (np.interp(log_rate, self._log_rates, self._logits) - pivot)
        return np.asarray(1 / (1 + np.exp(-np.clip(logit, -_STEEPEST, _STEEPEST))))

    def highest(self, share: float) -> float:
        """The highest rate at which no more than ``share`` is over; the lowest known rate where all are."""
        known = np.exp(self._log_rates + self._shift)
        log_rates = np.linspace(math.log(known[0]), math.log(known[-1]), _FINE)
        held = np.flatnonzero(self._share(log_rates - self._shift, self._slope) <= share)
        return float(math.exp(log_rates[held[-1] if len(held) else 0]))

    def fit(self, seen: Sequence[Evidence]) -> None:
        """Move and stretch the shape to what is likeliest, by the binomial likelihood of what was seen nearby."""
        counted = [item for item in seen if item.verdict != "invalid" and item.requests]
        for _ in range(3):  # what is near depends on where the capacity lies
            around = math.log(self.highest(1 - self.p))
            scores = -((np.log(_SHIFTS) / _PRIOR) ** 2 + (np.log(_SLOPES[:, None]) / _PRIOR) ** 2) / 2
            for item in counted:
                scores = scores + self._score(item, around)
            slope, shift = np.unravel_index(int(np.argmax(scores)), scores.shape)
            self._shift, self._slope = float(np.log(_SHIFTS[shift])), float(_SLOPES[slope])
        around = math.log(self.highest(1 - self.p))
        self.seen = max(sum(_weight(item, around) * item.requests / item.inflated for item in counted), 1.0)

    def _score(self, item: Evidence, around: float) -> Floats:
        log_rate, weight = math.log(item.rate_ips), _weight(item, around)
        shares = self._share(log_rate - np.log(_SHIFTS), _SLOPES[:, None])
        over = item.requests if item.verdict == "overloaded" else item.over
        likely = over * np.log(shares) + (item.requests - over) * np.log1p(-shares)
        return np.asarray(weight * likely / item.inflated)


def _weight(item: Evidence, around: float) -> float:
    return math.exp(-(((math.log(item.rate_ips) - around) / _NEAR) ** 2) / 2)


def _logit(share: Floats) -> Floats:
    return np.asarray(np.log(share / (1 - share)))
