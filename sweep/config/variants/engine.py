"""Axes of the engine, from ``batch``, ``profile`` and ``backend``."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.config.variants import checks
from sweep.errors import ConfigError
from sweep.spec import EngineAxes, Plugin, Profile

if TYPE_CHECKING:
    from sweep.config.schema import Config

_MOST_OPTIMIZED = 5
_TILINGS = ("none", "fast", "moderate", "full")
_SPARSITIES = ("enable", "force")
_VERBOSITIES = ("detailed", "layer_names_only", "none")
_COMPATIBILITIES = ("none", "ampere_plus", "same_compute_capability")
_PROFILES = ("static", "range")


def engine_axes(config: Config) -> EngineAxes:
    """What is built."""
    knobs = config.backend
    level, aux, workspace = knobs.builder_optimization_level, knobs.max_aux_streams, knobs.workspace_mib
    if level is not None and not 0 <= level <= _MOST_OPTIMIZED:
        raise ConfigError(f"backend.builder_optimization_level={level}: 0 to {_MOST_OPTIMIZED}")
    checks.at_least(0, **{} if aux is None else {"backend.max_aux_streams": aux})
    checks.at_least(1, **{} if workspace is None else {"backend.workspace_mib": workspace})
    return EngineAxes(
        batch=config.batch,
        profile=_profile(config),
        builder_optimization_level=level,
        max_aux_streams=aux,
        tiling=checks.one_of("backend.tiling", knobs.tiling, _TILINGS),
        sparsity=checks.one_of("backend.sparsity", knobs.sparsity, _SPARSITIES),
        workspace_mib=workspace,
        timing_cache=knobs.timing_cache,
        profiling_verbosity=checks.one_of("backend.profiling_verbosity", knobs.profiling_verbosity, _VERBOSITIES),
        version_compatible=knobs.version_compatible,
        hardware_compatibility=checks.one_of(
            "backend.hardware_compatibility", knobs.hardware_compatibility, _COMPATIBILITIES
        ),
        refit=knobs.refit,
        weight_streaming=knobs.weight_streaming,
        plugins=tuple(_plugin(path) for path in knobs.plugins) or None,
        mps_build=_mps_build(config),
    )


def _profile(config: Config) -> Profile | None:
    """The range of batch sizes; None where the engine is static at the batch."""
    if checks.one_of("profile", config.profile, _PROFILES) == "static":
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
