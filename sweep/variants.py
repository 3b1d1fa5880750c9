"""Composed configs -> variants and settings, every value checked before anything runs."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep import models, stats
from sweep.axes import (
    EngineAxes,
    InputFix,
    LoadAxes,
    ModelRef,
    OnnxAxes,
    Plugin,
    Precision,
    Profile,
    Script,
    SessionAxes,
    Variant,
)
from sweep.backends import registry
from sweep.cache import DEFAULT_GIB, GIB
from sweep.config import InputConfig
from sweep.errors import ConfigError
from sweep.folder import Settings
from sweep.load import arrivals, curve, ladder, trace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.config import BackendConfig, Config, LoadConfig, ModelConfig, PrecisionConfig, SloConfig

_DTYPES = ("fp32", "tf32", "fp16", "bf16", "int8", "fp8")
_QUANTISED = ("int8", "fp8")
_RESTS = ("fp16", "bf16")
_MIXES = tuple(f"{dtype}_{rest}" for dtype in _QUANTISED for rest in _RESTS)
_RESERVED = ("cache", "reference", "mlartifacts")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._,=+-]{0,99}")
_SLUG_LENGTH = 60
_MOST_HZ = 100  # telemetry; NVML itself renews its figures no faster
_FULL = 100  # per cent
_MOST_OPTIMIZED = 5
_TILINGS = ("none", "fast", "moderate", "full")
_SPARSITIES = ("enable", "force")
_WAITS = ("block", "spin", "yield")
_VERBOSITIES = ("detailed", "layer_names_only", "none")
_COMPATIBILITIES = ("none", "ampere_plus", "same_compute_capability")
_PROFILES = ("static", "range")


def from_config(config: Config) -> Variant:
    """One variant.

    Raises:
        ConfigError: a value is out of its range; one line.
        ModelError: the model cannot be used as asked; one line.
    """
    _at_least(1, batch=config.batch, streams=config.streams, clients=config.clients, repeats=config.repeats)
    _at_least(0, seed=config.seed)
    if config.mps is not None and not 1 <= config.mps <= _FULL:
        raise ConfigError(f"mps={config.mps}: a percentage from 1 to 100, or null to run without MPS")
    backend, _ = registry.resolve(config.backend.name)
    model = _model(config.model)
    _check_batch(model, config.batch)
    if config.profile == "range" and all(spec.batch_axis is None for spec in models.signature(model).inputs):
        raise ConfigError(f"profile=range: model {model.name} has no batch axis, so its engine takes one shape")
    return Variant(
        backend=backend,
        onnx=OnnxAxes(
            model=model,
            precision=_precision(config.precision),
            prune="2:4" if config.backend.sparsity == "force" else None,
        ),
        engine=_engine(config),
        session=SessionAxes(
            streams=config.streams,
            clients=config.clients,
            mps=config.mps,
            cuda_graph=config.cuda_graph,
            transfers=config.transfers,
            wait=_one_of("backend.wait", config.backend.wait, _WAITS),
            weight_streaming_budget_mib=_weight_budget(config.backend),
            intra_op_threads=_threads(config.backend),
            script=_script(config.backend),
        ),
        load=_load(config),
    )


def settings(config: Config, words: Sequence[str]) -> Settings:
    """Where and how the sweep runs; its name is made from ``words`` when none is given."""
    _above_zero(timeout_s=config.timeout_s, **{"slo.search_s": config.slo.search_s})
    asked = slo(config.slo)
    if asked and config.slo.search and asked[1] > config.load.max_wait_s * 1000:
        raise ConfigError(
            f"slo.{asked[0]}_ms={asked[1]:g} is above load.max_wait_s={config.load.max_wait_s:g} s, past which a "
            f"point is overloaded: raise load.max_wait_s"
        )
    if not 0 <= config.telemetry_hz <= _MOST_HZ:
        raise ConfigError(f"telemetry_hz={config.telemetry_hz:g}: must be from 0 (none) to {_MOST_HZ}")
    _at_least(0, sentinel_every=config.sentinel_every)
    name = config.name if config.name is not None else slug(words)
    if not _NAME.fullmatch(name) or name in _RESERVED:
        raise ConfigError(f"name={name}: letters, digits and . _ , = + - only, and none of {', '.join(_RESERVED)}")
    return Settings(
        name=name,
        results=Path(config.results).resolve(),
        force=config.force,
        slo=asked,
        search_s=config.slo.search_s if asked and config.slo.search else None,
        seed=config.seed,
        timeout_s=config.timeout_s,
        cache_limit_bytes=_cache_limit_bytes(config.cache_gib),
        min_sqnr_db=_min_sqnr_db(config.accuracy.min_sqnr_db),
        telemetry_hz=config.telemetry_hz,
        sentinel_every=config.sentinel_every,
    )


def _min_sqnr_db(value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise ConfigError(f"accuracy.min_sqnr_db={value}: must be a number of dB; -100 lets every engine through")
    return value


def _cache_limit_bytes(gib: float | None) -> int:
    _above_zero(**{} if gib is None else {"cache_gib": gib})
    return int((DEFAULT_GIB if gib is None else gib) * GIB)


def slug(words: Sequence[str]) -> str:
    """A folder name that the same request always gets: readable, then 6 digits that tell it from others."""
    words = sorted(words)
    tail = hashlib.sha256("\n".join(words).encode()).hexdigest()[:6]
    readable = "_".join(re.sub(r"[^A-Za-z0-9.]+", "-", word.lstrip("+")).strip("-") for word in words)
    return f"{readable[:_SLUG_LENGTH].strip('-_.') or 'defaults'}-{tail}"


def slo(config: SloConfig) -> tuple[str, float] | None:
    """The percentile and its limit in ms; None when none is set."""
    limits = {name: getattr(config, f"{name}_ms") for name in stats.PERCENTILES}
    given = {name: limit for name, limit in limits.items() if limit is not None}
    if len(given) > 1:
        raise ConfigError(f"slo: {' and '.join(f'{name}_ms' for name in given)} are set; set one")
    for name, limit in given.items():
        _above_zero(**{f"slo.{name}_ms": limit})
        return name, limit
    return None


@cache
def _resolved(name: str, path: str | None, inputs: tuple[InputFix, ...], batch_dim: str | None) -> ModelRef:
    """The model with its revision or digest; read once a sweep, however many variants share it."""
    if path is None:
        return ModelRef(name=name, revision=models.zoo.entry(name).revision, inputs=inputs, batch_dim=batch_dim)
    file = Path(path).expanduser().resolve()
    ref = ModelRef(name=file.stem, path=str(file), inputs=inputs, batch_dim=batch_dim)
    models.signature(ref)
    return dataclasses.replace(ref, digest=models.file_digest(file))


@cache
def _check_batch(model: ModelRef, batch: int) -> None:
    models.check_batch(models.signature(model), batch, model.name)


def _model(config: ModelConfig) -> ModelRef:
    inputs = tuple(_input(name, given) for name, given in sorted(config.inputs.items()))
    if inputs and config.path is None:
        raise ConfigError(f"model.inputs: {config.name} is built here and its inputs are fixed; give model.path too")
    return _resolved(config.name, config.path, inputs, config.batch_dim)


def _input(name: str, given: object) -> InputFix:
    """``model.inputs.NAME``, which Hydra cannot check: its names are the model's."""
    known = {item.name for item in dataclasses.fields(InputConfig)}
    if not isinstance(given, dict) or not set(given) <= known:
        keys = ", ".join(sorted(set(given) - known)) if isinstance(given, dict) else given
        raise ConfigError(f"model.inputs.{name}: {keys} is not known; there are: {', '.join(sorted(known))}")
    shape, low, high = given.get("shape"), given.get("low"), given.get("high")
    for key, value in (("low", low), ("high", high)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ConfigError(f"model.inputs.{name}.{key}={value}: must be a number")
    if shape is not None and not isinstance(shape, list):
        raise ConfigError(f"model.inputs.{name}.shape={shape}: must be a list, as in [batch,512]")
    for size in shape or ():
        if size != "batch" and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
            raise ConfigError(f"model.inputs.{name}.shape: {size!r} is neither a size nor the word batch")
    return InputFix(
        name=name,
        shape=None if shape is None else tuple(shape),
        low=None if low is None else float(low),
        high=None if high is None else float(high),
    )


def _precision(config: PrecisionConfig) -> Precision:
    if config.dtype not in _DTYPES:
        raise ConfigError(f"precision.dtype={config.dtype}: no such type; there are: {', '.join(_DTYPES)}")
    guard = config.guard and "fp16" in {config.dtype, config.rest}
    if config.dtype in _QUANTISED or guard:
        _at_least(1, **{"precision.calibration_batches": config.calibration_batches or 0})
    if config.dtype not in _QUANTISED and config.rest is not None:
        raise ConfigError(f"precision.rest={config.rest}: dtype {config.dtype} leaves no rest; int8 and fp8 do")
    types = "_".join(filter(None, (config.dtype, _one_of("precision.rest", config.rest, _RESTS))))
    if config.name in (*_DTYPES, *_MIXES) and config.name != types:
        raise ConfigError(f"precision.name={config.name} on dtype {types} is a wrong label; use another name")
    return Precision(
        name=config.name,
        dtype=config.dtype,
        keep_io=config.keep_io,
        rest=config.rest,
        wide=(config.wide and config.rest is not None) or None,
        guard=guard or None,
        quantize_ops=tuple(config.quantize_ops),
        per_channel=config.per_channel,
        calibration_batches=config.calibration_batches if config.dtype in _QUANTISED or guard else None,
    )


def _engine(config: Config) -> EngineAxes:
    knobs = config.backend
    level, aux, workspace = knobs.builder_optimization_level, knobs.max_aux_streams, knobs.workspace_mib
    if level is not None and not 0 <= level <= _MOST_OPTIMIZED:
        raise ConfigError(f"backend.builder_optimization_level={level}: 0 to {_MOST_OPTIMIZED}")
    _at_least(0, **{} if aux is None else {"backend.max_aux_streams": aux})
    _at_least(1, **{} if workspace is None else {"backend.workspace_mib": workspace})
    return EngineAxes(
        batch=config.batch,
        profile=_profile(config),
        builder_optimization_level=level,
        max_aux_streams=aux,
        tiling=_one_of("backend.tiling", knobs.tiling, _TILINGS),
        sparsity=_one_of("backend.sparsity", knobs.sparsity, _SPARSITIES),
        workspace_mib=workspace,
        timing_cache=knobs.timing_cache,
        profiling_verbosity=_one_of("backend.profiling_verbosity", knobs.profiling_verbosity, _VERBOSITIES),
        version_compatible=knobs.version_compatible,
        hardware_compatibility=_one_of(
            "backend.hardware_compatibility", knobs.hardware_compatibility, _COMPATIBILITIES
        ),
        refit=knobs.refit,
        weight_streaming=knobs.weight_streaming,
        plugins=tuple(_plugin(path) for path in knobs.plugins) or None,
    )


def _profile(config: Config) -> Profile | None:
    """The range of batch sizes; None where the engine is static at the batch."""
    if _one_of("profile", config.profile, _PROFILES) == "static":
        return None
    asked, batch = config.range, config.batch
    most = batch if asked.most is None else asked.most
    profile = Profile(least=asked.least, best=batch if asked.best is None else asked.best, most=most)
    if not 1 <= profile.least <= profile.best <= most:
        raise ConfigError(f"range={profile}: range.least, range.best and range.most must ascend from 1 or more")
    if not profile.least <= batch <= most:
        raise ConfigError(f"batch={batch} is outside range={profile}; widen range.least and range.most")
    return profile


def _weight_budget(config: BackendConfig) -> int | None:
    budget = config.weight_streaming_budget_mib
    if budget is None:
        return None
    _at_least(0, **{"backend.weight_streaming_budget_mib": budget})
    if not config.weight_streaming:
        raise ConfigError(f"backend.weight_streaming_budget_mib={budget} needs backend.weight_streaming=true")
    return budget


@cache
def _plugin(path: str) -> Plugin:
    """A plugin library with its digest, read once a sweep."""
    file = Path(path).expanduser().resolve()
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"backend.plugins: {file} cannot be read: {error.strerror}") from error
    return Plugin(path=str(file), digest=hashlib.sha256(content).hexdigest())


