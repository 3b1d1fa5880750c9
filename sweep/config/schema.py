"""Define the schema of the command line and of every YAML: each key with its type, default and line of help.

These are plain dataclasses that Hydra checks each file and override against; `sweep.config.variants` turns
one composed config into a `Variant`. The keys that are axes are declared in `sweep.spec`, with their type, default and
help; `section` adds them here, so that a new axis needs no line of its own.
"""

from __future__ import annotations

import dataclasses
import functools
import typing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from sweep import spec
from sweep.loadgen import PROCESSES, describe_processes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_Class = TypeVar("_Class", bound=type)
_HELP_PLACEHOLDERS = {"{processes}": ", ".join(PROCESSES), "{described_processes}": describe_processes()}


def _key(default: Any, text: str) -> Any:
    """Return a field of a section, with the default and the line of help."""
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
    for placeholder, names in _HELP_PLACEHOLDERS.items():
        text = text.replace(placeholder, names)
    return text


def _typed_hint(hint: Any) -> Any:
    """Return the command-line type of an axis whose type is `hint`: a list for a tuple."""
    inner = typing.get_args(hint)
    return list[inner[0]] if typing.get_origin(hint) is tuple else hint  # type: ignore[valid-type]  # made at run time


@dataclass
class InputConfig:  # Hydra does not know the names of inputs: `variants` checks their tables against it
    """Fix the shape, the range and the type of one input of your own model."""

    shape: list[Any] | None = _key(None, "shape of the input, one entry per dimension: a size or the word batch")
    low: float | None = _key(None, "smallest random value of the input (null: by element type)")
    high: float | None = _key(None, "largest random value of the input, inclusive for integers (null: by element type)")
    dtype: str | None = _key(None, "model.torch: element type of the example argument (null: float32)")
    name: str | None = _key(None, "name of the input, where it is not a word that can stand in the key (null: NAME)")


@section("model")
class ModelConfig:
    """Choose the network."""

    torch: str | None = _key(
        None, "package.module:factory that makes a torch.nn.Module to export; the module is imported and run"
    )
    saved_model: str | None = _key(None, "folder of a TensorFlow SavedModel, converted to ONNX by tf2onnx")
    scores: str | None = _key(None, "output of shape [batch,classes] that model.labels scores (null: the only one)")

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Return the value of an axis, which `section` adds."""


@section("precision")
class PrecisionConfig:
    """Choose the element types of the ONNX graph."""

    search_evaluations: int = _key(
        spec.SEARCH_EVALUATIONS, "precision.search: most conversions that the search runs and judges"
    )

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Return the value of an axis, which `section` adds."""


@section("backend.script")
class ScriptConfig:
    """Script the service times of the simulated backend."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Return the value of an axis, which `section` adds."""


@section("backend")
class BackendConfig:
    """Choose and tune the inference library."""

    script: ScriptConfig | None = _key(None, "simulated: scripted service times; backend=simulated sets them")

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Return the value of an axis, which `section` adds."""


@section("load")
class LoadConfig:
    """Choose the requests that drive the session, and when a measurement ends."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Return the value of an axis, which `section` adds."""


@section("batching")
class BatchingConfig:
    """Set up server batching: the server gathers single samples into batches."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Return the value of an axis, which `section` adds."""


@dataclass
class RangeConfig:
    """Set the batch sizes of profile=range."""

    least: int = _key(1, "profile=range: smallest batch that the engine takes")
    best: int | None = _key(None, "profile=range: batch that the builder optimizes for (null: batch)")
    most: int | None = _key(None, "profile=range: largest batch that the engine takes (null: batch)")


@dataclass
class TrackingConfig:
    """Choose where records are published."""

    enabled: bool = _key(default=True, text="publish records to MLflow; `sweep publish` sends them later if false")
    uri: str | None = _key(None, "MLflow server (null: MLFLOW_TRACKING_URI, else SQLite in results/)")
    experiment: str = _key("sweep", "name of the MLflow experiment")


@dataclass
class SearchConfig:
    """Choose how the best variant is looked for: every combination, or a search under a budget."""

    method: str = _key(
        "grid", "grid (every combination), halving (where the expected gain per second is largest) or bayes (Optuna)"
    )
    budget_s: float | None = _key(None, "time of all probes and measurements of a search, s (null: until it is sure)")
    objective: Any = _key(
        None,
        "what is best: peak, capacity, latency, energy, memory or cost, or a list for a front "
        "(null: capacity with slo.*, else peak)",
    )
    p99_ms: float | None = _key(None, "largest p99 of the closed loop with which a variant may win, ms")


