"""The folder of one sweep: its settings, and the lock that keeps a second sweep out."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweep.errors import ConfigError
from sweep.record import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What does not change a measured number.

    Attributes:
        name: of the sweep.
        results: root of all results.
        force: measure again what is there already.
        slo: {percentile name: limit in ms}, at most one entry.
        search_s: seconds of load for the search of one variant's capacity at the SLO; None searches none.
        seed: of the order of the passes.
        timeout_s: longest silence of a worker.
        cache_limit_bytes: what the cache may hold; None lets it grow.
        min_sqnr_db: outputs further than this from the reference make a variant invalid; None for the defaults.
        telemetry_hz: readings of the GPU's state a second; 0 takes none.
        sentinel_every: passes between two runs of the sentinel; 0 for no sentinel.
    """

    name: str
    results: Path
    force: bool = False
    slo: tuple[str, float] | None = None
    search_s: float | None = None
    seed: int = 0
    timeout_s: float = 600.0
    cache_limit_bytes: int | None = None
    min_sqnr_db: float | None = None
    telemetry_hz: float = 10.0
    sentinel_every: int = 0

    @property
    def store(self) -> Store:
        """The sweep's folder."""
        return Store(self.results / self.name)

    @property
    def cache(self) -> Path:
        """Models, typed ONNX and engines, shared by all sweeps."""
        return self.results / "cache"


@contextmanager
def folder_lock(settings: Settings) -> Iterator[None]:
    """Hold the sweep's folder; two sweeps at once would measure each other.

    Raises:
        ConfigError: another process holds it.
    """
    root = settings.store.root
    try:
        root.mkdir(parents=True, exist_ok=True)
        handle = os.open(root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"results={settings.results}: cannot be written ({error.strerror})") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(handle, 100).decode() or "another process"
            raise ConfigError(f"{root} is in use by {holder}: wait for it, or give this sweep a name=") from error
        os.ftruncate(handle, 0)
        os.write(handle, f"process {os.getpid()} on {os.uname().nodename}".encode())
        settings.store.clear_scraps()
        yield
    finally:
        os.close(handle)
