"""Type the tables inside a record, with the unit and the bounds of every field.

``sweep.storage.record.read`` holds each record that it reads to these types, so whoever takes a value out of a record
needs no check of its own. A key that is ``NotRequired`` is missing in records that an earlier version wrote. None means
that the value is unknown, never zero. A table may hold further keys, which a newer version wrote: they are kept when
the record is rewritten, and nothing reads them.

The bounds are wide: they refuse what no machine produces and no reader could print.
"""

from __future__ import annotations

from typing import Annotated, Any, NotRequired, TypedDict

from msgspec import Meta

from sweep.spec import outcome  # noqa: TC001 - msgspec reads the annotations when the program runs

_INT_MAX = 1 << 62
_FLOAT_MAX = 1e18

# A union of `int` and `float`, because JSON that Python did not write has 2 where Python writes 2.0: a record that is
# rewritten keeps what it had.
_AnyInt = Annotated[int, Meta(ge=-_INT_MAX, le=_INT_MAX)]
_NoNegativeInt = Annotated[int, Meta(ge=0, le=_INT_MAX)]
_PositiveInt = Annotated[int, Meta(ge=1, le=_INT_MAX)]
_NoNegativeFloat = Annotated[float, Meta(ge=0, le=_FLOAT_MAX)]
Number = _AnyInt | Annotated[float, Meta(ge=-_FLOAT_MAX, le=_FLOAT_MAX)]
Count = _NoNegativeInt
Bytes = _NoNegativeInt
Rate = _NoNegativeInt | _NoNegativeFloat
PositiveRate = _PositiveInt | Annotated[float, Meta(gt=0, le=_FLOAT_MAX)]
Milliseconds = _NoNegativeInt | _NoNegativeFloat
Seconds = _NoNegativeInt | _NoNegativeFloat
Share = Annotated[int, Meta(ge=0, le=1)] | Annotated[float, Meta(ge=0, le=1)]
Magnitude = _NoNegativeInt | Annotated[float, Meta(ge=0)]
RateInterval = Annotated[list[PositiveRate], Meta(min_length=2, max_length=2)]
LatencyInterval = Annotated[list[Milliseconds], Meta(min_length=2, max_length=2)]


class Spread(TypedDict):
    """Mean and range of the readings of one quantity, in its unit.

    Attributes:
        mean: mean of the readings.
        min: lowest reading.
        max: highest reading.
    """

    mean: Number
    min: Number
    max: Number


class GpuState(TypedDict):
    """State of the GPU over one or several measured windows.

    Attributes:
        readings: number of readings in the windows.
        power_w: power, W.
        sm_clock_mhz: clock of the SMs, MHz.
        memory_clock_mhz: clock of the memory, MHz.
        temperature_c: temperature, degrees Celsius.
        energy_j: energy over the windows by the GPU's own counter, J.
        samples: samples completed in the windows.
        energy_j_per_sample: energy of one sample, J.
        throttled: whether any reading showed a reason for throttling.
        throttle_reasons: share of the readings that showed each reason, 0 to 1.
        foreign_processes: most processes of others seen on the GPU at once.
        foreign: names of those processes.
        measured_again: why an earlier try of this window was discarded and the window measured again.
        lost: why the readings end before the window does.
    """

    readings: Count
    power_w: Spread | None
    sm_clock_mhz: Spread | None
    memory_clock_mhz: Spread | None
    temperature_c: Spread | None
    energy_j: Number | None
    samples: Count
    energy_j_per_sample: Number | None
    throttled: bool | None
    throttle_reasons: dict[str, Share]
    foreign_processes: Count | None
    foreign: list[str]
    measured_again: str | None
    lost: str | None


class LatencySummary(TypedDict):
    """Latency from the scheduled arrival to the completion, ms. A percentile that the count cannot carry is None.

    Attributes:
        mean: mean over the measured requests.
        p50: median.
        p90: 90th percentile.
        p95: 95th percentile.
        p99: 99th percentile.
        p999: 99.9th percentile.
        max: longest.
    """

    mean: Milliseconds | None
    p50: Milliseconds | None
    p90: Milliseconds | None
    p95: Milliseconds | None
    p99: Milliseconds | None
    p999: Milliseconds | None
    max: Milliseconds | None


