"""The schema of the command line and of every YAML: what may be asked, each key with its line of help.

Plain dataclasses that Hydra checks each file and override against; `sweep.config.variants` turns one composed config
into a `Variant`. The keys that are axes are declared in `sweep.spec`, with their type, default and help; `section`
adds them here, so that a new axis needs no line of its own.
"""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from sweep import spec
from sweep.loadgen import PROCESSES, describe_processes

if TYPE_CHECKING:
    from collections.abc import Callable

_Class = TypeVar("_Class", bound=type)
_IN_HELP = {"{processes}": ", ".join(PROCESSES), "{described_processes}": describe_processes()}


def _key(default: Any, text: str) -> Any:
    """A field with its line of help."""
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata={"help": text})
    if isinstance(default, type):
        return field(default_factory=default, metadata={"help": text})
    return field(default=default, metadata={"help": text})


@typing.dataclass_transform()
def section(prefix: str) -> Callable[[_Class], _Class]:
    """Return a decorator that makes a dataclass of a class, with every axis whose key is ``prefix.NAME``.

    Args:
        prefix: of the keys, such as ``backend``; "" for the keys at the top.
    """

    def decorate(kind: _Class) -> _Class:
        axes = {}
        for key, axis in spec.keyed().items():
            head, _, name = key.rpartition(".")
            if head == prefix:
                default = axis.info.cli_default
                axes[name] = axis.info.hint or _typed_hint(axis.hint)
                setattr(
                    kind, name, _key(list(default) if isinstance(default, tuple) else default, _filled(axis.info.help))
                )
        kind.__annotations__ = axes | kind.__annotations__
        dataclass(kind)
        return kind

    return decorate


def _filled(text: str) -> str:
    """Return a line of help with the names that a registry above `sweep.spec` holds."""
    for placeholder, names in _IN_HELP.items():
        text = text.replace(placeholder, names)
    return text


def _typed_hint(hint: Any) -> Any:
    """Return the type on the command line of an axis whose type is `hint`: a list for a tuple."""
    inner = typing.get_args(hint)
    return list[inner[0]] if typing.get_origin(hint) is tuple else hint  # type: ignore[valid-type]  # made at run time


@dataclass
class InputConfig:
    """What a user says of one input of their own ONNX; ``variants`` holds ``model.inputs`` to it."""

    shape: list[Any] | None = _key(None, "one entry per dimension: a size, or the word batch")
    low: float | None = _key(None, "smallest value drawn")
    high: float | None = _key(None, "largest value drawn (inclusive for integers)")
    dtype: str | None = _key(None, "model.torch: element type of the argument (null: float32)")


@section("model")
class ModelConfig:
    """The network."""

    torch: str | None = _key(None, "package.module:factory, whose torch.nn.Module is exported; it is imported and run")
    saved_model: str | None = _key(None, "folder of a TensorFlow SavedModel, converted by tf2onnx")
    scores: str | None = _key(None, "output [batch,classes] that model.labels scores; null finds the only one")

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Return the value of an axis, which `section` adds."""


@section("precision")
class PrecisionConfig:
    """The types that the ONNX graph will carry."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Return the value of an axis, which `section` adds."""


@section("backend.script")
class ScriptConfig:
    """Scripted service times of the simulated backend."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Return the value of an axis, which `section` adds."""


@section("backend")
class BackendConfig:
    """The inference library."""

    script: ScriptConfig | None = _key(None, "simulated: the script")

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Return the value of an axis, which `section` adds."""


@section("load")
class LoadConfig:
    """How the session is driven."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Return the value of an axis, which `section` adds."""


@section("batching")
class BatchingConfig:
    """Server batching: the server gathers single samples into batches."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Return the value of an axis, which `section` adds."""


@dataclass
class RangeConfig:
    """The batch sizes of profile=range."""

    least: int = _key(1, "profile=range: smallest batch that the engine takes")
    best: int | None = _key(None, "profile=range: batch that the builder tunes for (null: the batch)")
    most: int | None = _key(None, "profile=range: largest batch that the engine takes (null: the batch)")


@dataclass
class TrackingConfig:
    """Where the records are published."""

    enabled: bool = _key(default=True, text="publish to MLflow; false leaves it to `sweep publish`")
    uri: str | None = _key(None, "MLflow server; null takes MLFLOW_TRACKING_URI, else sqlite in results/")
    experiment: str = _key("sweep", "MLflow experiment")


@dataclass
class AccuracyConfig:
    """How far from the fp32 reference an engine may be."""

    min_sqnr_db: float | None = _key(None, "least SQNR of an engine, dB, else `invalid` (null: by precision, see docs)")
    min_top1: float | None = _key(None, "least share of samples with the reference's arg max, 0 to 1, else `invalid`")
    max_error: float | None = _key(None, "largest error over the largest reference value, else `invalid`")
    min_cosine: float | None = _key(None, "least batch-centred cosine with the reference, else `invalid`")
    min_score: float | None = _key(None, "least share of labelled samples that are right, 0 to 1, else `invalid`")
    max_score_drop: float | None = _key(None, "most that the score may lie below fp32's, 0.01 is a point")