@dataclass
class AccuracyConfig:
    """Set the accuracy gates: how far the outputs of an engine may lie from the fp32 reference."""

    min_sqnr_db: float | None = _key(
        None, "least SQNR against the fp32 reference, dB, else `invalid` (null: what rounding explains)"
    )
    min_top1: float | None = _key(None, "least share of samples with the reference's arg max, 0 to 1, else `invalid`")
    max_error: float | None = _key(None, "largest error as a share of the largest reference value, else `invalid`")
    min_cosine: float | None = _key(
        None, "least cosine similarity to the reference, both centered over the batch, -1 to 1, else `invalid`"
    )
    min_score: float | None = _key(None, "least share of labelled samples classified correctly, 0 to 1, else `invalid`")
    max_score_drop: float | None = _key(
        None, "largest drop of the score from that of fp32, 0 to 1, else `invalid`; 0.01 is one percentage point"
    )


@dataclass
class LimitsConfig:
    """Limit what a variant may take."""

    memory_mib: float | None = _key(
        None, "most memory, MiB, else `invalid`: of the device, or of the worker where a CPU computes"
    )


@dataclass
class SloConfig:
    """Set the latency limit that a variant has to keep; at most one key may be set."""

    p50_ms: float | None = _key(None, "limit of the median latency, ms")
    p90_ms: float | None = _key(None, "limit of the p90 latency, ms")
    p95_ms: float | None = _key(None, "limit of the p95 latency, ms")
    p99_ms: float | None = _key(None, "limit of the p99 latency, ms; the sweep reports the most samples/s that keep it")
    p999_ms: float | None = _key(None, "limit of the p99.9 latency, ms")
    search: bool = _key(
        default=True,
        text="search the highest rate that keeps the limit, and confirm it; false judges the rates of the curve",
    )
    search_s: float = _key(20.0, "time of load for the search and confirmation of one variant, s")


@dataclass
class TimeoutConfig:
    """Limit the time of a worker in a stage; one that takes longer is killed, with the processes that it started."""

    build_s: float | None = _key(None, "longest build of an engine, s (null: timeout_s)")
    load_s: float | None = _key(None, "longest loading of an engine, s (null: timeout_s)")
    point_s: float | None = _key(None, "longest measurement of one point, warm-up included, s (null: timeout_s)")


@dataclass
class GpuConfig:
    """Share a GPU with other sweeps."""

    wait_s: float | None = _key(28800.0, "longest wait for a device that another sweep uses, s (null: no limit)")