class LatencyIntervals(TypedDict):
    """95% intervals of the latency, [low, high] in ms; None where too few requests count as independent.

    Attributes:
        p50: of the median.
        p99: of the 99th percentile.
    """

    p50: LatencyInterval | None
    p99: LatencyInterval | None


class PartTimes(TypedDict):
    """Time of one part of a request over the measured requests, ms.

    Attributes:
        mean: mean.
        p50: median; None where the count cannot carry it.
        p99: 99th percentile; None where the count cannot carry it.
    """

    mean: Number | None
    p50: Number | None
    p99: Number | None


class GpuTimes(TypedDict):
    """Time of each part of a request on the GPU.

    Attributes:
        h2d: copies to the device.
        compute: inference alone.
        d2h: copies back.
    """

    h2d: PartTimes | None
    compute: PartTimes | None
    d2h: PartTimes | None


class ClientFigures(TypedDict):
    """What one of several clients got, in the window in which all of them ran.

    Attributes:
        achieved_ips: throughput, samples/s.
        requests: measured requests.
        p50_ms: median latency, ms.
        p99_ms: 99th percentile of the latency, ms.
        p99_interval: its 95% interval, [low, high] in ms.
    """

    achieved_ips: Rate | None
    requests: Count
    p50_ms: Milliseconds | None
    p99_ms: Milliseconds | None
    p99_interval: LatencyInterval | None


class Fairness(TypedDict):
    """How alike several clients were served.

    Attributes:
        jain: Jain's index of their rates: 1 if all got the same, 1/n if one of n got everything.
        p99_ratio: the worst client's p99 over the best one's.
    """

    jain: Number | None
    p99_ratio: Number | None


class ClosedRate(TypedDict):
    """Throughput of the closed loop.

    Attributes:
        ips: samples/s over all passes.
        interval: its 95% interval, [low, high] in samples/s; None below two batch means.
        batches: batch means behind the interval.
        passes_ips: samples/s of each pass.
    """

    ips: Rate | None
    interval: RateInterval | None
    batches: NotRequired[Count]
    passes_ips: NotRequired[list[Rate | None] | None]


class Shared(TypedDict):
    """What the peak and each point hold of several clients; both keys are missing where there is one.

    Attributes:
        clients: figures of each client, by number.
        fairness: how alike they were served.
    """

    clients: NotRequired[list[ClientFigures]]
    fairness: NotRequired[Fairness]


class Peak(ClosedRate, Shared):
    """The closed loop: every stream always has its next request.

    Attributes:
        ips: samples/s over all passes.
        interval: its 95% interval, [low, high] in samples/s; None below two batch means.
        batches: batch means behind the interval.
        passes_ips: samples/s of each pass.
        requests: measured requests.
        latency_ms: latency, ms.
        gpu_ms: time on the GPU; None where the backend does not time its device.
        enqueue_ms: time of the host for enqueueing an inference, without the copies.
        telemetry: state of the GPU meanwhile; None without one.
        verdict: what the measurement is worth.
        reason: why the verdict is not ``ok``.
        clients: figures of each of several clients.
        fairness: how alike they were served.
    """

    requests: NotRequired[Count]
    latency_ms: NotRequired[LatencySummary]
    gpu_ms: NotRequired[GpuTimes | None]
    enqueue_ms: NotRequired[PartTimes | None]
    telemetry: NotRequired[GpuState | None]
    verdict: outcome.Verdict
    reason: NotRequired[str | None]


class Batching(TypedDict):
    """How full the batches were that the server gathered.

    Attributes:
        mean_batch: mean requests of an inference.
        fill: that over the largest batch, 0 to 1.
    """

    mean_batch: Number
    fill: Number


class PredictionError(TypedDict):
    """Predicted over measured latency, less 1; None where nothing was measured.

    Attributes:
        p50: of the median.
        p99: of the 99th percentile.
    """

    p50: Number | None
    p99: Number | None


class Prediction(TypedDict):
    """Latency of a point as a queue with the measured service times predicts it.

    Attributes:
        p50_ms: median, ms.
        p99_ms: 99th percentile, ms.
        error: how far the prediction is off.
    """

    p50_ms: Milliseconds
    p99_ms: Milliseconds
    error: PredictionError


class IssueLag(TypedDict):
    """The generator's own delay as the first records hold it.

    Attributes:
        p99: 99th percentile, ms.
    """

    p99: Number | None


