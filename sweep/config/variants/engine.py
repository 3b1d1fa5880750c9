"""Make the engine axes from `batch`, `profile`, `range`, `mps_build` and `backend`."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.config.variants import axis_values, built_plan
from sweep.errors import ConfigError
from sweep.spec import EngineAxes, Plugin, Profile
from sweep.system import regular_files

if TYPE_CHECKING:
    from sweep.config.schema import Config


def engine_axes(config: Config) -> EngineAxes:
    """Return the engine axes.

    Raises:
        ConfigError: a value is out of its range, or a plugin cannot be read; one line.
    """
    derived = {
        "profile": _profile(config),
        "profiles": None,  # over the shapes of the load, whose names depend on the network: see ``shape_profiles``
        "plugins": tuple(_plugin(path) for path in config.backend.plugins) or None,
        "mps_build": _mps_build(config),
        "plan": built_plan.read(config.model.engine),
    }
    return EngineAxes(**axis_values.checked(config, "engine") | derived)


def _profile(config: Config) -> Profile | None:
    """Return the range of batch sizes, or None for an engine that takes `batch` alone."""
    if config.profile == "static":
        return None
    limits, batch = config.range, config.batch
    profile = Profile(
        least=limits.least,
        best=batch if limits.best is None else limits.best,
        most=batch if limits.most is None else limits.most,
    )
    if not 1 <= profile.least <= profile.best <= profile.most:
        raise ConfigError(f"range={profile}: range.least, range.best and range.most must ascend from 1 or more")
    if not profile.least <= batch <= profile.most:
        raise ConfigError(f"batch={batch} is outside range={profile}; widen range.least and range.most")
    return profile


def _mps_build(config: Config) -> int | None:
    """Return the MPS share to build under, percent, or None for the whole GPU."""
    if config.mps_build and config.mps is None:
        raise ConfigError("mps_build=true builds under the share of mps, and none is set: give mps=50, say")
    return config.mps if config.mps_build else None


def _plugin(path: str) -> Plugin:
    """Return the plugin library at `path`, with its digest."""
    return _read_plugin(Path(path).expanduser().resolve())


@cache
def _read_plugin(file: Path) -> Plugin:
    """Return a plugin library with its digest; each file is read once per process, wherever the process stands."""
    try:
        content = regular_files.read_bytes(file, follow=True)
    except OSError as error:
        raise ConfigError(f"backend.plugins: {file} cannot be read: {error.strerror}") from error
    return Plugin(path=str(file), digest=hashlib.sha256(content).hexdigest())
