"""Type the network, the engine that was built from it and the session that ran."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

from sweep.storage.record_types.accuracy import SearchedAccuracy
from sweep.storage.record_types.values import Bytes, Count, Magnitude, Milliseconds, Number, Rate, Seconds, Share


class ModelCost(TypedDict):
    """Describe the network.

    Attributes:
        parameters: number of weights.
        gmacs: multiply-adds of one sample, 1e9; None where they cannot be counted.
        opset: ONNX opset of the graph that was used.
        opset_of_file: opset of the user's file where it was upgraded, else None.
        made_from: what the ONNX file was exported from; None for a file as it is.
    """

    parameters: Count
    gmacs: Number | None
    opset: NotRequired[int | None]
    opset_of_file: NotRequired[int | None]
    made_from: NotRequired[str | None]


class Calibration(TypedDict):
    """Describe the data from which the ranges of activations were computed.

    Attributes:
        source: name of the data.
        digest: digest of the user's data; None for generated data.
        samples: samples that were run.
        method: how a range is taken from them.
    """

    source: str
    digest: str | None
    samples: Count
    method: NotRequired[str]


class GraphPassInfo(TypedDict, total=False):
    """Describe the effect of a pass that rewrote the fp32 graph.

    Attributes:
        name: name of the pass.
        key: key of its cache entry.
        nodes_before: nodes of the graph before it.
        nodes_after: nodes of the graph after it.
        pass_s: its duration, s.
    """

    name: str
    key: str
    nodes_before: Count
    nodes_after: Count
    pass_s: Seconds


class StageEngine(TypedDict):
    """Describe the engine of one stage of a pipeline.

    Attributes:
        stage: name of the stage.
        engine: key of the engine in the cache.
        precision: name of its recipe.
        batch: rows of one inference.
        build_s: duration of its build, s.
        bytes: size of the engine.
        plan_digest: SHA-256 of the serialised engine.
    """

    stage: str
    engine: str
    precision: str
    batch: Count
    build_s: Seconds | None
    bytes: Bytes | None
    plan_digest: str | None


class EngineStart(TypedDict):
    """Describe the engine that one pass loaded.

    Attributes:
        build: number of the engine among those that were built afresh; None where one served every pass.
        fresh: the process was started for this pass.
        plan_digest: SHA-256 of the serialised engine.
        build_s: duration of its build, s.
        load_s: time to load it in this process, s.
    """

    build: Count | None
    fresh: bool
    plan_digest: str | None
    build_s: Seconds | None
    load_s: Seconds | None


class PlanInput(TypedDict):
    """Describe an input of a plan that was built elsewhere.

    Attributes:
        name: its name.
        dtype: type of its elements.
        shape: one entry per dimension, a size or the word ``batch``, as it was fed.
        dynamic: the plan leaves a size of it open, if only to one size in its profile.
        least: smallest shape that the plan takes.
        most: largest shape that the plan takes.
    """

    name: str
    dtype: str
    shape: list[int | str]
    dynamic: bool
    least: list[int]
    most: list[int]


class NodeSearchInfo(TypedDict):
    """Describe the search for the fewest nodes in fp32 with which the recipe reaches the gates.

    Attributes:
        gates: the gates, by name.
        reached: a set of nodes reaches them.
        nodes: names of the nodes kept in fp32 besides those of ``precision.keep``; those of the nearest set where none
            reaches the gates.
        keep: what ``precision.keep`` is with them.
        evaluations: sets of nodes that were converted, run and judged.
        exhausted: the search stopped at ``precision.search_evaluations``, so that fewer nodes may do.
        judged_on: what ran the conversions.
        before: accuracy without these nodes.
        after: accuracy with them.
        recipe: name of the recipe that was written to ``recipes/precision/``; None where none reaches the gates.
    """

    gates: dict[str, Number]
    reached: bool
    nodes: list[str]
    keep: list[str]
    evaluations: Count
    exhausted: bool
    judged_on: str
    before: SearchedAccuracy
    after: SearchedAccuracy
    recipe: str | None


class LayerSummary(TypedDict):
    """Summarise the layer profile of an engine, which ``layers/KEY.json`` in the folder of the sweep holds whole.

    Attributes:
        layers: layers that were timed.
        timed_us: median duration of an inference without a profiler, us.
        layers_us: sum of the layers' median durations, us.
        gemm_share: part of that in matrix products, convolutions and attention; None where no layer took time.
        bound: what limits most of the time: ``compute``, ``memory``, ``launch`` or ``unknown``.
        compute_peak_share: operations over the peak of their types; None where the GPU's peaks are not known.
        bandwidth_peak_share: bytes over the peak of the memory, likewise.
        findings: number of findings (docs/reference/findings.md).
    """

    layers: Count
    timed_us: Magnitude
    layers_us: Magnitude
    gemm_share: Share | None
    bound: str
    compute_peak_share: Magnitude | None
    bandwidth_peak_share: Magnitude | None
    findings: Count


class GraphMemory(TypedDict):
    """Describe the CUDA graphs that a session captured, and the device memory that they took.

    Attributes:
        count: executable graphs: one for each stream, shape and batch size.
        nodes: nodes in all of them.
        memory_bytes: decrease of the free device memory over capture, instantiation and upload, bytes. The driver takes
            memory in blocks, so that a graph which fits into a block of an earlier one shows 0.
        pool_bytes: of that, memory reserved for allocations inside graphs (``cudaGraphMemAttrReservedMemCurrent``),
            bytes.
    """

    count: Count
    nodes: Count
    memory_bytes: Bytes
    pool_bytes: Bytes


class EngineInfo(TypedDict, total=False):
    """Describe the engine and the cost of building and loading it.

    Attributes:
        key: key of its cache entry.
        onnx_key: key of the typed ONNX it was built from; missing for a plan that was built elsewhere.
        inputs: inputs of a plan that was built elsewhere; missing for an engine that was built here.
        build_s: duration of the build, s; None for a plan that was built elsewhere.
        cached: it was taken from the cache.
        plan_digest: SHA-256, in hex, of the serialised engine (TensorRT's plan, onnxruntime's optimised graph); equal
            digests are one engine, whatever was set to build it.
        bytes: size on disk, bytes.
        device_memory_bytes: memory that the session takes on the device, bytes.
        context_memory_bytes: of that, memory of one execution context, bytes.
        weights_bytes: size of the weights in the engine, bytes.
        graphs: CUDA graphs of the session and their memory; missing without any.
        profiles: optimization profiles of the engine; missing where it has one.
        memory: bytes on the device by purpose: in use at the end (engine, contexts, run), at the peak, at the peak by
            owner (weights, activations, contexts, buffers, run), and over time, as [seconds, bytes, phase].
        build_memory: memory of the device that the build took: peak_bytes, allocations and the same over time; missing
            where the build needed no device.
        host_memory_bytes: most memory of the host that the worker held while it loaded and ran the engine, its
            interpreter and libraries included, bytes; None where the kernel does not tell.
        host_memory_before_bytes: of that, what it held before the load, bytes.
        artifacts: paths of files about the engine, from the sweep's folder.
        load_s: duration of loading, s.
        first_inference_s: duration of the first inference, s.
        convert_s: duration of the conversion to the precision, s.
        onnx_bytes: size of the typed ONNX, bytes.
        dtypes: precision=native: number of compute nodes in the file by the type that they compute in.
        onnx_notes: remarks of the conversion.
        guarded: nodes that the range guard kept in fp32.
        node_search: precision.search: the nodes that it keeps, and the accuracy without and with them.
        calibration: data from which ranges were computed; None if none were.
        graph_pass: effect of the pass that rewrote the graph; None without one.
        starts: what each pass started, in the order of the passes; missing in records of earlier versions.
        layers: where the time of an inference goes; missing unless ``layers=true``.
        stages: engine of each network of a pipeline, in the order of its stages; missing for one network.
    """

    key: str
    onnx_key: str
    inputs: list[PlanInput]
    build_s: Seconds | None
    cached: bool
    plan_digest: str | None
    bytes: Bytes | None
    device_memory_bytes: Bytes | None
    context_memory_bytes: Bytes | None
    weights_bytes: Bytes | None
    graphs: GraphMemory
    profiles: Count
    memory: dict[str, Any] | None
    build_memory: dict[str, Any]
    host_memory_bytes: Bytes | None
    host_memory_before_bytes: Bytes | None
    artifacts: list[str]
    load_s: Seconds | None
    first_inference_s: Seconds | None
    convert_s: Seconds | None
    onnx_bytes: Bytes | None
    dtypes: dict[str, int]
    onnx_notes: list[str]
    guarded: list[str]
    node_search: NodeSearchInfo
    calibration: Calibration | None
    graph_pass: GraphPassInfo | None
    starts: list[EngineStart]
    layers: LayerSummary
    stages: list[StageEngine]


class ClientSession(TypedDict, total=False):
    """Describe the session of one of several clients.

    Attributes:
        contexts: its execution contexts.
        sm_count: SMs of the device.
        sm_reached: SMs that a kernel of this client reached.
        under_mps: the client ran under MPS.
        device_memory_bytes: memory that its session takes on the device, bytes.
    """

    contexts: Count
    sm_count: Count | None
    sm_reached: Count | None
    under_mps: bool | None
    device_memory_bytes: Bytes | None


class ShapeEngine(TypedDict):
    """Describe the engine that one shape of a load of several runs on; the same one for all with ``profiles``.

    Attributes:
        shape: sizes of its named dimensions, as ``seq:128``.
        engine: key of its cache entry.
        build_s: duration of its build, s.
        bytes: size on disk, bytes.
        device_memory_bytes: memory that its session takes on the device, bytes; None where one engine serves all.
        sqnr_db: SQNR of its outputs, dB; missing for the largest, whose figures are those of the record.
        context_memory_bytes: scratch memory that the context of the shape needs, by its profile, bytes.
        first_run_ms: time of its first inference, from the host's clock, the change of its context to the shape
            included, ms.
        graphs: CUDA graphs of the shape and their memory.
    """

    shape: str
    engine: str
    build_s: Seconds | None
    bytes: Bytes | None
    device_memory_bytes: Bytes | None
    sqnr_db: NotRequired[Number | None]
    context_memory_bytes: NotRequired[Bytes]
    first_run_ms: NotRequired[Milliseconds]
    graphs: NotRequired[GraphMemory]


class ShapeChange(TypedDict):
    """Compare an inference that follows one of another shape with one that follows one of its own.

    Each is timed from enqueue to completion, one after the other on one stream.

    Attributes:
        shape: shape of the inference.
        after: shape of the one before it.
        stay_ms: median time after an inference of its own shape.
        change_ms: median time after one of ``after``.
        inferences: inferences behind each median.
        gpu_stay_ms: median time between the CUDA events around the inference, copies left out, after its own shape;
            missing without a GPU. The host's part of a change lies between them while the stream is idle.
        gpu_change_ms: the same after one of ``after``.
        enqueue_stay_ms: median time of the host in the enqueue, after its own shape.
        enqueue_change_ms: the same after one of ``after``.
    """

    shape: str
    after: str
    stay_ms: Milliseconds
    change_ms: Milliseconds
    inferences: Count
    gpu_stay_ms: NotRequired[Milliseconds]
    gpu_change_ms: NotRequired[Milliseconds]
    enqueue_stay_ms: NotRequired[Milliseconds]
    enqueue_change_ms: NotRequired[Milliseconds]


class BesideWindow(TypedDict):
    """Summarise what a network beside the measured one got in one window of that one.

    Attributes:
        index: rung of the measured network; -1 for its closed loop.
        repeat: pass.
        achieved_ips: throughput, samples/s.
        requests: requests that were completed in the window.
        p50_ms: median latency, ms.
        p99_ms: 99th percentile of the latency, ms.
        overlap: share of the window between the first start and the last completion of this network.
    """

    index: int
    repeat: Count
    achieved_ips: Rate
    requests: Count
    p50_ms: Milliseconds | None
    p99_ms: Milliseconds | None
    overlap: Share


class BesideNetwork(TypedDict, total=False):
    """Describe a network that ran beside the measured one, as its own session tells.

    Attributes:
        name: short name.
        contexts: execution contexts.
        cuda_graph: the inference was captured and replayed as a CUDA graph.
        precision: number of layers by the type in which they compute.
        sm_count: SMs of the device that it may use.
        sm_reached: SMs that a kernel reached.
        sm_total: SMs of the whole device.
        under_mps: the process ran under MPS.
        device_memory_bytes: memory that the session takes on the device, bytes.
        windows: what it got in each window of the measured network, of the last pass.
        mismatch: how what ran differs from what was requested; None if it does not.
    """

    name: str
    contexts: Count | None
    cuda_graph: bool | None
    precision: dict[str, Count] | None
    sm_count: Count | None
    sm_reached: Count | None
    sm_total: Count | None
    under_mps: bool | None
    device_memory_bytes: Bytes | None
    windows: list[BesideWindow]
    mismatch: str | None


class Realised(TypedDict, total=False):
    """Describe what really ran, for the first client. A backend may add keys of its own.

    Attributes:
        precision: number of layers by the type in which they compute.
        cuda_graph: the inference was captured and replayed as a CUDA graph.
        contexts: execution contexts.
        sm_count: SMs of the device.
        sm_reached: SMs that a kernel reached.
        sm_total: SMs of the whole device.
        under_mps: the process ran under MPS.
        build_sm_count: SMs that the build saw.
        clocks_mhz: clocks that were locked, MHz.
        inputs: what was fed: ``samples of FILE (n)``, labelled samples, or random values and their seed.
        input_batches: batches of the user's own samples that the requests took in turn.
        notes: what the table says beside the figures.
        clients: session of each of several clients.
        device: the device, as its driver describes it.
        transfers: inputs and outputs were copied for each request.
        wait: how the host waits for an inference.
        loop: what issued the requests: ``compiled`` code, or ``python``; missing where nothing takes real time.
        knobs: settings of the build that the engine shows.
        kernel_specialization: strategy of TensorRT-RTX.
        tf32: fp32 layers may compute as TF32.
        tf32_override: value of ``NVIDIA_TF32_OVERRIDE``.
        evidence: where ``precision`` was read.
        shapes: engine of each shape of a load of several, the smallest first.
        beside: networks that ran beside this one.
        shape_changes: cost of the first inference after a change between two of them; missing with several clients.
    """

    precision: dict[str, Count] | None
    cuda_graph: bool | None
    contexts: Count | None
    sm_count: Count | None
    sm_reached: Count | None
    sm_total: Count | None
    under_mps: bool | None
    build_sm_count: Count | None
    clocks_mhz: Any
    inputs: str
    input_batches: Count
    notes: list[str]
    clients: list[ClientSession]
    device: dict[str, Any] | None
    transfers: bool | None
    wait: str | None
    loop: str
    knobs: dict[str, Any] | None
    kernel_specialization: str | None
    tf32: bool | None
    tf32_override: str | None
    evidence: str | None
    shapes: list[ShapeEngine]
    beside: list[BesideNetwork]
    shape_changes: list[ShapeChange]