class Point(Shared):
    """One rate of the open loop; requests arrive by a schedule, whatever the server does.

    Attributes:
        offered_ips: offered rate, samples/s.
        achieved_ips: throughput, samples/s.
        requests: measured requests.
        latency_ms: latency, ms.
        interval: 95% intervals of the latency, ms.
        issue_lag_ms: p99 of the generator's own delay, ms; None where no request met a free stream.
        batching: how full gathered batches were; None where the server gathers none.
        telemetry: state of the GPU meanwhile; None without one.
        verdict: what the measurement is worth.
        reason: why the verdict is not ``ok``.
        prediction: latency that a queue with the measured service times would have.
        clients: figures of each of several clients.
        fairness: how alike they were served.
    """

    offered_ips: Rate
    achieved_ips: Rate | None
    requests: Count
    latency_ms: LatencySummary
    interval: LatencyIntervals
    issue_lag_ms: NotRequired[Number | IssueLag | None]
    batching: NotRequired[Batching | None]
    telemetry: NotRequired[GpuState | None]
    verdict: outcome.Verdict
    reason: NotRequired[str | None]
    prediction: NotRequired[Prediction | None]


class SloProbe(TypedDict):
    """One run of the search for the capacity.

    Attributes:
        kind: ``probe``, or ``confirm`` for a run that is long enough to carry the percentile.
        offered_ips: offered rate, samples/s.
        requests: measured requests.
        over: of them, slower than the limit.
        inflation: requests that count as one, since slow ones come together.
        confidence: that the SLO holds at this rate, 0 to 1.
        verdict: what the run shows.
    """

    kind: str
    offered_ips: Rate
    requests: Count
    over: Count
    inflation: Number
    confidence: Share
    verdict: outcome.SloVerdict


class SloResult(TypedDict):
    """The highest rate that keeps the SLO.

    Attributes:
        percentile: percentile of the SLO in percent, as 99.9.
        limit_ms: its limit, ms.
        capacity_ips: highest rate that held, samples/s; None where none did.
        confidence: that the SLO holds at that rate, 0 to 1.
        next_ips: lowest rate that did not hold, samples/s; None where every rate held.
        monotonic: no higher rate held again.
        confirmed: a run at that very rate confirmed it.
        reason: why there is no capacity, or that the curve is not monotonic.
        probes: runs of the search, in measured order; empty where the rungs of the ladder decided.
    """

    percentile: Number
    limit_ms: Milliseconds
    capacity_ips: Rate | None
    confidence: Share | None
    next_ips: Rate | None
    monotonic: bool
    confirmed: NotRequired[bool]
    reason: NotRequired[str | None]
    probes: NotRequired[list[SloProbe]]


