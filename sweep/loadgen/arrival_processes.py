"""List the arrival processes: ``PROCESSES`` is the registry, and a new process is one entry.

The configuration's checks and help, the schedules, the rate ladder and the search of an SLO's capacity all consult it
(docs/architecture.md, "Add a load"). Predictions simulate the gaps of the process itself; none falls back on the
formulas of another one. Help and completion read the names, so that this module imports no NumPy before it draws.

Arrivals that a file lists are no process, since their rate is given: see ``arrival_trace``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from sweep.errors import LoadError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    Gaps = Callable[[np.random.Generator, int], NDArray[np.float64]]


class Split(StrEnum):
    """Tell how several clients share the arrivals of one process.

    Attributes:
        IN_TURN: clients take the arrivals of one schedule in turn; right for every process.
        INDEPENDENT: each client draws a process of its own at its part of the rate; right where the sum of
            independent processes is such a process again.
        STAGGERED: each client has the same gaps, and starts one gap / clients before the next one.
    """

    IN_TURN = "in_turn"
    INDEPENDENT = "independent"
    STAGGERED = "staggered"


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrivalProcess:
    """Describe one arrival process.

    Attributes:
        gaps: draws n >= 1 gaps between arrivals from a generator, shape (n,), in units of the mean gap: each >= 0, not
            all of them 0, with a mean that tends to 1. Gaps may depend on each other. The same generator state has to
            give the same gaps.
        help: what it is, in a few words, for the help of ``load.kind`` and ``load.arrivals``.
        split: how several clients share it.
    """

    gaps: Gaps
    help: str
    split: Split = Split.IN_TURN


def _equal_gaps(_rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    import numpy as np

    return np.ones(count)


PROCESSES: dict[str, ArrivalProcess] = {
    "poisson": ArrivalProcess(
        gaps=lambda rng, count: rng.exponential(1.0, count),
        help="independent exponential gaps",
        split=Split.INDEPENDENT,
    ),
    "constant": ArrivalProcess(gaps=_equal_gaps, help="equal gaps", split=Split.STAGGERED),
}


def process(name: str) -> ArrivalProcess:
    """Return the arrival process called ``name``.

    Raises:
        LoadError: the registry has no such process.
    """
    if name not in PROCESSES:
        raise LoadError(f"arrivals={name}: no such kind; there are: {', '.join(PROCESSES)}")
    return PROCESSES[name]


def describe_processes() -> str:
    """Return the names of all processes, each with its help, as text for the help of a key."""
    return ", ".join(f"{name} ({entry.help})" for name, entry in PROCESSES.items())
