"""Make the settings of a sweep: where and how it runs, without effect on a measured number."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.config.sweep_name import check_name
from sweep.config.variants import checks
from sweep.errors import ConfigError
from sweep.spec import PERCENTILES, RETRIED, SEARCH_OBJECTIVES, Gates, GridSearch, Limits, Settings, Slo, Status
from sweep.storage.cache import DEFAULT_GIB, GIB

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.config.schema import AccuracyConfig, Config, SearchConfig, SloConfig

_MOST_GIB = 1 << 30  # an exbibyte
_SLUG_LENGTH = 60
_SCORES = (("min_score", 0, 1), ("max_score_drop", 0, 1))
_METHODS = ("grid", "halving", "bayes")
_MAX_TELEMETRY_HZ = 100  # NVML itself renews its readings no faster


def settings(config: Config, overrides: Sequence[str]) -> Settings:
    """Return the settings of a sweep.

    Args:
        config: any config of the sweep; settings are the same in all.
        overrides: of the sweep, from which its folder is named if `config.name` is None.

    Raises:
        ConfigError: a value is out of its range, or two contradict each other; one line.
    """
    checks.above_zero(**{"slo.search_s": config.slo.search_s})
    _check_limits(config)
    objective = slo(config.slo)
    if objective and config.slo.search and objective.limit_ms > config.load.max_wait_s * 1000:
        raise ConfigError(
            f"slo.{objective.percentile}_ms={objective.limit_ms:g} is above load.max_wait_s="
            f"{config.load.max_wait_s:g} s, past which a point is overloaded: raise load.max_wait_s"
        )
    if not 0 <= config.telemetry_hz <= _MAX_TELEMETRY_HZ:
        raise ConfigError(f"telemetry_hz={config.telemetry_hz:g}: must be from 0 (none) to {_MAX_TELEMETRY_HZ}")
    checks.at_least(0, sentinel_every=config.sentinel_every)
    name = config.name if config.name is not None else slug(overrides)
    check_name(name)
    return Settings(
        name=name,
        results=Path(config.results).resolve(),
        force=config.force,
        slo=objective,
        search_s=config.slo.search_s if objective and config.slo.search else None,
        seed=config.seed,
        timeout_s=config.timeout_s,
        cache_limit_bytes=_cache_limit_bytes(config.cache_gib),
        gates=gates(config.accuracy),
        limits=Limits(memory_mib=config.limits.memory_mib),
        telemetry_hz=config.telemetry_hz,
        sentinel_every=config.sentinel_every,
        mps_pipe_directory=_mps_pipe_directory(config.mps_pipe_directory),
        build_timeout_s=config.timeout.build_s,
        load_timeout_s=config.timeout.load_s,
        point_timeout_s=config.timeout.point_s,
        gpus=_gpus(config.gpus),
        wait_s=config.gpu.wait_s,
        retry=_retry(config.retry),
        prune=config.prune,
        layers=config.layers,
        search=grid_search(config.search, config),
    )


def grid_search(search: SearchConfig, config: Config) -> GridSearch | None:
    """Return how the best variant is searched, or None where every one is measured.

    Raises:
        ConfigError: a value is out of its range, or two contradict each other; one line.
    """
    if search.method not in _METHODS:
        raise ConfigError(f"search.method={search.method}: give {', '.join(_METHODS)}")
    given = {"budget_s": search.budget_s, "objective": search.objective, "p99_ms": search.p99_ms}
    if search.method == "grid":
        for name, value in given.items():
            if value is not None:
                raise ConfigError(f"search.{name}={value}: search=grid measures every variant; add search=halving")
        return None
    for name in ("budget_s", "p99_ms"):
        if given[name] is not None:
            checks.above_zero(**{f"search.{name}": given[name]})
    objectives = (
        _entries(search.objective)
        if search.objective is not None
        else (("capacity",) if slo(config.slo) is not None else ("peak",))
    )
    unknown = [name for name in objectives if name not in SEARCH_OBJECTIVES]
    if unknown or not objectives or len(set(objectives)) < len(objectives):
        raise ConfigError(f"search.objective={','.join(objectives)}: give {', '.join(SEARCH_OBJECTIVES)}, each once")
    if "capacity" in objectives and (slo(config.slo) is None or config.load.kind != "curve"):
        raise ConfigError(
            "search.objective=capacity: a capacity needs a limit and a curve, as in slo.p99_ms=10 load=curve; "
            "search.objective=peak needs neither"
        )
    return GridSearch(method=search.method, objectives=objectives, budget_s=search.budget_s, p99_ms=search.p99_ms)


def _entries(value: Any) -> tuple[str, ...]:
    """Return the entries of a key that takes one value or a list."""
    return tuple(str(item) for item in (value if isinstance(value, list) else [value]))


def conditions(key: str, value: Any) -> tuple[str, ...]:
    """Return the conditions of `only` or `skip`, as `sweep.runner.filters` takes them; () for null.

    Args:
        key: only or skip, for the message.
        value: one condition or a list.

    Raises:
        ConfigError: a condition, or the list, is empty.
    """
    entries = () if value is None else _entries(value)
    if not all(entries) or (value is not None and not entries):
        raise ConfigError(f"{key}={value}: give words of a label or axis:value, as in {key}=[batch:8,fp16]")
    return entries


def _gpus(value: Any) -> tuple[str, ...] | None:
    gpus = None if value is None else _entries(value)
    if gpus == () or (gpus and len(gpus) > 1 and "all" in gpus):
        raise ConfigError(f"gpus={value}: give all, or a list of indices or UUIDs, as in gpus=[0,1]")
    return gpus


def _retry(value: Any) -> frozenset[Status]:
    presets = {"none": frozenset[Status](), "failed": RETRIED, "all": RETRIED | {Status.INVALID}}
    if not isinstance(value, list) and str(value).lower() in presets:
        return presets[str(value).lower()]
    statuses = frozenset(_entries(value))
    if not statuses <= presets["all"]:
        raise ConfigError(
            f"retry={','.join(sorted(statuses))}: give {', '.join(presets)}, "
            f"or a list of {', '.join(sorted(presets['all']))}"
        )
    return frozenset(map(Status, statuses))


def _check_limits(config: Config) -> None:
    limits = {f"timeout.{name}": getattr(config.timeout, name) for name in ("build_s", "load_s", "point_s")}
    checks.above_zero(
        timeout_s=config.timeout_s, **{name: value for name, value in limits.items() if value is not None}
    )
    if config.limits.memory_mib is not None:
        checks.above_zero(**{"limits.memory_mib": config.limits.memory_mib})
    if config.gpu.wait_s is not None:
        checks.at_least(0, **{"gpu.wait_s": config.gpu.wait_s})


def gates(config: AccuracyConfig) -> Gates:
    """Return the accuracy gates.

    Raises:
        ConfigError: one is out of its range; one line.
    """
    if config.min_sqnr_db is not None and not math.isfinite(config.min_sqnr_db):
        raise ConfigError(
            f"accuracy.min_sqnr_db={config.min_sqnr_db}: must be a number of dB; -100 lets every engine through"
        )
    for key, low, high in (("min_top1", 0, 1), ("max_error", 0, math.inf), ("min_cosine", -1, 1), *_SCORES):
        value = getattr(config, key)
        if value is not None and not (low <= value <= high and math.isfinite(value)):
            raise ConfigError(f"accuracy.{key}={value}: must be from {low} to {high:g}")
    return Gates(**dataclasses.asdict(config))


def _mps_pipe_directory(path: str | None) -> str | None:
    if path is None:
        return None
    folder = Path(path).expanduser().resolve()
    if not folder.is_dir():
        raise ConfigError(f"mps_pipe_directory={path}: no such folder; it is CUDA_MPS_PIPE_DIRECTORY of your daemon")
    return str(folder)


def _cache_limit_bytes(gib: float | None) -> int:
    checks.above_zero(**{} if gib is None else {"cache_gib": gib})
    if gib is not None and gib > _MOST_GIB:
        raise ConfigError(f"cache_gib={gib:g}: must be at most {_MOST_GIB}; null is {DEFAULT_GIB}")
    return int((DEFAULT_GIB if gib is None else gib) * GIB)


def slug(overrides: Sequence[str]) -> str:
    """Return the folder name of a request: a readable part and 6 hex digits, the same for any order of `overrides`."""
    ordered = sorted(overrides)
    tail = hashlib.sha256("\n".join(ordered).encode()).hexdigest()[:6]
    readable = "_".join(re.sub(r"[^A-Za-z0-9.]+", "-", text.lstrip("+")).strip("-") for text in ordered)
    return f"{readable[:_SLUG_LENGTH].strip('-_.') or 'defaults'}-{tail}"


def slo(config: SloConfig) -> Slo | None:
    """Return the latency objective, or None if no limit is set.

    Raises:
        ConfigError: several limits are set, or one is not above 0.
    """
    limits = {name: getattr(config, f"{name}_ms") for name in PERCENTILES}
    objectives = {name: limit for name, limit in limits.items() if limit is not None}
    if len(objectives) > 1:
        raise ConfigError(f"slo: {' and '.join(f'{name}_ms' for name in objectives)} are set; set one")
    for name, limit in objectives.items():
        checks.above_zero(**{f"slo.{name}_ms": limit})
        return Slo(name, limit)
    return None
