"""Draw the schedules of arrival processes: every arrival of a point is known before the first one is issued."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from sweep.errors import LoadError
from sweep.loadgen.arrival_processes import Split, process
from sweep.system import generator

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sweep.storage import Ints


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Schedule:
    """Hold every arrival of one open-loop point.

    Attributes:
        kind: name of the arrival process, or ``trace``.
        due_ns: arrival times after the start, shape (n,), ns, ascending.
        warmup: how many arrivals, from the first, are warm-up.
        rate_rps: offered rate, requests/s.
    """

    kind: str
    due_ns: Ints
    warmup: int
    rate_rps: float

    @property
    def measured(self) -> int:
        """Count the arrivals after the warm-up."""
        return len(self.due_ns) - self.warmup

    def deal(self, rank: int, clients: int) -> Schedule:
        """Return the part of client ``rank`` where ``clients`` take the arrivals in turn."""
        return replace(
            self,
            due_ns=self.due_ns[rank::clients],
            warmup=len(range(rank, self.warmup, clients)),
            rate_rps=self.rate_rps / clients,
        )


def draw_schedule(
    name: str, rate_rps: float, counts: tuple[int, int], seed: tuple[int, ...], rank: int = 0, clients: int = 1
) -> Schedule:
    """Draw the schedule of one client; the schedules of all clients cover the same time.

    Args:
        name: arrival process.
        rate_rps: rate that all clients offer together, requests/s.
        counts: warm-up and measured requests of all clients together.
        seed: entropy of the draw; the same seed gives the same schedules.
        rank: number of this client, from 0.
        clients: how many share the process, as its ``split`` says.

    Raises:
        LoadError: the registry has no such process.
    """
    split = process(name).split
    if clients == 1 or split is Split.IN_TURN:
        due = draw_due_ns(name, rate_rps, counts, seed)
        return Schedule(kind=name, due_ns=due, warmup=counts[0], rate_rps=rate_rps).deal(rank, clients)
    share = (math.ceil(counts[0] / clients), math.ceil(counts[1] / clients))
    rate = rate_rps / clients
    due = draw_due_ns(name, rate, share, (*seed, rank))
    if split is Split.STAGGERED:
        due -= round(1e9 / rate * rank / clients)
    return Schedule(kind=name, due_ns=due, warmup=share[0], rate_rps=rate)


def draw_due_ns(name: str, rate_rps: float, counts: tuple[int, ...], seed: tuple[int, ...]) -> Ints:
    """Draw arrival times in intervals that last exactly ``count / rate_rps`` seconds each.

    The gaps of each interval are scaled so that it holds its count in its time; for Poisson arrivals that is the
    process conditioned on its count. Unscaled, a window of 662 arrivals would offer a rate that is off by 4% (one
    standard deviation).

    Args:
        name: arrival process.
        rate_rps: offered rate, requests/s.
        counts: requests in each interval, as in (warm-up, measured).
        seed: entropy of the draw, then what is drawn; the same seed gives the same times, and any other independent
            ones, one that differs by a zero at its end included.

    Returns:
        Times after the start, shape (sum of counts,), ns, ascending.

    Raises:
        LoadError: the registry has no such process, or its gaps cannot be scaled.
    """
    rng = generator(*seed)
    gaps = [_scaled_gaps_s(name, rng, rate_rps, count) for count in counts if count]
    return np.asarray(np.cumsum(np.concatenate(gaps)) * 1e9, dtype=np.int64)


def _scaled_gaps_s(name: str, rng: np.random.Generator, rate_rps: float, count: int) -> NDArray[np.float64]:
    gaps = process(name).gaps(rng, count)
    total = float(gaps.sum())
    if gaps.shape != (count,) or not 0 < total < math.inf or gaps.min() < 0:
        raise LoadError(
            f"arrivals={name}: drew gaps of shape {gaps.shape} that add up to {total:g} for {count} arrivals; "
            "a process has to draw one gap >= 0 for each, not all of them 0"
        )
    scale = 1 / rate_rps if total == count else count / rate_rps / total  # equal gaps of 1 stay equal to the last bit
    return np.asarray(gaps * scale)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class UnitArrivals:
    """Hold arrivals at a rate of one per unit of time, for simulations at any rate.

    Attributes:
        times: arrival times, shape (n,), in units of the mean gap, ascending.
        client: rank of the client that each arrival is for, shape (n,); None deals them out at random.
    """

    times: NDArray[np.float64]
    client: Ints | None


def draw_unit_arrivals(name: str, count: int, seed: tuple[int, ...], clients: int = 1) -> UnitArrivals:
    """Draw ``count`` arrivals for the predictors, at a mean rate of one per unit of time.

    Args:
        name: arrival process.
        count: arrivals of all clients together.
        seed: entropy of the draw.
        clients: how many share the process; see ``Split``. Dealing out at random makes independent processes of a
            Poisson process, and of no other one.

    Raises:
        LoadError: the registry has no such process.
    """
    entry = process(name)
    times = np.asarray(np.cumsum(entry.gaps(generator(*seed), count)), dtype=np.float64)
    at_random = clients == 1 or entry.split is Split.INDEPENDENT
    return UnitArrivals(times=times, client=None if at_random else np.arange(count, dtype=np.int64) % clients)
