"""Analyse a layer profile: the figures of each layer and of the engine, held against the peaks of the device."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from sweep.analysis.layers import costs
from sweep.analysis.layers.findings import find
from sweep.analysis.layers.graph import Graph
from sweep.analysis.layers.peaks import peaks_of
from sweep.analysis.layers.types import PRODUCTS, LayerAnalysis, LayerRow, Totals

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.analysis.layers.peaks import Peaks
    from sweep.analysis.layers.types import Bound, Category
    from sweep.storage import LayerProfile

LAUNCH_US = 5.0
"""Duration below which a kernel may be short because starting and ending it takes that long."""
NEAR_ROOF = 0.3
"""Share of a peak above which a short layer is bound by that peak, not by its launch."""
_REST = 0.05
_CLOCK = 0.95


def analyse(
    profile: LayerProfile, peaks: Peaks | None = None, *, threshold: float = 0.01, every: bool = False
) -> LayerAnalysis:
    """Analyse a layer profile.

    Args:
        profile: the profile.
        peaks: measured peaks of its device; those of the data sheet of its GPU where None.
        threshold: share of an inference's time below which a finding is small.
        every: list small findings too.
    """
    graph = Graph(profile)
    peaks = peaks if peaks is not None else peaks_of(profile["device"])
    rows = _rows(graph, peaks)
    totals = _totals(profile, rows, peaks)
    found = find(graph, rows, totals, peaks, threshold)
    findings = [finding for finding in found if every or not finding.small]
    return LayerAnalysis(rows=rows, totals=totals, findings=findings, peaks=peaks, notes=_notes(profile, totals, peaks))


def _rows(graph: Graph, peaks: Peaks | None) -> list[LayerRow]:
    layers = graph.profile["layers"]
    layers_us = sum(layer["time"]["median_us"] for layer in layers if layer["time"] is not None)
    return [_row(graph, place, peaks, layers_us) for place in range(len(layers))]


def _row(graph: Graph, place: int, peaks: Peaks | None, layers_us: float) -> LayerRow:
    layer = graph.profile["layers"][place]
    time = layer["time"]
    time_us = None if time is None else float(time["median_us"])
    kind = costs.category(graph, place)
    dtype = costs.compute_dtype(graph, place)
    if dtype == "fp32" and kind in PRODUCTS and "tf32" in graph.profile["precision"]:
        dtype = "tf32"
    flops, size = costs.layer_flops(graph, place), costs.layer_bytes(graph, place)
    known = [name for name in dict.fromkeys(layer["nodes"]) if name in graph.nodes]
    compute = None if peaks is None else peaks.of_type(dtype if kind in PRODUCTS else "fp32")
    tflops, gb_per_s = _rate(flops, time_us, 1e6), _rate(size, time_us, 1e3)
    mapping = compute is None and kind not in PRODUCTS  # an operation for each element is no matter beside its bytes
    compute_share, memory_share = _over(tflops, compute), _over(gb_per_s, None if peaks is None else peaks.gb_per_s)
    return LayerRow(
        index=place,
        name=layer["name"],
        kind=layer["kind"],
        category=kind,
        nodes=tuple(dict.fromkeys(layer["nodes"])),
        op_kinds=tuple(dict.fromkeys(graph.nodes[name]["op"] for name in known)),
        added=layer["added"],
        dtype=dtype,
        time_us=time_us,
        p10_us=None if time is None else float(time["p10_us"]),
        p90_us=None if time is None else float(time["p90_us"]),
        share=_over(time_us, layers_us),
        flops=flops,
        bytes=size,
        tflops=tflops,
        gb_per_s=gb_per_s,
        share_of_compute_peak=compute_share,
        share_of_bandwidth_peak=memory_share,
        bound=_bound(time_us, 0.0 if mapping else compute_share, memory_share, graph.profile["source"]),
    )


def _rate(amount: float | None, time_us: float | None, per_us: float) -> float | None:
    """Return an amount over a time, in units of `per_us` a us; None where one is not known."""
    return None if amount is None or not time_us else amount / time_us / per_us


def _over(value: float | None, whole: float | None) -> float | None:
    return None if value is None or not whole else value / whole


def _bound(time_us: float | None, compute: float | None, memory: float | None, source: str) -> Bound:
    """Return what limits a layer: of a short one that is far from both roofs, its launch."""
    if time_us is None:
        return "unknown"
    nearest = max((share for share in (compute, memory) if share is not None), default=None)
    if source != "onnxruntime" and time_us < LAUNCH_US and (nearest is None or nearest < NEAR_ROOF):
        return "launch"
    if compute is None or memory is None:
        return "unknown"
    return "compute" if compute >= memory else "memory"


def _totals(profile: LayerProfile, rows: Sequence[LayerRow], peaks: Peaks | None) -> Totals:
    by_category: dict[Category, float] = defaultdict(float)
    by_bound: dict[Bound, float] = defaultdict(float)
    by_dtype: dict[str, float] = defaultdict(float)
    for row in rows:
        by_category[row.category] += row.time_us or 0.0
        by_bound[row.bound] += row.time_us or 0.0
        if row.dtype is not None and row.category in PRODUCTS:
            by_dtype[row.dtype] += row.flops or 0.0
    layers_us, timed_us = sum(by_category.values()), float(profile["timed_us"])
    rest_us = timed_us - layers_us
    flops, size = sum(row.flops or 0.0 for row in rows), sum(row.bytes or 0 for row in rows)
    products = sum(by_category[name] for name in PRODUCTS if name in by_category)
    tflops, gb_per_s = _rate(flops, timed_us, 1e6), _rate(size, timed_us, 1e3)
    ideal_us = [_ideal_us(row) for row in rows if row.flops and row.time_us]
    known_us = [value for value in ideal_us if value is not None]
    return Totals(
        layers_us=layers_us,
        timed_us=timed_us,
        rest_us=rest_us,
        rest_name=_rest_name(profile, rest_us),
        rest_share=_over(rest_us, timed_us),
        category_us=dict(sorted(by_category.items(), key=lambda item: -item[1])),
        gemm_share=_over(products, layers_us),
        flops=flops,
        bytes=size,
        tflops=tflops,
        gb_per_s=gb_per_s,
        dtype=max(by_dtype, key=lambda name: by_dtype[name]) if by_dtype else None,
        share_of_compute_peak=_over(sum(known_us), timed_us) if known_us and len(known_us) == len(ideal_us) else None,
        share_of_bandwidth_peak=_over(gb_per_s, None if peaks is None else peaks.gb_per_s),
        bound=_whole_bound(by_bound, rest_us),
        bound_us=dict(by_bound),
        uncounted=sum(row.time_us is not None and (row.flops is None or row.bytes is None) for row in rows),
    )


def _ideal_us(row: LayerRow) -> float | None:
    """Return the time of a layer at the peak of its type, us."""
    if row.share_of_compute_peak is None or row.time_us is None:
        return None
    return row.share_of_compute_peak * row.time_us


def _whole_bound(by_bound: dict[Bound, float], rest_us: float) -> Bound:
    """Return what limits most of an inference; the time between layers is that of launches."""
    if not by_bound or max(by_bound, key=lambda name: by_bound[name]) == "unknown":
        return "unknown"
    times = {**by_bound, "launch": by_bound.get("launch", 0.0) + max(rest_us, 0.0)}
    return max(times, key=lambda name: times[name])


def _rest_name(profile: LayerProfile, rest_us: float) -> str:
    if rest_us < 0:
        streams = {layer["stream"] for layer in profile["layers"]} - {None}
        return "layers that ran at the same time" if len(streams) > 1 else "what the profiler adds to the layers"
    if profile["source"] == "onnxruntime":
        return "onnxruntime's own work between nodes"
    if profile["cuda_graph"]:
        return "gaps between the kernels of the graph"
    return "gaps between kernels, and their launches"


def _notes(profile: LayerProfile, totals: Totals, peaks: Peaks | None) -> list[str]:
    notes = []
    if totals.rest_share is not None and abs(totals.rest_share) > _REST:
        notes.append(
            f"The layers take {totals.layers_us:,.0f} us of {totals.timed_us:,.0f} us; the rest of "
            f"{totals.rest_us:,.0f} us is {totals.rest_name}."
        )
    if peaks is None:
        device = profile["device"] or "the device"
        notes.append(
            f"The peaks of {device} are not known: achieved figures stand without shares; doctor --peaks measures them."
        )
    clock = profile.get("clock_share")
    if peaks is not None and not peaks.measured and clock is not None and clock < _CLOCK:
        notes.append(f"The SM clock was at {clock:.0%} of its maximum; the peaks are those of {peaks.source}.")
    if totals.uncounted:
        notes.append(f"{totals.uncounted} layers have no count of operations or bytes, for want of shapes.")
    return notes