class ModelCost(TypedDict):
    """The network.

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


class AccuracyFigures(TypedDict):
    """Error of outputs, y, against the reference, r, over all float outputs.

    Attributes:
        sqnr_db: 10 log10(|r|^2 / |r - y|^2), dB; None where the two are equal or cannot be compared.
        max_abs: largest |r - y|.
        max_rel: that over the largest |r|.
        cosine: cosine of r and y.
        cosine_centred: cosine of both less the mean of r over the batch.
        top1_agreement: share of samples with the same arg max, 0 to 1.
        nonfinite: number of NaN and Inf in y; None where shapes differ.
    """

    sqnr_db: Number | None
    max_abs: NotRequired[Magnitude | None]
    max_rel: NotRequired[Magnitude | None]
    cosine: NotRequired[Number | None]
    cosine_centred: NotRequired[Number | None]
    top1_agreement: NotRequired[Share | None]
    nonfinite: NotRequired[Count | None]


class RepeatedAccuracy(AccuracyFigures):
    """The worst of many inferences under a further load.

    Attributes:
        streams: number of streams whose outputs were read.
        stream: stream of the worst outputs.
        looks: outputs that were compared.
        wrong: of them, those that are not finite or lost more than 6 dB.
        inferences: inferences that ran meanwhile.
        identical: every bit of all of them equals the first outputs.
        lost_db: SQNR that the worst lost against the first outputs, dB.
        sqnr_db: 10 log10(|r|^2 / |r - y|^2) of the worst outputs, dB.
        max_abs: largest |r - y|.
        max_rel: that over the largest |r|.
        cosine: cosine of r and y.
        cosine_centred: cosine of both less the mean of r over the batch.
        top1_agreement: share of samples with the same arg max, 0 to 1.
        nonfinite: number of NaN and Inf in y; None where shapes differ.
    """

    streams: NotRequired[Count]
    stream: NotRequired[Count]
    looks: NotRequired[Count]
    wrong: NotRequired[Count]
    inferences: NotRequired[Count]
    identical: NotRequired[bool]
    lost_db: NotRequired[Number | None]


class Score(TypedDict):
    """Top-1 on labelled samples.

    Attributes:
        score: share that the engine got right, 0 to 1.
        reference_score: share that fp32 got right, 0 to 1.
        scored_on: which labelled samples.
    """

    score: Share
    reference_score: Share
    scored_on: str


class Accuracy(AccuracyFigures):
    """Accuracy of the session that was timed, against the fp32 graph with the same inputs.

    Attributes:
        reference: what the reference outputs come from.
        note: what a reader of the figures should know.
        sqnr_db: 10 log10(|r|^2 / |r - y|^2), dB; None where the two are equal or cannot be compared.
        max_abs: largest |r - y|.
        max_rel: that over the largest |r|.
        cosine: cosine of r and y.
        cosine_centred: cosine of both less the mean of r over the batch.
        top1_agreement: share of samples with the same arg max, 0 to 1.
        nonfinite: number of NaN and Inf in y; None where shapes differ.
        again: the worst of many inferences under a further load.
        score: top-1 of the engine on labelled samples, 0 to 1.
        reference_score: top-1 of fp32 on the same samples, 0 to 1.
        scored_on: which labelled samples.
    """

    reference: NotRequired[str]
    note: NotRequired[str | None]
    again: NotRequired[RepeatedAccuracy | None]
    score: NotRequired[Share]
    reference_score: NotRequired[Share]
    scored_on: NotRequired[str]


class Drift(TypedDict):
    """Whether the machine stayed the same while the variant was measured.

    Attributes:
        verdict: the outcome.
        reason: by how much the sentinel was off, if it drifted.
        sentinel_key: key of the sentinel's variant.
        stretches: number of the sentinel run before each pass of the variant; None for a pass without one.
        before: the sentinel's samples/s before the worst of these passes.
        after: and after it; None while that run is missing.
    """

    verdict: outcome.DriftVerdict
    reason: str | None
    sentinel_key: NotRequired[str]
    stretches: NotRequired[list[Count | None]]
    before: NotRequired[Rate]
    after: NotRequired[Rate | None]


class ErrorInfo(TypedDict):
    """Why a variant did not end ``ok``.

    Attributes:
        stage: stage of the pipeline that failed.
        kind: name of the error's class.
        message: one line: what was requested, what it met, what to do.
        stderr_tail: last lines that the worker printed.
        gate: of an ``invalid`` variant, the accuracy gate (a field of ``sweep.spec.gates.Gates``) that is not kept;
            None where no gate is at fault.
    """

    stage: str
    kind: NotRequired[str]
    message: str
    stderr_tail: NotRequired[list[str]]
    gate: NotRequired[str | None]


class Calibration(TypedDict):
    """What the ranges of activations were drawn from.

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
    """What a rewriting of the fp32 graph did.

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


class EngineInfo(TypedDict, total=False):
    """The engine and what it cost to make and to load.

    Attributes:
        key: key of its cache entry.
        onnx_key: key of the typed ONNX it was built from.
        build_s: duration of the build, s.
        cached: it was taken from the cache.
        bytes: size on disk, bytes.
        device_memory_bytes: memory that the session takes on the device, bytes.
        context_memory_bytes: of that, memory of one execution context, bytes.
        weights_bytes: size of the weights in the engine, bytes.
        memory: bytes on the device by purpose.
        artifacts: paths of files about the engine, from the sweep's folder.
        load_s: duration of loading, s.
        first_inference_s: duration of the first inference, s.
        convert_s: duration of the conversion to the precision, s.
        onnx_bytes: size of the typed ONNX, bytes.
        onnx_notes: remarks of the conversion.
        guarded: nodes that the range guard kept in fp32.
        calibration: what ranges were drawn from; None where none were.
        graph_pass: what a rewriting of the graph did.
    """

    key: str
    onnx_key: str
    build_s: Seconds | None
    cached: bool
    bytes: Bytes | None
    device_memory_bytes: Bytes | None
    context_memory_bytes: Bytes | None
    weights_bytes: Bytes | None
    memory: dict[str, Any] | None
    artifacts: list[str]
    load_s: Seconds | None
    first_inference_s: Seconds | None
    convert_s: Seconds | None
    onnx_bytes: Bytes | None
    onnx_notes: list[str]
    guarded: list[str]
    calibration: Calibration | None
    graph_pass: GraphPassInfo | None


class ClientSession(TypedDict, total=False):
    """What one of several clients ran with.

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


