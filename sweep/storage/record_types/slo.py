"""Type the capacity under an SLO."""

from __future__ import annotations

from typing import NotRequired, TypedDict

from sweep.spec import outcome
from sweep.storage.record_types.values import Count, Milliseconds, Number, Rate, RateInterval, Share


class SloProbe(TypedDict):
    """Describe one run of the search for the capacity.

    Attributes:
        kind: ``probe``, or ``confirm`` for a run that is long enough to carry the percentile.
        offered_ips: offered rate, samples/s.
        requests: measured requests.
        over: of them, slower than the limit.
        inflation: requests that count as one, since slow ones come together.
        confidence: that the SLO holds at this rate, 0 to 1.
        verdict: what the run shows.
        requests_together: of a run that confirms only together with those above its rate: requests of all of them.
        confidence_together: the same for the confidence, that the SLO holds at the rate of this run.
    """

    kind: str
    offered_ips: Rate
    requests: Count
    over: Count
    inflation: Number
    confidence: Share
    verdict: outcome.SloVerdict
    requests_together: NotRequired[Count]
    confidence_together: NotRequired[Share]


class SloResult(TypedDict):
    """Give the highest rate that keeps the SLO.

    Attributes:
        percentile: percentile of the SLO in percent, as 99.9.
        limit_ms: its limit, ms.
        capacity_ips: highest rate that held, samples/s; None where none did.
        confidence: that the SLO holds at that rate, 0 to 1.
        next_ips: lowest rate that did not hold, samples/s; None where every rate held.
        monotonic: no higher rate held again.
        confirmed: a run at that very rate confirmed it, by itself or together with those above it.
        reason: why there is no capacity, or that the curve is not monotonic.
        estimate_ips: likeliest capacity by all runs together, samples/s; it is no promise. None where no run bounds it.
        estimate_interval: its 95% interval, [low, high] in samples/s.
        probes: runs of the search, in measured order; empty where the rungs of the ladder decided.
    """

    percentile: Number
    limit_ms: Milliseconds
    capacity_ips: Rate | None
    confidence: Share | None
    next_ips: Rate | None
    monotonic: bool
    confirmed: NotRequired[bool]
    reason: NotRequired[str | None]
    estimate_ips: NotRequired[Rate | None]
    estimate_interval: NotRequired[RateInterval | None]
    probes: NotRequired[list[SloProbe]]
