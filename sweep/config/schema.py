"""The schema of the command line and of every YAML: what may be asked, each key with its line of help.

Plain dataclasses that Hydra checks each file and override against; ``variant`` turns one composed config into
a ``Variant`` and checks the values that types cannot.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from sweep.loadgen.arrival_processes import PROCESSES, describe_processes


def _key(default: Any, text: str) -> Any:
    """A field with its line of help."""
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata={"help": text})
    if isinstance(default, type):
        return field(default_factory=default, metadata={"help": text})
    return field(default=default, metadata={"help": text})


@dataclass
class InputConfig:
    """What a user says of one input of their own ONNX; ``variants`` holds ``model.inputs`` to it."""

    shape: list[Any] | None = _key(None, "one entry per dimension: a size, or the word batch")
    low: float | None = _key(None, "smallest value drawn")
    high: float | None = _key(None, "largest value drawn (inclusive for integers)")
    dtype: str | None = _key(None, "model.torch: element type of the argument (null: float32)")


@dataclass
class ModelConfig:
    """The network."""

    name: str = _key("tiny_cnn", "network built here, or the label of a file; model=NAME sets it")
    path: str | None = _key(None, "your own .onnx, with or without external data; wins over the name")
    torch: str | None = _key(None, "package.module:factory, whose torch.nn.Module is exported; it is imported and run")
    saved_model: str | None = _key(None, "folder of a TensorFlow SavedModel, converted by tf2onnx")
    inputs: dict[str, Any] = _key({}, "per input: shape, low, high, as in +model.inputs.x.shape=[batch,512]")
    calibration: str | None = _key(
        None, "samples for ranges: an .npz, a folder of .npy, images:FOLDER, tokens:FILE, package.module:function"
    )
    labels: str | None = _key(
        None,
        "samples with their classes, for the score: an .npz with labels, images:FOLDER of a folder a class, "
        "package.module:function",
    )
    scores: str | None = _key(None, "output [batch,classes] that model.labels scores; null finds the only one")
    batch_dim: str | None = _key(None, "name of the ONNX dimension that is the batch; null finds it")


@dataclass
class PrecisionConfig:
    """The types that the ONNX graph will carry."""

    name: str = _key("fp32", "label of the recipe; precision=NAME sets it")
    dtype: str = _key("fp32", "fp32, tf32, fp16, bf16, int8 or fp8")
    keep_io: bool = _key(default=True, text="inputs and outputs stay float32 whatever is inside")
    rest: str | None = _key(None, "type of what int8 and fp8 leave unquantised: fp16 or bf16 (null: fp32)")
    wide: bool = _key(default=False, text="quantised products give float32, whatever precision.rest is")
    guard: bool = _key(default=False, text="what overflows float16 over the calibration data stays float32 (fp16)")
    quantize_ops: list[str] = _key([], "op types that get Q/DQ (int8, fp8)")
    per_channel: bool = _key(default=True, text="weight scales per output channel, as TensorRT wants them")
    calibration_batches: int | None = _key(None, "most batches of 8 samples that set ranges (int8, fp8, guard)")
    calibration_method: str = _key("max", "range of an activation (int8, fp8): max, percentile or entropy")
    calibration_percentile: float = _key(99.99, "share of |x| inside the range, percent, for method percentile")
    tool: str = _key(
        "builtin", "builtin converts; modelopt: NVIDIA's converts; none: the file is typed, and is checked"
    )


@dataclass
class ScriptConfig:
    """Scripted service times of the simulated backend."""

    service_us: float = _key(100.0, "simulated: fixed cost of an inference, us")
    sample_us: float = _key(10.0, "simulated: added cost of each sample, us")
    distribution: str = _key("constant", "simulated: constant or exponential service times")
    raise_at: str | None = _key(None, "simulated: raise an error in build, load or measure")
    sleep_after_us: float | None = _key(None, "simulated: idle time after which a stream falls asleep, us")
    wake_us: float | None = _key(None, "simulated: added cost of the inference that wakes it, us")
    machine: str | None = _key(None, "simulated: file with a factor on all service times, read at each load")


@dataclass
class BackendConfig:
    """The inference library."""

    name: str = _key("auto", "auto, tensorrt, tensorrt_rtx, onnxruntime or simulated; auto says what it took and why")
    intra_op_threads: int | None = _key(None, "onnxruntime: CPU threads inside one inference (null: 1)")
    builder_optimization_level: int | None = _key(None, "TensorRT: 0 to 5, how hard its builder searches")
    max_aux_streams: int | None = _key(None, "TensorRT: streams that one inference may fork into")
    tiling: str | None = _key(None, "TensorRT: none, fast, moderate or full search for tilings")
    sparsity: str | None = _key(None, "TensorRT: enable uses weights that are sparse 2:4, force prunes them to be")
    workspace_mib: int | None = _key(None, "TensorRT: most scratch memory of a layer, MiB")
    timing_cache: bool | None = _key(None, "TensorRT: false builds without the tactic timings that builds share")
    profiling_verbosity: str | None = _key(None, "TensorRT: detailed, layer_names_only or none (null: detailed)")
    version_compatible: bool | None = _key(None, "TensorRT: the engine runs with later versions of the library too")
    hardware_compatibility: str | None = _key(None, "TensorRT: none, ampere_plus or same_compute_capability")
    refit: bool | None = _key(None, "TensorRT: the engine's weights can be replaced after the build")
    weight_streaming: bool | None = _key(None, "TensorRT: the engine can leave weights on the host")
    weight_streaming_budget_mib: int | None = _key(None, "TensorRT: most weights on the GPU, MiB; no rebuild")
    plugins: list[str] = _key([], "TensorRT: shared libraries of plugins to load")
    wait: str | None = _key(None, "TensorRT: wait for the GPU by block, spin or yield (null: spin)")
    script: ScriptConfig | None = _key(None, "simulated: the script")


@dataclass
class LoadConfig:
    """How the session is driven."""

    kind: str = _key(
        "curve",
        f"curve (closed loop for the peak, then a ladder), closed, {', '.join(PROCESSES)} or trace",
    )
    arrivals: str = _key("poisson", f"arrivals on the curve's ladder: {describe_processes()}")
    depth: int = _key(2, "inferences in flight per stream in the closed loop")
    points: int = _key(7, "rungs of the ladder, placed by what the closed loop showed: more at the knee, one past it")
    fractions: list[float] = _key([], "a ladder of your own, as fractions of the peak; empty places load.points")
    budget_s: float | None = _key(None, "seconds for the whole load of a variant; null leaves each point to its limits")
    rates_ips: list[float] = _key([], f"offered samples/s of load.kind={', '.join(PROCESSES)}")
    warmup_s: float = _key(0.3, "shortest warm-up; it goes on until the throughput is stable")
    min_s: float = _key(1.0, "shortest measured window of a point")
    min_requests: int = _key(662, "fewest measured requests of a point; 662 carry a p99, 64 a p90, 6636 a p99.9")
    max_s: float = _key(10.0, "longest measured window of a point; percentiles beyond its count stay empty")
    max_wait_s: float = _key(1.0, "backlog bound: a request that waited longer marks the point overloaded")
    trace: str | None = _key(None, "load.kind=trace: file of arrival times in seconds, one a line or column arrival_s")
    trace_scale: float | None = _key(None, "load.kind=trace: replay it this many times faster (null: as it is)")


@dataclass
class BatchingConfig:
    """Server batching: the server gathers single samples into batches."""

    max_wait_ms: float | None = _key(
        None, "requests are single samples, run once batch are there or the oldest waited this long; null: no gathering"
    )


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


@dataclass
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
    graph: str = _key("none", "pass over the fp32 graph: none, simplify, or your own package.module:function")
    batch: int = _key(1, "samples per inference; the engine is built for it")
    profile: str = _key("static", "static: an engine for each batch; range: one for all of range.least to range.most")
    streams: int = _key(1, "execution contexts side by side in one process")
    clients: int = _key(1, "processes that share the GPU")
    mps: int | None = _key(None, "CUDA MPS active thread percentage of each client, 1 to 100; null runs without MPS")
    mps_build: bool = _key(default=False, text="build the engine under the share of mps too, instead of the whole GPU")
    sm_count: int | None = _key(None, "SMs to keep to by a CUDA green context, without MPS; null uses the whole GPU")
    cuda_graph: bool = _key(default=False, text="replay each inference as a captured CUDA graph")
    transfers: bool | None = _key(None, "copies to and from the GPU are part of a request; false times compute alone")
    repeats: int = _key(1, "passes over the whole load, interleaved with the other variants' passes")
    seed: int = _key(0, "of inputs, arrivals and the order of passes")
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
