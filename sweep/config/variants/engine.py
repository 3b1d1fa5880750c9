"""Axes of the engine, from ``batch``, ``profile`` and ``backend``."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.config.variants import axis_values
from sweep.errors import ConfigError
from sweep.spec import EngineAxes, Plugin, Profile

if TYPE_CHECKING:
    from sweep.config.schema import Config


def engine_axes(config: Config) -> EngineAxes:
    """Return what is built."""
    derived = {
        "profile": _profile(config),
        "plugins": tuple(_plugin(path) for path in config.backend.plugins) or None,
        "mps_build": _mps_build(config),
    }
    return EngineAxes(**axis_values.checked(config, "engine") | derived)


def _profile(config: Config) -> Profile | None:
    """The range of batch sizes; None where the engine is static at the batch."""
    if config.profile == "static":
        return None
    asked, batch = config.range, config.batch
    most = batch if asked.most is None else asked.most
    profile = Profile(least=asked.least, best=batch if asked.best is None else asked.best, most=most)
    if not 1 <= profile.least <= profile.best <= most:
        raise ConfigError(f"range={profile}: range.least, range.best and range.most must ascend from 1 or more")
    if not profile.least <= batch <= most:
        raise ConfigError(f"batch={batch} is outside range={profile}; widen range.least and range.most")
    return profile


def _mps_build(config: Config) -> int | None:
    """The share to build under; None for the whole GPU."""
    if config.mps_build and config.mps is None:
        raise ConfigError("mps_build=true builds under the share of mps, and none is set: give mps=50, say")
    return config.mps if config.mps_build else None


@cache
def _plugin(path: str) -> Plugin:
    """A plugin library with its digest, read once a sweep."""
    file = Path(path).expanduser().resolve()
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"backend.plugins: {file} cannot be read: {error.strerror}") from error
    return Plugin(path=str(file), digest=hashlib.sha256(content).hexdigest())