def _one_of(key: str, value: str | None, known: Sequence[str]) -> str | None:
    if value is not None and value not in known:
        raise ConfigError(f"{key}={value}: no such choice; there are: {', '.join(known)}")
    return value


def _threads(config: BackendConfig) -> int | None:
    if config.intra_op_threads is not None:
        _at_least(1, **{"backend.intra_op_threads": config.intra_op_threads})
    return config.intra_op_threads


def _script(config: BackendConfig) -> Script | None:
    if config.script is None:
        return None
    script = config.script
    _above_zero(**{"backend.script.service_us": script.service_us})
    _at_least(0, **{"backend.script.sample_us": script.sample_us})
    if script.distribution not in {"constant", "exponential"}:
        raise ConfigError(f"backend.script.distribution={script.distribution}: constant or exponential")
    if script.raise_at not in {None, "build", "load", "measure"}:
        raise ConfigError(f"backend.script.raise_at={script.raise_at}: build, load or measure")
    for name in ("sleep_after_us", "wake_us"):
        _at_least(0, **{} if getattr(script, name) is None else {f"backend.script.{name}": getattr(script, name)})
    return Script(
        service_us=script.service_us,
        sample_us=script.sample_us,
        distribution=script.distribution,
        raise_at=script.raise_at,
        sleep_after_us=script.sleep_after_us,
        wake_us=script.wake_us,
        machine=script.machine,
    )