class Realised(TypedDict, total=False):
    """What really ran, of the first client. A backend may add keys of its own.

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
        notes: what the table says beside the figures.
        clients: of each of several clients.
        device: the device, as its driver describes it.
        transfers: inputs and outputs were copied for each request.
        wait: how the host waits for an inference.
        knobs: settings of the build that the engine shows.
        kernel_specialization: strategy of TensorRT-RTX.
        tf32: fp32 layers may compute as TF32.
        tf32_override: value of ``NVIDIA_TF32_OVERRIDE``.
        evidence: where ``precision`` was read.
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
    notes: list[str]
    clients: list[ClientSession]
    device: dict[str, Any] | None
    transfers: bool | None
    wait: str | None
    knobs: dict[str, Any] | None
    kernel_specialization: str | None
    tf32: bool | None
    tf32_override: str | None
    evidence: str | None


class Facts(TypedDict, total=False):
    """What a comparison must agree on; a backend adds the versions of its libraries.

    Attributes:
        gpu: name of the GPU.
        gpu_uuid: UUID of the GPU where several were there.
        compute_capability: of the GPU.
        driver: version of the GPU's driver.
        cuda: version of CUDA that the driver supports.
        cuda_bindings: version of CUDA's Python bindings.
        tensorrt: TensorRT or TensorRT-RTX with its version.
        onnxruntime: version of onnxruntime.
        simulated: version of the simulated backend.
        cpu: name of the CPU.
        cores: logical cores.
        memory_bytes: memory of the host, bytes.
        host: name of the host.
        os: operating system.
        python: version of Python.
        numpy: version of numpy.
        onnx: version of onnx.
        sweep: version of this package.
        git: revision of the source; None outside a checkout.
    """

    gpu: str | None
    gpu_uuid: str | None
    compute_capability: str | None
    driver: str | None
    cuda: str | None
    cuda_bindings: str | None
    tensorrt: str | None
    onnxruntime: str | None
    simulated: str | None
    cpu: str | None
    cores: Count | None
    memory_bytes: Bytes | None
    host: str | None
    os: str | None
    python: str | None
    numpy: str | None
    onnx: str | None
    sweep: str | None
    git: str | None


class RecipeFields(TypedDict, total=False):
    """What every recipe of a precision has; its further keys are those of ``sweep.spec.Precision``.

    Attributes:
        name: name of the recipe.
        dtype: type that the graph is to compute in.
    """

    name: str
    dtype: str


class DataFields(TypedDict):
    """Data of the user's: for calibration, or labelled.

    Attributes:
        name: name of the user's function; None for files.
        path: path of the files; None for a function.
    """

    name: str | None
    path: str | None


class LoadFields(TypedDict, total=False):
    """What readers use of the load; its further keys are those of ``sweep.spec.LoadAxes``.

    Attributes:
        kind: kind of the load.
        depth: requests that a stream of the closed loop keeps in flight.
        trace: path of recorded arrivals.
        labels: labelled data.
    """

    kind: str
    depth: Count
    trace: str | None
    labels: DataFields | None


class VariantFields(TypedDict):
    """What readers use of a variant; its further keys are the axes (``sweep.spec.flat``).

    Attributes:
        label: name of the variant within its sweep.
        backend: name of the backend.
        model: name of the network.
        precision: name of the precision.
        precision_recipe: how the graph gets that precision.
        calibration: the user's own data for calibration.
        batch: samples of a request.
        streams: streams that run at the same time.
        clients: processes that run at the same time.
        repeats: passes.
        load: how it is driven.
    """

    label: str
    backend: NotRequired[str]
    model: NotRequired[str]
    precision: NotRequired[str]
    precision_recipe: NotRequired[RecipeFields]
    calibration: NotRequired[DataFields | None]
    batch: NotRequired[Count]
    streams: NotRequired[Count | None]
    clients: NotRequired[Count | None]
    repeats: NotRequired[Count]
    load: NotRequired[LoadFields | None]
