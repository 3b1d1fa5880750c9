"""Describe what one open-loop point shows about an SLO. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from sweep.analysis import percentiles
from sweep.spec import SloVerdict, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Summarise what one open-loop point shows about an SLO.

    Attributes:
        kind: ``probe``, ``confirm``, or the arrivals of a rung.
        rate_ips: offered rate, samples/s.
        requests: number of measured requests.
        over: number of them that were slower than the limit.
        inflated: requests that count as one (``percentiles.inflation``).
        confidence: confidence that the SLO holds at this rate, 0 to 1.
        broken: confidence that it does not, 0 to 1.
        point_verdict: verdict of the point itself (``verdicts.open_verdict``).
        grows: whether the backlog grew all through the window: the server cannot serve this rate.
        carried: whether there are enough requests for the percentile to be printed.
    """

    kind: str
    rate_ips: float
    requests: int
    over: int
    inflated: float
    confidence: float
    broken: float
    point_verdict: Verdict
    grows: bool
    carried: bool

    @property
    def verdict(self) -> SloVerdict:
        """Return ``held`` or ``broken`` at 99% confidence, else ``unclear``, or why the point shows nothing.

        One request that waited longer than load.max_wait_s ends a run, and breaks no SLO: a run that was ended so is
        ``overloaded`` where too many were slow or the backlog grew, else it shows nothing.
        """
        if self.point_verdict == Verdict.INVALID:
            return SloVerdict.INVALID
        if self.point_verdict == Verdict.OVERLOADED:
            breaks = self.grows or self.broken >= percentiles.CONFIDENCE
            return SloVerdict.OVERLOADED if breaks else SloVerdict.UNCLEAR
        if self.confidence >= percentiles.CONFIDENCE:
            return SloVerdict.HELD
        return SloVerdict.BROKEN if self.broken >= percentiles.CONFIDENCE else SloVerdict.UNCLEAR

    @property
    def failed(self) -> bool:
        """Return whether the SLO does not hold at this rate, at 99% confidence or by overload."""
        return self.verdict in {SloVerdict.BROKEN, SloVerdict.OVERLOADED}
