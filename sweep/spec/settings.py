"""Define the settings of a sweep: everything that does not change a measured number."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sweep.spec.gates import Gates, Limits
from sweep.spec.outcome import Status

if TYPE_CHECKING:
    from pathlib import Path

    from sweep.spec.slo import Slo

# The cause of these may be gone at the next start.
RETRIED = frozenset({Status.FAILED, Status.OOM, Status.TIMEOUT, Status.CRASHED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracking:
    """Hold where a sweep publishes its records.

    Attributes:
        enabled: whether the sweep publishes at all; `publish` can send the records later.
        uri: of the MLflow store; None takes MLFLOW_TRACKING_URI, else sqlite in the results folder.
        experiment: name of the MLflow experiment.
    """

    enabled: bool = True
    uri: str | None = None
    experiment: str = "sweep"


SEARCH_OBJECTIVES = ("peak", "capacity", "latency", "energy", "memory", "cost")
"""Names of what a search of the grid may look for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GridSearch:
    """Hold how the best variant of the grid is searched.

    Attributes:
        method: halving or bayes.
        objectives: names of what is best, of `SEARCH_OBJECTIVES`; several search a front.
        budget_s: time of all probes and measurements, s; None for no limit.
        p99_ms: largest p99 of the closed loop with which a variant may win, ms; None for any.
    """

    method: str
    objectives: tuple[str, ...]
    budget_s: float | None = None
    p99_ms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Hold the settings of a sweep, which do not change a measured number.

    Attributes:
        name: of the sweep and its folder.
        results: folder of all sweeps.
        force: measure variants again that have a record.
        slo: the latency objective; None without one.
        search_s: seconds of load for the search of one variant's capacity at the SLO; None searches none.
        seed: random seed of the order of the passes.
        timeout_s: longest time of a worker in one stage, s.
        build_timeout_s, load_timeout_s, point_timeout_s: the same for building, loading and each point of a load, s;
            None for ``timeout_s``.
        gpus: the GPUs to measure on, as `sweep.system.devices.find_devices` takes them; None for the first.
        wait_s: longest wait for a device that another process uses, s; None for no limit.
        retry: statuses that are measured again at the next start.
        prune: leave out larger batches, more streams and more clients of a variant that ran out of memory.
        cache_limit_bytes: limit of the cache, bytes; None for no limit.
        gates: limits of accuracy; a variant that breaks one is invalid.
        limits: limits of what a variant may take; one that takes more is invalid.
        telemetry_hz: readings of the GPU's state per second; 0 for none.
        sentinel_every: passes between two runs of the sentinel; 0 for no sentinel.
        layers: profile the layers of each engine once its variant is measured.
        search: how the best variant is searched; None measures every one.
        probe: the records are probes: the outputs are not compared.
        mps_pipe_directory: of the user's own MPS daemon; None starts one if a variant has an MPS share.
    """

    name: str
    results: Path
    force: bool = False
    slo: Slo | None = None
    search_s: float | None = None
    seed: int = 0
    timeout_s: float = 600.0
    cache_limit_bytes: int | None = None
    gates: Gates = field(default_factory=Gates)
    limits: Limits = field(default_factory=Limits)
    telemetry_hz: float = 10.0
    sentinel_every: int = 0
    mps_pipe_directory: str | None = None
    build_timeout_s: float | None = None
    load_timeout_s: float | None = None
    point_timeout_s: float | None = None
    gpus: tuple[str, ...] | None = None
    wait_s: float | None = None
    retry: frozenset[Status] = RETRIED
    prune: bool = True
    layers: bool = False
    search: GridSearch | None = None
    probe: bool = False

    @property
    def limits_s(self) -> dict[str, float | None]:
        """Return the limits of single stages, s, as a request to a worker has them; None stands for `timeout_s`."""
        return {"build": self.build_timeout_s, "load": self.load_timeout_s, "point": self.point_timeout_s}

    @property
    def root(self) -> Path:
        """Return the sweep's own folder below `results`."""
        return self.results / self.name

    @property
    def cache(self) -> Path:
        """Return the folder of models, typed ONNX and engines, shared by all sweeps."""
        return self.results / "cache"