def _load(asked: Config) -> LoadAxes:
    config = asked.load
    if config.kind not in curve.KINDS:
        raise ConfigError(f"load.kind={config.kind}: no such kind; there are: {', '.join(curve.KINDS)}")
    if config.arrivals not in arrivals.KINDS:
        raise ConfigError(f"load.arrivals={config.arrivals}: no such kind; there are: {', '.join(arrivals.KINDS)}")
    _at_least(1, **{"load.depth": config.depth, "load.min_requests": config.min_requests})
    _at_least(0, **{"load.warmup_s": config.warmup_s})
    _above_zero(**{"load.min_s": config.min_s, "load.max_wait_s": config.max_wait_s})
    _above_zero(**{"load.max_s": config.max_s})
    if config.max_s < config.min_s:
        raise ConfigError(f"load.max_s={config.max_s:g} is shorter than load.min_s={config.min_s:g}")
    if config.kind in {"poisson", "constant"} and not config.rates_ips:
        raise ConfigError(f"load.kind={config.kind} needs load.rates_ips, as in 'load.rates_ips=[100,200]'")
    if config.kind == "curve" and not config.fractions:
        _at_least(ladder.FEWEST, **{"load.points": config.points})
    for key, values in (("fractions", config.fractions), ("rates_ips", config.rates_ips)):
        for value in values:
            _above_zero(**{f"load.{key}": value})
    return LoadAxes(
        kind=config.kind,
        arrivals=config.arrivals,
        depth=config.depth,
        fractions=tuple(sorted(config.fractions)) if config.kind == "curve" else (),
        rates_ips=tuple(sorted(config.rates_ips)) if config.kind in {"poisson", "constant"} else (),
        warmup_s=config.warmup_s,
        min_s=config.min_s,
        min_requests=config.min_requests,
        max_s=config.max_s,
        max_wait_s=config.max_wait_s,
        seed=asked.seed,
        repeats=asked.repeats,
        batch_wait_ms=_batch_wait_ms(asked),
        **_trace(config, asked.timeout_s),
        points=config.points if config.kind == "curve" and not config.fractions else None,
        budget_s=_budget_s(config, asked.repeats),
    )


