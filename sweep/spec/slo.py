"""Describe a latency objective."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PercentileName = Literal["p50", "p90", "p95", "p99", "p999"]
PERCENTILES: dict[PercentileName, float] = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999}


@dataclass(frozen=True, slots=True)
class Slo:
    """Describe one latency objective: a share of the requests has to be answered within a limit.

    Attributes:
        percentile: name of the share, such as ``p99``.
        limit_ms: longest latency that this share of the requests may have, ms.
    """

    percentile: PercentileName
    limit_ms: float

    @property
    def share(self) -> float:
        """Return the share of the requests, 0 to 1."""
        return PERCENTILES[self.percentile]

    @property
    def tag(self) -> str:
        """Return the name of the objective in the file of samples that were measured for it: ``p99<=10``."""
        return f"{self.percentile}<={self.limit_ms:g}"

    def __str__(self) -> str:
        return f"{self.percentile} <= {self.limit_ms:g} ms"


def of_percent(percent: float, limit_ms: float) -> Slo:
    """Return the objective that a record holds as a percentage.

    Args:
        percent: percentile as the record has it, such as 99.9.
        limit_ms: its limit, ms.

    Raises:
        KeyError: no percentile has that number.
    """
    return Slo({share * 100: name for name, share in PERCENTILES.items()}[percent], limit_ms)