@dataclass
class SloConfig:
    """The limit that a variant has to hold; set one."""

    p50_ms: float | None = _key(None, "median latency to hold, ms")
    p90_ms: float | None = _key(None, "p90 latency to hold, ms")
    p95_ms: float | None = _key(None, "p95 latency to hold, ms")
    p99_ms: float | None = _key(None, "p99 latency to hold, ms: the answer is the most samples/s that keep it")
    p999_ms: float | None = _key(None, "p99.9 latency to hold, ms")
    search: bool = _key(default=True, text="search the capacity and confirm it; false judges the rungs")
    search_s: float = _key(20.0, "seconds of load for the search and confirmation of one variant")


@dataclass
class TimeoutConfig:
    """How long a worker may take; one that takes longer is ended, with all that it started."""

    build_s: float | None = _key(None, "longest build of an engine, s (null: timeout_s)")
    load_s: float | None = _key(None, "longest loading of an engine, s (null: timeout_s)")
    point_s: float | None = _key(None, "longest point of a load, warm-up included, s (null: timeout_s)")


@dataclass
class GpuConfig:
    """How a GPU is shared with others."""

    wait_s: float | None = _key(28800.0, "longest wait for a device that another sweep measures on, s; null: no limit")


@section("")
class Config:
    """Everything that can be asked."""

    model: ModelConfig = _key(ModelConfig, "")
    precision: PrecisionConfig = _key(PrecisionConfig, "")
    backend: BackendConfig = _key(BackendConfig, "")
    load: LoadConfig = _key(LoadConfig, "")
    batching: BatchingConfig = _key(BatchingConfig, "")
    tracking: TrackingConfig = _key(TrackingConfig, "")
    slo: SloConfig = _key(SloConfig, "")
    accuracy: AccuracyConfig = _key(AccuracyConfig, "")
    range: RangeConfig = _key(RangeConfig, "")
    timeout: TimeoutConfig = _key(TimeoutConfig, "")
    gpu: GpuConfig = _key(GpuConfig, "")
    name: str | None = _key(None, "folder of the sweep below results; null makes one from what was asked")
    results: str = _key("results", "root of records, samples, cache and the default MLflow store")
    cache_gib: float | None = _key(None, "most that results/cache may hold, GiB; least recently used goes (null: 50)")
    sentinel_every: int = _key(0, "passes between two short runs of the first variant, which show drift; 0: none")
    plan: bool = _key(default=False, text="print what would run and run nothing")
    force: bool = _key(default=False, text="measure again what has a record already")
    mps_pipe_directory: str | None = _key(None, "CUDA_MPS_PIPE_DIRECTORY of an MPS daemon of yours; null starts one")
    only: Any = _key(None, "run these alone: words of a label or axis:value, all of which hold; [batch:8|16,fp16]")
    skip: Any = _key(None, "leave these out: words of a label or axis:value, any of which holds; [batch:64,int8]")
    retry: Any = _key(
        "failed", "measured again at the next start: none, failed (and oom, timeout, crashed), all or a list"
    )
    prune: bool = _key(
        default=True, text="a larger batch than one that ran out of memory is not tried; nor more streams, clients"
    )
    gpus: Any = _key(None, "GPUs to spread over: all, or a list of indices or UUIDs (null: the first)")
    timeout_s: float = _key(600.0, "longest time that a worker spends in one stage before it is ended, s")
    telemetry_hz: float = _key(10.0, "readings a second of the GPU's clocks, power and temperature; 0 takes none")

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Return the value of an axis, which `section` adds."""


GROUPS = ("model", "precision", "backend", "load", "tracking", "experiment")
UNMEASURED = (  # keys that name no sweep
    *("plan", "force", "name", "results", "cache_gib", "tracking", "slo", "timeout_s", "telemetry_hz", "hydra"),
    *("accuracy", "sentinel_every", "timeout", "gpu", "gpus", "mps_pipe_directory", "only", "skip", "retry", "prune"),
)


def help_lines() -> list[str]:
    """One line per key: ``batch  samples per inference ... [1]``."""
    rows = list(_rows(Config, ""))
    width = max(len(name) for name, _ in rows)
    return [f"  {name:<{width}}  {text}" for name, text in rows]


def _rows(kind: type, prefix: str) -> list[tuple[str, str]]:
    rows = []
    hints = {item.name: item for item in dataclasses.fields(kind)}
    for name, item in sorted(hints.items(), key=lambda pair: bool(_is_section(pair[1]))):
        nested = _is_section(item)
        if nested:
            rows.extend(_rows(nested, f"{prefix}{name}."))
        else:
            default = item.default_factory() if callable(item.default_factory) else item.default
            shown = "null" if default is None else str(default).lower() if isinstance(default, bool) else str(default)
            rows.append((f"{prefix}{name}", f"{item.metadata['help']} [{shown}]"))
            if name == "inputs":
                rows.extend(_rows(InputConfig, f"{prefix}{name}.NAME."))
            if name == "script":
                rows.extend(_rows(ScriptConfig, f"{prefix}{name}."))
    return rows


def _is_section(item: dataclasses.Field[Any]) -> Any:
    factory = item.default_factory
    return factory if dataclasses.is_dataclass(factory) else False
