"""Predict what a probe, a measurement and the engine that it may need will take, from what they took so far."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sweep.runner.search.observation import Observation

BUILD_S, PROBE_S = 4.0, 0.6  # until one was seen


class Costs:
    """Predict costs; an engine that is in the cache costs nothing.

    Args:
        full_s: expected time of a measurement, s, until one was seen.
    """

    def __init__(self, full_s: float) -> None:
        self._full_s = full_s
        self._builds: list[float] = []
        self._probes: list[float] = []
        self._fulls: list[float] = []

    def add(self, observation: Observation) -> None:
        """Take in what an observation took."""
        if observation.build_s > 0:
            self._builds.append(observation.build_s)
        rest = max(observation.cost_s - observation.build_s, 0.0)
        (self._fulls if observation.full else self._probes).append(rest)

    @property
    def build_s(self) -> float:
        """Return the time of an engine, s."""
        return median(self._builds) if self._builds else BUILD_S

    @property
    def probe_s(self) -> float:
        """Return the time of a probe, s."""
        return median(self._probes) if self._probes else min(PROBE_S, self._full_s)

    @property
    def full_s(self) -> float:
        """Return the time of a measurement, s."""
        return median(self._fulls) if self._fulls else self._full_s
