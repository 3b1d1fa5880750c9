"""Schedules of arrivals, drawn whole from a seed before anything runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sweep.errors import LoadError

if TYPE_CHECKING:
    from sweep.samples import Ints

KINDS = ("poisson", "constant")


def schedule(kind: str, rate_rps: float, count: int, seed: tuple[int, ...]) -> Ints:
    """Arrival times of ``count`` requests, in ns after the start, ascending.

    Args:
        kind: ``poisson`` (exponential gaps) or ``constant`` (equal gaps).
        rate_rps: offered rate, requests/s.
        count: how many requests.
        seed: entropy of the draw; the same seed gives the same schedule.

    Raises:
        LoadError: unknown kind.
    """
    if kind == "constant":
        gaps = np.full(count, 1 / rate_rps)
    elif kind == "poisson":
        gaps = np.random.default_rng(seed).exponential(1 / rate_rps, count)
    else:
        raise LoadError(f"arrivals={kind}: no such kind; there are: {', '.join(KINDS)}")
    return np.asarray(np.cumsum(gaps) * 1e9, dtype=np.int64)
