"""The axes of a sweep. The class in which an axis lives is the stage that it invalidates.

``OnnxAxes`` change the graph, ``EngineAxes`` the engine built from it, ``SessionAxes`` how the engine
is held, ``LoadAxes`` how it is driven. Keys are hashes of those projections, so streams, MPS shares
and load never rebuild an engine. An axis left at None is the library's default and stays out of
the key. To add an axis: a field here (with its metadata), and its name in the ``honours`` of the
backends that act on it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

NOT_IN_KEY = {"key": False}
JsonDict = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class InputFix:
    """What the user says of one input of their model.

    Attributes:
        name: the ONNX input's name.
        shape: one entry per dimension, an int or the word ``batch``; None leaves the file's own shape.
        low: smallest value drawn (inclusive); None means the dtype's default.
        high: largest value drawn (inclusive for integers); None means the dtype's default.
    """

    name: str
    shape: tuple[int | str, ...] | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRef:
    """A network, by name (built here) or by path (a user's own ONNX).

    Attributes:
        name: zoo name, or the file's stem.
        revision: the zoo's revision of that network; None for a file.
        path: absolute path of a user's file; None for the zoo. Not in the key: ``digest`` is.
        digest: sha256 of the user's file and its external data; None for the zoo.
        inputs: what the user fixed about the inputs.
        batch_dim: name of the symbolic dimension that is the batch; None means found by rule.
    """

    name: str
    revision: int | None = None
    path: str | None = field(default=None, metadata=NOT_IN_KEY)
    digest: str | None = None
    inputs: tuple[InputFix, ...] = ()
    batch_dim: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """A precision recipe: the types that the ONNX graph will carry.

    Attributes:
        name: what the table and MLflow show.
        dtype: fp32, tf32, fp16, bf16, int8 or fp8.
        keep_io: inputs and outputs stay float32, so that all precisions share one I/O contract.
        rest: type of what int8 and fp8 leave unquantised, fp16 or bf16; None leaves it float32.
        wide: products with a quantised weight give float32 whatever the rest is (mixes only).
        guard: nodes that touch what overflows float16 over the calibration data stay float32 (fp16 only).
        quantize_ops: op types whose inputs get Q/DQ (int8 and fp8 only).
        per_channel: per-channel weight scales, as TensorRT wants them.
        calibration_batches: how many seeded random batches the ranges of the activations are drawn from.
    """

    name: str
    dtype: str
    keep_io: bool = True
    rest: str | None = None
    wide: bool | None = None
    guard: bool | None = None
    quantize_ops: tuple[str, ...] = ()
    per_channel: bool = True
    calibration_batches: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxAxes:
    """Change one of these and the typed ONNX is made again.

    Attributes:
        model: the network.
        precision: the types that its graph will carry.
        prune: ``2:4`` zeroes two of each four weights before anything else; set by sparsity=force.
    """

    model: ModelRef
    precision: Precision
    prune: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Batch sizes that one engine takes: an optimisation profile over a range.

    Attributes:
        least: smallest batch.
        best: batch that the builder tunes for.
        most: largest batch.
    """

    least: int
    best: int
    most: int

    def __str__(self) -> str:
        """``1..8..32``, as tables show it."""
        return f"{self.least}..{self.best}..{self.most}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """A shared library of TensorRT plugins.

    Attributes:
        path: absolute path. Not in the key: ``digest`` is.
        digest: sha256 of the file.
    """

    path: str = field(metadata=NOT_IN_KEY)
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineAxes:
    """Change one of these and the engine is built again.

    Attributes:
        batch: samples per inference; the engine's shapes are static at it unless ``profile`` is set.
        profile: the range of batch sizes that the engine takes; all batches in it share one engine.
        builder_optimization_level: 0 to 5, how hard TensorRT's builder searches.
        max_aux_streams: streams that one inference may fork into.
        tiling: none, fast, moderate or full: how hard the builder searches for tilings.
        sparsity: ``enable`` lets the builder use weights that are sparse 2:4; ``force`` makes them so first.
        workspace_mib: most scratch memory of a layer, MiB.
        timing_cache: False builds without the tactic timings that builds on one machine share.
        profiling_verbosity: detailed, layer_names_only or none: what the engine tells of its layers.
        version_compatible: the engine runs with later versions of the library too.
        hardware_compatibility: none, ampere_plus or same_compute_capability: other GPUs that the engine runs on.
        refit: the engine's weights can be replaced after the build.
        weight_streaming: the engine can leave weights on the host (``SessionAxes.weight_streaming_budget_mib``).
        plugins: shared libraries with the layers that the library lacks.
    """

    batch: int = 1
    profile: Profile | None = None
    builder_optimization_level: int | None = None
    max_aux_streams: int | None = None
    tiling: str | None = None
    sparsity: str | None = None
    workspace_mib: int | None = None
    timing_cache: bool | None = None
    profiling_verbosity: str | None = None
    version_compatible: bool | None = None
    hardware_compatibility: str | None = None
    refit: bool | None = None
    weight_streaming: bool | None = None
    plugins: tuple[Plugin, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionAxes:
    """Change one of these and the engine is loaded again, never rebuilt.

    Attributes:
        streams: execution contexts that run side by side in one process.
        clients: processes that share the device.
        mps: active thread percentage of each client under CUDA MPS; None runs without MPS.
        cuda_graph: replay each inference as a captured CUDA graph.
        transfers: a request copies its inputs to the GPU and its outputs back; False times compute alone.
        wait: how a thread waits for the GPU: block, spin or yield.
        weight_streaming_budget_mib: most weights on the GPU, MiB; the rest is streamed from the host at each inference.
        intra_op_threads: CPU threads inside one inference (onnxruntime only).
        script: scripted behaviour of the simulated backend; None for every other.
    """

    streams: int = 1
    clients: int = 1
    mps: int | None = None
    cuda_graph: bool = False
    transfers: bool | None = None
    wait: str | None = None
    weight_streaming_budget_mib: int | None = None
    intra_op_threads: int | None = None
    script: Script | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """Scripted service times of the simulated backend, on a virtual clock.

    Attributes:
        service_us: fixed cost of one inference, microseconds.
        sample_us: added cost of each sample in the batch, microseconds.
        distribution: ``constant`` or ``exponential`` service times around that mean.
        raise_at: stage (build, load, measure) at which a scripted error is raised; None for none.
        sleep_after_us: idle time after which a stream falls asleep; None never does.
        wake_us: added cost of the inference that wakes it.
        machine: file that holds a factor on all service times, read when a session is loaded: a machine whose
            speed changes in the middle of a sweep. None for a steady one. Not in the key: a sweep cannot see it.
    """

    service_us: float = 100.0
    sample_us: float = 10.0
    distribution: str = "constant"
    raise_at: str | None = None
    sleep_after_us: float | None = None
    wake_us: float | None = None
    machine: str | None = field(default=None, metadata=NOT_IN_KEY)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadAxes:
    """How the session is driven. Times in seconds, rates in samples/s.

    Attributes:
        kind: ``curve`` (closed, then open at a ladder), ``closed``, ``poisson``, ``constant`` or ``trace``
            (closed, then the arrivals of a file).
        arrivals: distribution of the arrivals on the curve's ladder, ``poisson`` or ``constant``.
        depth: inferences kept in flight per stream by the closed loop.
        fractions: the curve's ladder, as fractions of the closed loop's peak; empty places ``points`` rungs.
        points: rungs of a placed ladder; None where ``fractions`` say it.
        budget_s: seconds for all passes over the load of a variant; None leaves each point to its own limits.
        rates_ips: offered rates of ``poisson`` and ``constant``.
        warmup_s: shortest warm-up; it goes on until the throughput is stable.
        min_s: shortest measured window of a point.
        min_requests: fewest measured requests of a point (662 carry a p99, see stats.min_count).
        max_s: longest measured window of a point; percentiles the count cannot carry are null.
        max_wait_s: backlog bound; a request that waited longer marks the point ``overloaded``.
        seed: of the arrival schedules and the input values.
        repeats: passes over the whole load, interleaved with the other variants' passes.
        batch_wait_ms: server batching: requests are single samples, gathered up to the engine's batch or until the
            oldest has waited this long, ms; None leaves batching to the client.
        trace: absolute path of the file of arrivals. Not in the key: ``trace_digest`` is.
        trace_digest: sha256 of that file.
        trace_scale: how many times faster the trace is replayed; None means as it is.
        trace_s: from its first to its last arrival as replayed, seconds. Not in the key: it follows from the others.
    """

    kind: str = "curve"
    arrivals: str = "poisson"
    depth: int = 2
    fractions: tuple[float, ...] = ()
    rates_ips: tuple[float, ...] = ()
    warmup_s: float = 0.3
    min_s: float = 1.0
    min_requests: int = 662
    max_s: float = 10.0
    max_wait_s: float = 1.0
    seed: int = 0
    repeats: int = 1
    batch_wait_ms: float | None = None
    trace: str | None = field(default=None, metadata=NOT_IN_KEY)
    trace_digest: str | None = None
    trace_scale: float | None = None
    trace_s: float | None = field(default=None, metadata=NOT_IN_KEY)
    points: int | None = None
    budget_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One point of the axes: everything that decides a measured curve."""

    backend: str
    onnx: OnnxAxes
    engine: EngineAxes = field(default_factory=EngineAxes)
    session: SessionAxes = field(default_factory=SessionAxes)
    load: LoadAxes = field(default_factory=LoadAxes)

    @property
    def label(self) -> str:
        """Short name for tables and runs, with only the axes that are set: ``tiny_cnn fp16 b8 s2``."""
        parts = [self.onnx.model.name, self.onnx.precision.name, f"b{self.engine.batch}", f"s{self.session.streams}"]
        if self.session.clients != 1:
            parts.append(f"c{self.session.clients}")
        if self.session.mps is not None:
            parts.append(f"mps{self.session.mps}")
        if self.session.cuda_graph:
            parts.append("graph")
        return " ".join([*parts, *_knobs(self.engine, self.session), *_loaded(self.load)])


def _knobs(engine: EngineAxes, session: SessionAxes) -> list[str]:
    """A word for each axis that is set and that most sweeps leave alone."""
    named: dict[str, Any] = {
        "profile": engine.profile,
        "opt": engine.builder_optimization_level,
        "aux": engine.max_aux_streams,
        "tiling-": engine.tiling,
        "sparsity-": engine.sparsity,
        "workspace": engine.workspace_mib,
        "timing-cache-": engine.timing_cache,
        "verbosity-": engine.profiling_verbosity,
        "version-compatible-": engine.version_compatible,
        "hardware-": engine.hardware_compatibility,
        "refit-": engine.refit,
        "weight-streaming-": engine.weight_streaming,
        "plugins": None if engine.plugins is None else len(engine.plugins),
        "wait-": session.wait,
        "transfers-": session.transfers,
        "weight-budget": session.weight_streaming_budget_mib,
    }
    switch = {True: "on", False: "off"}
    return [
        f"{word}{switch[value] if isinstance(value, bool) else value}"
        for word, value in named.items()
        if value is not None
    ]


def _loaded(load: LoadAxes) -> list[str]:
    """A word for each load axis that changes what a request is, or whose arrivals are a file's."""
    words = [] if load.batch_wait_ms is None else [f"w{load.batch_wait_ms:g}ms"]
    if load.trace is not None:
        words.append(f"trace-{PurePath(load.trace).stem}")
    return words if load.trace_scale is None else [*words, f"x{load.trace_scale:g}"]


def projection(axes: Any) -> JsonDict:
    """The part of ``axes`` that identifies it: nested plain values, None and NOT_IN_KEY fields left out."""
    out: JsonDict = {}
    for item in dataclasses.fields(axes):
        value = getattr(axes, item.name)
        if value is not None and item.metadata.get("key", True):
            out[item.name] = _plain(value)
    return out


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return projection(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def digest(*parts: Any) -> str:
    """16 hex digits of the sha256 of the parts' canonical JSON; dataclasses count by their projection."""
    text = json.dumps([_plain(part) for part in parts], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def onnx_key(variant: Variant) -> str:
    """Key of the typed ONNX: model and precision."""
    return digest("onnx", variant.onnx)


def engine_key(variant: Variant) -> str:
    """Key of what is built: backend, typed ONNX and engine axes. Backends add library and device to it.

    An engine with a range profile is the same for every batch in the range.
    """
    built = projection(variant.engine)
    if variant.engine.profile is not None:
        del built["batch"]
    return digest("engine", variant.backend, onnx_key(variant), built)


def variant_key(variant: Variant) -> str:
    """Key of the record: every axis."""
    return digest("variant", variant)


def flat(variant: Variant) -> JsonDict:
    """The record's ``variant``: every axis under its own name, model and precision by name."""
    onnx, load = variant.onnx, dataclasses.asdict(variant.load)
    session = dataclasses.asdict(variant.session)
    return {
        "label": variant.label,
        "backend": variant.backend,
        "model": onnx.model.name,
        "model_ref": dataclasses.asdict(onnx.model),
        "precision": onnx.precision.name,
        "precision_recipe": dataclasses.asdict(onnx.precision),
        "prune": onnx.prune,
        **dataclasses.asdict(variant.engine),
        **session,
        "load": load,
        "repeats": load.pop("repeats"),
        "seed": load.pop("seed"),
    }
