"""Type the load curve: the peak of the closed loop and the points of the open loop."""

from __future__ import annotations

from typing import NotRequired, TypedDict

from sweep.spec import outcome
from sweep.storage.record_types.gpu_state import GpuState
from sweep.storage.record_types.latency import GpuTimes, IndependentCounts, LatencyIntervals, LatencySummary, PartTimes
from sweep.storage.record_types.values import Count, LatencyInterval, Milliseconds, Number, Rate, RateInterval, Share


class ClientFigures(TypedDict):
    """Summarise the service that one of several clients received, in the window in which all of them ran.

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
    """Compare the service that several clients received.

    Attributes:
        jain: Jain's index of their rates: 1 if all got the same, 1/n if one of n got everything.
        p99_ratio: the worst client's p99 over the best one's.
    """

    jain: Number | None
    p99_ratio: Number | None


class ClosedRate(TypedDict):
    """Give the throughput of the closed loop.

    Attributes:
        ips: samples/s over all passes.
        interval: its 95% interval, [low, high] in samples/s; None where too few completions count as independent.
        batches: batch means behind the interval.
        passes_ips: samples/s of each pass.
    """

    ips: Rate | None
    interval: RateInterval | None
    batches: NotRequired[Count]
    passes_ips: NotRequired[list[Rate | None] | None]


class Shared(TypedDict):
    """Add the figures of several clients to the peak and to each point; both keys are missing for a single client.

    Attributes:
        clients: figures of each client, by number.
        fairness: comparison of the service that they received.
    """

    clients: NotRequired[list[ClientFigures]]
    fairness: NotRequired[Fairness]


class ShapeFigures(TypedDict):
    """Summarise the requests that one engine of a load of several shapes served.

    Attributes:
        shape: shape of the engine, as ``seq:128``; requests of smaller shapes were padded to it.
        requests: measured requests.
        share: share of the measured requests.
        padding: share of the elements that it computed which were padding.
        latency_ms: latency, ms.
    """

    shape: str
    requests: Count
    share: Share
    padding: Share
    latency_ms: LatencySummary


class Shaped(TypedDict):
    """Add the figures of a load of several shapes to the peak and to each point; missing for a single shape.

    Attributes:
        shapes: figures of each engine that served a request, the smallest shape first.
        padding: share of all computed elements that were padding.
    """

    shapes: NotRequired[list[ShapeFigures]]
    padding: NotRequired[Share]


class StageFigures(TypedDict):
    """Summarise one stage of a pipeline.

    Attributes:
        stage: name of the stage.
        runs: times that it runs in a request.
        share: its share of the mean latency of a request, which includes the wait for the server.
        latency_ms: time of all its runs in a request, ms.
    """

    stage: str
    runs: Count
    share: Share
    latency_ms: LatencySummary


class StageRest(TypedDict):
    """Share out what the stages leave of the mean latency of a request.

    Attributes:
        queue_ms: wait for a free stream, ms.
        copies_ms: copies to the device and back, ms; 0 where they are not timed.
        other_ms: all else, ms: waits for a stage that another request is in, and the host between stages. Below 0 by
            what the clocks of host and device differ.
    """

    queue_ms: Number
    copies_ms: Number
    other_ms: Number


class Staged(TypedDict):
    """Add the figures of a pipeline to the peak and to each point; missing for one network.

    Attributes:
        stages: figures of each stage, in order.
        stage_rest: what the stages leave of the mean latency.
    """

    stages: NotRequired[list[StageFigures]]
    stage_rest: NotRequired[StageRest]


class CpuLoad(TypedDict):
    """Share out the time of the cores that the sweep may run on; the rest was idle.

    Attributes:
        own: share that the sweep and its workers used, 0 to 1.
        other: share that other programs used.
    """

    own: Share
    other: Share


class Peak(ClosedRate, Shared, Shaped, Staged):
    """Summarise the closed loop, in which every stream always has its next request.

    Attributes:
        ips: samples/s over all passes.
        interval: its 95% interval, [low, high] in samples/s; None where too few completions count as independent.
        batches: batch means behind the interval.
        passes_ips: samples/s of each pass.
        start_cv: standard deviation of the log throughput between starts of one engine; None where none was started
            twice; missing for a single pass.
        build_cv: the same between engines that were built afresh, without what their starts differ by; with it where
            each was started once. None where one engine served every pass; missing for a single pass.
        requests: measured requests.
        latency_ms: latency, ms.
        p99_interval: 95% interval of the 99th percentile, [low, high] in ms; None where too few requests count as
            independent.
        gpu_ms: time on the GPU; None where the backend does not time its device.
        enqueue_ms: time of the host for enqueueing an inference, without the copies.
        telemetry: state of the GPU meanwhile; None without one.
        cpu_load: use of the cores meanwhile; None where it was not measured.
        verdict: what the measurement is worth.
        reason: why the verdict is not ``ok``.
        clients: figures of each of several clients.
        fairness: comparison of the service that they received.
        shapes: figures of each engine of a load of several shapes.
        padding: share of all computed elements that were padding.
        stages: figures of each stage of a pipeline.
        stage_rest: what the stages leave of the mean latency.
    """

    start_cv: NotRequired[Number | None]
    build_cv: NotRequired[Number | None]
    requests: NotRequired[Count]
    latency_ms: NotRequired[LatencySummary]
    p99_interval: NotRequired[LatencyInterval | None]
    gpu_ms: NotRequired[GpuTimes | None]
    enqueue_ms: NotRequired[PartTimes | None]
    telemetry: NotRequired[GpuState | None]
    cpu_load: NotRequired[CpuLoad | None]
    verdict: outcome.Verdict
    reason: NotRequired[str | None]


class Batching(TypedDict):
    """Describe how full the batches were that the server gathered.

    Attributes:
        mean_batch: mean requests of an inference.
        fill: that over the largest batch, 0 to 1.
    """

    mean_batch: Number
    fill: Number


class PredictionError(TypedDict):
    """Give predicted over measured latency, less 1; None where nothing was measured.

    Attributes:
        p50: of the median.
        p99: of the 99th percentile.
    """

    p50: Number | None
    p99: Number | None


class Prediction(TypedDict):
    """Predict the latency of a point from a queue with the measured service times.

    Attributes:
        p50_ms: median, ms.
        p99_ms: 99th percentile, ms.
        error: how far the prediction is off.
    """

    p50_ms: Milliseconds
    p99_ms: Milliseconds
    error: PredictionError


class IssueLag(TypedDict):
    """Give the load generator's own delay in the form of the first records.

    Attributes:
        p99: 99th percentile, ms.
    """

    p99: Number | None


class Point(Shared, Shaped, Staged):
    """Summarise one rate of the open loop, in which requests arrive by a schedule that ignores the server.

    Attributes:
        offered_ips: offered rate, samples/s.
        achieved_ips: throughput, samples/s.
        requests: measured requests.
        latency_ms: latency, ms.
        interval: 95% intervals of the latency, ms.
        independent: requests that count as independent, by percentile.
        issue_lag_ms: p99 of the generator's own delay, ms; None where no request met a free stream.
        batching: how full gathered batches were; None where the server gathers none.
        telemetry: state of the GPU meanwhile; None without one.
        cpu_load: use of the cores meanwhile; None where it was not measured.
        verdict: what the measurement is worth.
        reason: why the verdict is not ``ok``.
        prediction: latency that a queue with the measured service times would have.
        clients: figures of each of several clients.
        fairness: comparison of the service that they received.
        shapes: figures of each engine of a load of several shapes.
        padding: share of all computed elements that were padding.
        stages: figures of each stage of a pipeline.
        stage_rest: what the stages leave of the mean latency.
    """

    offered_ips: Rate
    achieved_ips: Rate | None
    requests: Count
    latency_ms: LatencySummary
    interval: LatencyIntervals
    independent: NotRequired[IndependentCounts]
    issue_lag_ms: NotRequired[Number | IssueLag | None]
    batching: NotRequired[Batching | None]
    telemetry: NotRequired[GpuState | None]
    cpu_load: NotRequired[CpuLoad | None]
    verdict: outcome.Verdict
    reason: NotRequired[str | None]
    prediction: NotRequired[Prediction | None]