@section("")
class Config:
    """Hold every key of the command line."""

    model: ModelConfig = _key(ModelConfig, "")
    precision: PrecisionConfig = _key(PrecisionConfig, "")
    backend: BackendConfig = _key(BackendConfig, "")
    load: LoadConfig = _key(LoadConfig, "")
    batching: BatchingConfig = _key(BatchingConfig, "")
    tracking: TrackingConfig = _key(TrackingConfig, "")
    search: SearchConfig = _key(SearchConfig, "")
    slo: SloConfig = _key(SloConfig, "")
    accuracy: AccuracyConfig = _key(AccuracyConfig, "")
    limits: LimitsConfig = _key(LimitsConfig, "")
    range: RangeConfig = _key(RangeConfig, "")
    timeout: TimeoutConfig = _key(TimeoutConfig, "")
    gpu: GpuConfig = _key(GpuConfig, "")
    name: str | None = _key(None, "folder of the sweep below results (null: made from the overrides)")
    results: str = _key("results", "folder of records, samples, the cache and the default MLflow store")
    cache_gib: float | None = _key(
        None, "largest size of results/cache, GiB; least recently used entries are removed (null: 50)"
    )
    sentinel_every: int = _key(
        0, "passes between two sentinel runs, short runs of the first variant that show drift (0: none)"
    )
    plan: bool = _key(default=False, text="print the variants that would run, and run nothing")
    build_only: bool = _key(
        default=False, text="build the engines, and measure nothing; TensorRT-RTX needs no GPU for it"
    )
    force: bool = _key(default=False, text="measure variants again that have a record")
    mps_pipe_directory: str | None = _key(
        None, "CUDA_MPS_PIPE_DIRECTORY of an MPS daemon of your own (null: one is started)"
    )
    only: Any = _key(
        None, "run only variants that meet all conditions: a word of the label or axis:value, as in [batch:8|16,fp16]"
    )
    skip: Any = _key(
        None, "leave out variants that meet any condition: a word of the label or axis:value, as in [batch:64,int8]"
    )
    sweep: Any = _key(
        None, "in a YAML: table of what is swept, with lists, as in {precision: [fp16, int8], batch: [1, 8]}"
    )
    together: Any = _key(
        None,
        "models side by side, each alone and beside the others: tables of settings, as in "
        "[{model:resnet50,batch:8},{model:bert_base,rate:200,slo:{p99_ms:20}}]",
    )
    where: Any = _key(
        None, "keep only combinations for which an expression over the keys holds, as in batch * streams <= 64"
    )
    exclude: Any = _key(None, "in a YAML: list of combinations to leave out, as in [{precision: int8, batch: 1}]")
    retry: Any = _key(
        "failed", "statuses to measure again: failed (also oom, timeout, crashed), none, all (also invalid), or a list"
    )
    prune: bool = _key(
        default=True, text="leave out larger batches, more streams and more clients of a variant that ran out of memory"
    )
    layers: bool = _key(
        default=False, text="profile the layers of each engine once its variant is measured, into layers/KEY.json"
    )
    gpus: Any = _key(None, "GPUs to measure on: all, or a list of indices or UUIDs (null: the first)")
    timeout_s: float = _key(600.0, "longest time that a worker may spend in one stage, s; then it is killed")
    telemetry_hz: float = _key(10.0, "readings of the GPU's clocks, power and temperature per second (0: none)")

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Return the value of an axis, which `section` adds."""


GROUPS = ("model", "precision", "backend", "load", "tracking", "search", "experiment")
UNMEASURED = (  # keys without effect on what is measured: they are not part of the sweep's name
    *("plan", "build_only", "force", "name", "results", "cache_gib", "tracking", "slo", "timeout_s", "telemetry_hz"),
    *("hydra", "accuracy", "limits", "sentinel_every", "timeout", "gpu", "gpus", "mps_pipe_directory", "only", "skip"),
    *("retry", "search"),
    *("prune", "layers", "sweep", "where", "exclude"),
)


def help_lines() -> list[str]:
    """Return one line per key, with its help and default: ``batch  batch size, samples per inference [1]``."""
    rows = list(_rows(Config, ""))
    width = max(len(name) for name, _ in rows)
    return [f"  {name:<{width}}  {text}" for name, text in rows]


def _rows(kind: type, prefix: str) -> list[tuple[str, str]]:
    rows = []
    items = {item.name: item for item in dataclasses.fields(kind)}
    for name, item in sorted(items.items(), key=lambda pair: bool(_section_class(pair[1]))):
        nested = _section_class(item)
        if nested:
            rows.extend(_rows(nested, f"{prefix}{name}."))
        else:
            default = item.default_factory() if callable(item.default_factory) else item.default
            text = "null" if default is None else str(default).lower() if isinstance(default, bool) else str(default)
            rows.append((f"{prefix}{name}", f"{item.metadata['help']} [{text}]"))
            if name == "inputs":
                rows.extend(_rows(InputConfig, f"{prefix}{name}.NAME."))
            if name == "script":
                rows.extend(_rows(ScriptConfig, f"{prefix}{name}."))
    return rows


@functools.cache
def list_keys() -> frozenset[str]:
    """Return the keys whose value is, or may be, a list."""
    return frozenset(_lists(Config, ""))


def _lists(kind: type, prefix: str) -> Iterator[str]:
    hints = typing.get_type_hints(kind)
    for item in dataclasses.fields(kind):
        nested = _section_class(item)
        if nested:
            yield from _lists(nested, f"{prefix}{item.name}.")
        elif hints[item.name] is Any or "list" in str(hints[item.name]).lower():
            yield f"{prefix}{item.name}"


def _section_class(item: dataclasses.Field[Any]) -> Any:
    """Return the class of a field that holds a section, else None."""
    factory = item.default_factory
    return factory if dataclasses.is_dataclass(factory) else None
