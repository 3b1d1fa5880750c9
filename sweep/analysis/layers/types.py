"""Type what the analysis of a layer profile returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from sweep.analysis.layers.peaks import Peaks

Category = Literal[
    "gemm",
    "convolution",
    "attention",
    "normalisation",
    "elementwise",
    "reduction",
    "data movement",
    "quantisation",
    "other",
]
CATEGORIES: tuple[Category, ...] = get_args(Category)
PRODUCTS: frozenset[Category] = frozenset({"gemm", "convolution", "attention"})
"""Categories that the share of GEMM time counts: convolutions and attention multiply matrices too."""

Bound = Literal["compute", "memory", "launch", "unknown"]
GEMM_GOAL = 0.9
"""Share of the time that NVIDIA's guide wants in matrix products."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerRow:
    """Hold the figures of one layer.

    Attributes:
        index: its place in ``LayerProfile.layers``.
        name: name that the library gives it.
        kind: its type, in the library's words.
        category: what it does, by the nodes that it computes.
        nodes: names of its ONNX nodes.
        op_kinds: operators of these nodes, each once, in their order.
        added: why the library added a layer that no node asks for; None for a layer of the graph.
        dtype: type in which it computes; None where it is not known.
        time_us: its median duration, us; None where the library reports none.
        p10_us: tenth percentile of it, us.
        p90_us: 90th percentile, us.
        share: its part of the sum of all layers, 0 to 1.
        flops: floating-point operations of an inference, two for each multiply-add; None where they cannot be counted.
        bytes: bytes that it reads and writes; None where a shape or a type is not known.
        tflops: achieved TFLOP/s.
        gb_per_s: achieved GB/s, 1e9 bytes.
        share_of_compute_peak: achieved over the peak of its type, 0 to 1; None without a peak.
        share_of_bandwidth_peak: achieved over the peak of the memory; above 1 where tensors stay in a cache.
        bound: what limits it.
    """

    index: int
    name: str
    kind: str
    category: Category
    nodes: tuple[str, ...]
    op_kinds: tuple[str, ...]
    added: str | None
    dtype: str | None
    time_us: float | None
    p10_us: float | None
    p90_us: float | None
    share: float | None
    flops: float | None
    bytes: int | None
    tflops: float | None
    gb_per_s: float | None
    share_of_compute_peak: float | None
    share_of_bandwidth_peak: float | None
    bound: Bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Hold the figures of the whole engine.

    Attributes:
        layers_us: sum of the layers' median durations, us.
        timed_us: median duration of an inference without a profiler, us.
        rest_us: ``timed_us - layers_us``; negative where layers ran at the same time, or the profiler slowed them.
        rest_name: what the rest is, in a few words.
        rest_share: the rest over ``timed_us``.
        category_us: time by category, us, longest first; categories without a layer are missing.
        gemm_share: part of the layers' time in matrix products, convolutions and attention, 0 to 1.
        flops: operations of an inference; of the layers whose operations are known.
        bytes: bytes of an inference, likewise.
        tflops: ``flops`` over ``timed_us``, TFLOP/s.
        gb_per_s: ``bytes`` over ``timed_us``, GB/s.
        dtype: type in which most of the operations are computed, whose peak the share is of.
        share_of_compute_peak: achieved over the peak of each layer's type, weighted by operations.
        share_of_bandwidth_peak: achieved over the peak of the memory.
        bound: what limits most of the time.
        bound_us: the layers' time by what limits it, us.
        uncounted: timed layers whose operations or bytes are not known.
    """

    layers_us: float
    timed_us: float
    rest_us: float
    rest_name: str
    rest_share: float | None
    category_us: dict[Category, float]
    gemm_share: float | None
    flops: float
    bytes: int
    tflops: float | None
    gb_per_s: float | None
    dtype: str | None
    share_of_compute_peak: float | None
    share_of_bandwidth_peak: float | None
    bound: Bound
    bound_us: dict[Bound, float]
    uncounted: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Hold one finding: where time may be lost, how much, and what to try.

    Attributes:
        kind: name of its rule (``sweep.analysis.layers.RULES``).
        title: one line.
        layers: names of the layers that it is about.
        nodes: names of their nodes that it is about.
        cost_us: time of the layers that it is about, us.
        share: ``cost_us`` over the time of an inference.
        saving_us: time that may be saved, us; None where it cannot be told.
        explanation: what was seen, in one or two sentences.
        advice: what to try: an axis or a graph pass where there is one.
        source: section of NVIDIA's guide, or of the document that it follows.
        small: its share is below the threshold, so that it is listed only on request.
    """

    kind: str
    title: str
    layers: tuple[str, ...]
    nodes: tuple[str, ...]
    cost_us: float
    share: float
    saving_us: float | None
    explanation: str
    advice: str
    source: str
    small: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerAnalysis:
    """Hold what a layer profile shows.

    Attributes:
        rows: the layers, in the order in which they run.
        totals: figures of the engine.
        findings: findings, the most costly first.
        peaks: peaks of the device that shares are of; None for a device without a table.
        notes: what a reader has to know of these figures, in whole sentences.
    """

    rows: list[LayerRow]
    totals: Totals
    findings: list[Finding]
    peaks: Peaks | None
    notes: list[str]