def _batch_wait_ms(asked: Config) -> float | None:
    """None also where there is nothing to gather: one sample is a full batch, and a closed loop has no arrivals."""
    wait_ms = asked.batching.max_wait_ms
    if wait_ms is not None:
        _at_least(0, **{"batching.max_wait_ms": wait_ms})
    return None if asked.batch == 1 or asked.load.kind == "closed" else wait_ms


def _trace(config: LoadConfig, timeout_s: float) -> dict[str, Any]:
    """The axes of a trace; none where another kind of load is asked for."""
    if config.kind != trace.KIND:
        return {}
    if config.trace_scale is not None:
        _above_zero(**{"load.trace_scale": config.trace_scale})
    return trace.axes(config.trace, config.trace_scale or 1.0, timeout_s)


def _budget_s(config: LoadConfig, repeats: int) -> float | None:
    """``load.budget_s``, once it is seen to be enough for the warm-ups; a closed loop alone has none."""
    if config.budget_s is None or config.kind == "closed":
        return None
    points = 1 + (len(config.rates_ips) or len(config.fractions) or config.points)
    least = repeats * (2 * points * config.warmup_s + config.min_s)
    if not least <= config.budget_s < math.inf:
        raise ConfigError(
            f"load.budget_s={config.budget_s:g}: {points} points with load.warmup_s={config.warmup_s:g} "
            f"and repeats={repeats} need {least:g} or more"
        )
    return config.budget_s


def _at_least(least: int, **values: float) -> None:
    for name, value in values.items():
        if not least <= value < math.inf:
            raise ConfigError(f"{name}={value}: must be {least} or more")


def _above_zero(**values: float) -> None:
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise ConfigError(f"{name}={value:g}: must be above 0")
