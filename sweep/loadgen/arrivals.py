"""Schedules of arrivals, known whole before anything runs: drawn from a seed here, read from a file in ``trace``."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from sweep.errors import LoadError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sweep.storage.samples import Ints

KINDS = ("poisson", "constant")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Schedule:
    """Every arrival of one open-loop point.

    Attributes:
        kind: ``poisson``, ``constant`` or ``trace``.
        due_ns: arrival times after the start, ns, ascending.
        warmup: how many of them, from the first, are warm-up.
        rate_rps: requests/s that they offer.
    """

    kind: str
    due_ns: Ints
    warmup: int
    rate_rps: float

    @property
    def measured(self) -> int:
        """Arrivals after the warm-up."""
        return len(self.due_ns) - self.warmup

    def dealt(self, client: int, clients: int) -> Schedule:
        """The part of ``client`` where the arrivals are dealt out to ``clients`` in turn, none of them warm-up."""
        return replace(self, due_ns=self.due_ns[client::clients], rate_rps=self.rate_rps / clients)


def drawn(
    kind: str, rate_rps: float, counts: tuple[int, int], seed: tuple[int, ...], part: tuple[int, int] = (0, 1)
) -> Schedule:
    """The schedule of ``schedule`` with its warm-up, ``counts[0]`` arrivals, told from the rest.

    Args:
        kind: as of ``schedule``.
        rate_rps: offered by all clients together, requests/s.
        counts: warm-up and measured requests of all clients together.
        seed: entropy of the draw.
        part: (client, clients). Each client draws its share by itself, from a seed of its own, over the same time:
            independent Poisson processes add up to one. Constant arrivals of the clients come one gap / clients apart.
    """
    client, clients = part
    if clients == 1:
        return Schedule(kind=kind, due_ns=schedule(kind, rate_rps, counts, seed), warmup=counts[0], rate_rps=rate_rps)
    share = (math.ceil(counts[0] / clients), math.ceil(counts[1] / clients))
    rate = rate_rps / clients
    due = schedule(kind, rate, share, (*seed, client))
    if kind == "constant":
        due -= round(1e9 / rate * client / clients)
    return Schedule(kind=kind, due_ns=due, warmup=share[0], rate_rps=rate)


def schedule(kind: str, rate_rps: float, counts: tuple[int, ...], seed: tuple[int, ...]) -> Ints:
    """Arrival times in ns after the start, ascending, in stretches that last exactly ``count / rate_rps`` each.

    Poisson gaps are exponential, then scaled so that each stretch holds its count in its time: a Poisson process
    given its count. Else a window of 662 arrivals would offer a rate that is off by 4% (one standard deviation).

    Args:
        kind: ``poisson`` or ``constant`` (equal gaps).
        rate_rps: offered rate, requests/s.
        counts: requests in each stretch, as in (warm-up, measured).
        seed: entropy of the draw; the same seed gives the same schedule.

    Raises:
        LoadError: unknown kind.
    """
    if kind not in KINDS:
        raise LoadError(f"arrivals={kind}: no such kind; there are: {', '.join(KINDS)}")
    rng = np.random.default_rng(seed)
    gaps = [
        np.full(count, 1 / rate_rps) if kind == "constant" else _poisson_gaps(rng, rate_rps, count)
        for count in counts
        if count
    ]
    return np.asarray(np.cumsum(np.concatenate(gaps)) * 1e9, dtype=np.int64)


def _poisson_gaps(rng: np.random.Generator, rate_rps: float, count: int) -> NDArray[np.float64]:
    gaps = rng.exponential(1.0, count)
    return np.asarray(gaps * (count / rate_rps / gaps.sum()))
