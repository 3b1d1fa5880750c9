"""Where and how a sweep runs: what changes no figure."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.config.variants import checks
from sweep.errors import ConfigError
from sweep.spec import PERCENTILES, RETRIED, Gates, Settings, Slo, Status
from sweep.storage.cache import DEFAULT_GIB, GIB

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.config.schema import AccuracyConfig, Config, SloConfig

_RESERVED = ("cache", "reference", "mlartifacts")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._,=+-]{0,99}")
_SLUG_LENGTH = 60
_SCORES = (("min_score", 0, 1), ("max_score_drop", 0, 1))
_MOST_HZ = 100  # telemetry; NVML itself renews its figures no faster


def settings(config: Config, asked_words: Sequence[str]) -> Settings:
    """Where and how the sweep runs; its name is made from ``asked_words`` when none is given."""
    checks.above_zero(**{"slo.search_s": config.slo.search_s})
    _check_limits(config)
    objective = slo(config.slo)
    if objective and config.slo.search and objective.limit_ms > config.load.max_wait_s * 1000:
        raise ConfigError(
            f"slo.{objective.percentile}_ms={objective.limit_ms:g} is above load.max_wait_s="
            f"{config.load.max_wait_s:g} s, past which a point is overloaded: raise load.max_wait_s"
        )
    if not 0 <= config.telemetry_hz <= _MOST_HZ:
        raise ConfigError(f"telemetry_hz={config.telemetry_hz:g}: must be from 0 (none) to {_MOST_HZ}")
    checks.at_least(0, sentinel_every=config.sentinel_every)
    name = config.name if config.name is not None else slug(asked_words)
    if not _NAME.fullmatch(name) or name in _RESERVED:
        raise ConfigError(f"name={name}: letters, digits and . _ , = + - only, and none of {', '.join(_RESERVED)}")
    return Settings(
        name=name,
        results=Path(config.results).resolve(),
        force=config.force,
        slo=objective,
        search_s=config.slo.search_s if objective and config.slo.search else None,
        seed=config.seed,
        timeout_s=config.timeout_s,
        cache_limit_bytes=_cache_limit_bytes(config.cache_gib),
        gates=_gates(config.accuracy),
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
    )


def words(value: Any) -> tuple[str, ...]:
    """The entries of a key that takes one or a list."""
    return tuple(str(item) for item in (value if isinstance(value, list) else [value]))


def conditions(key: str, value: Any) -> tuple[str, ...]:
    """The conditions of ``only`` and ``skip``, for ``chosen``; empty where none was given."""
    found = () if value is None else words(value)
    if any(not word for word in found) or (value is not None and not found):
        raise ConfigError(f"{key}={value}: give words of a label or axis:value, as in {key}=[batch:8,fp16]")
    return found


def _gpus(value: Any) -> tuple[str, ...] | None:
    asked = None if value is None else words(value)
    if asked == () or (asked and len(asked) > 1 and "all" in asked):
        raise ConfigError(f"gpus={value}: give all, or a list of indices or UUIDs, as in gpus=[0,1]")
    return asked


def _retry(value: Any) -> frozenset[Status]:
    known = {"none": frozenset[Status](), "failed": RETRIED, "all": RETRIED | {Status.INVALID}}
    if not isinstance(value, list) and str(value).lower() in known:
        return known[str(value).lower()]
    asked = frozenset(words(value))
    if not asked <= known["all"]:
        raise ConfigError(
            f"retry={','.join(sorted(asked))}: give {', '.join(known)}, or a list of {', '.join(sorted(known['all']))}"
        )
    return frozenset(map(Status, asked))


def _check_limits(config: Config) -> None:
    limits = {f"timeout.{name}": getattr(config.timeout, name) for name in ("build_s", "load_s", "point_s")}
    checks.above_zero(
        timeout_s=config.timeout_s, **{name: value for name, value in limits.items() if value is not None}
    )
    if config.gpu.wait_s is not None:
        checks.at_least(0, **{"gpu.wait_s": config.gpu.wait_s})


def _gates(config: AccuracyConfig) -> Gates:
    if config.min_sqnr_db is not None and not math.isfinite(config.min_sqnr_db):
        raise ConfigError(
            f"accuracy.min_sqnr_db={config.min_sqnr_db}: must be a number of dB; -100 lets every engine through"
        )
    for key, low, high in (("min_top1", 0, 1), ("max_error", 0, math.inf), ("min_cosine", -1, 1), *_SCORES):
        value = getattr(config, key)
        if value is not None and not (low <= value <= high and math.isfinite(value)):
            raise ConfigError(f"accuracy.{key}={value}: must be from {low} to {high:g}")
    return Gates(**dataclasses.asdict(config))


def _mps_pipe_directory(asked: str | None) -> str | None:
    if asked is None:
        return None
    folder = Path(asked).expanduser().resolve()
    if not folder.is_dir():
        raise ConfigError(f"mps_pipe_directory={asked}: no such folder; it is CUDA_MPS_PIPE_DIRECTORY of your daemon")
    return str(folder)


def _cache_limit_bytes(gib: float | None) -> int:
    checks.above_zero(**{} if gib is None else {"cache_gib": gib})
    return int((DEFAULT_GIB if gib is None else gib) * GIB)


def slug(words: Sequence[str]) -> str:
    """A folder name that the same request always gets: readable, then 6 digits that tell it from others."""
    words = sorted(words)
    tail = hashlib.sha256("\n".join(words).encode()).hexdigest()[:6]
    readable = "_".join(re.sub(r"[^A-Za-z0-9.]+", "-", word.lstrip("+")).strip("-") for word in words)
    return f"{readable[:_SLUG_LENGTH].strip('-_.') or 'defaults'}-{tail}"


def slo(config: SloConfig) -> Slo | None:
    """Return the latency objective; None when none is set."""
    limits = {name: getattr(config, f"{name}_ms") for name in PERCENTILES}
    given = {name: limit for name, limit in limits.items() if limit is not None}
    if len(given) > 1:
        raise ConfigError(f"slo: {' and '.join(f'{name}_ms' for name in given)} are set; set one")
    for name, limit in given.items():
        checks.above_zero(**{f"slo.{name}_ms": limit})
        return Slo(name, limit)
    return None
