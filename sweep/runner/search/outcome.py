"""State what a search found: its answer, its confidence, and what became of every variant."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class State(StrEnum):
    """Name what became of a candidate.

    Attributes:
        MEASURED: it has a record of the sweep.
        PROBED: it has a probe alone, and may yet be the best.
        DROPPED: it has a probe alone, and cannot be the best by what is known.
        UNTRIED: nothing of it ran.
    """

    MEASURED = "measured"
    PROBED = "probed"
    DROPPED = "dropped"
    UNTRIED = "not tried"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Hold the answer of a search.

    Attributes:
        best: key of the best measured variant; None if none can win.
        front: keys of the measured variants that no other beats in all objectives; the best alone for one objective.
        confidence: chance that no variant of the grid is more than 2% better than the best; None for several
            objectives, or without a best.
        states: what became of each candidate.
        reasons: why a candidate was dropped or cannot win.
        spent_s: time of all probes and measurements, s.
        ended: why the search ended.
    """

    best: str | None
    front: tuple[str, ...]
    confidence: float | None
    states: Mapping[str, State]
    reasons: Mapping[str, str]
    spent_s: float
    ended: str

    def count(self, state: State) -> int:
        """Return how many candidates are in a state."""
        return sum(value is state for value in self.states.values())
