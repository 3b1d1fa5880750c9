"""Word times, rates and names of layers, for the terminal and the pages alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sweep.report.layers.names import ADDED, name_parts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.analysis.layers import Finding, LayerAnalysis, LayerRow
    from sweep.report.layers.profiles import Source

_SOURCES = {
    "cupti": "Kernels timed by the GPU's own clock (CUPTI)",
    "library": "Layers timed by the library's profiler, events around each",
    "onnxruntime": "Nodes timed by onnxruntime's profiler, on the host's clock",
}
_ELLIPSIS = "…"
_NOTHING = 1e-3  # share of an inference below which a rest is not worth a word


def headline(source: Source) -> str:
    """Return what the profile is of: the variant, the device, the backend."""
    profile = source.profile
    device = f" on {profile['device']}" if profile["device"] else ""
    return f"{profile['label']}{device} ({profile['backend']})"


def balance(source: Source) -> str:
    """Return the time of an inference against the sum of its layers, and what the rest is."""
    totals, count = source.analysis.totals, len(source.profile["layers"])
    timed, layers, rest = amount(totals.timed_us), amount(totals.layers_us), totals.rest_us
    text = f"An inference takes {timed} us, its {count} layers {layers} us"
    if abs(rest) < _NOTHING * totals.timed_us:
        return f"{text}: all of it."
    share = f" ({abs(totals.rest_share):.0%})" if totals.rest_share is not None else ""
    if rest >= 0:
        return f"{text}; the other {amount(rest)} us{share}: {totals.rest_name}."
    return f"{text}, {amount(-rest)} us{share} more: {totals.rest_name}."


def timing(source: Source) -> str:
    """Return how the layers were timed."""
    profile = source.profile
    graph = "replays of a CUDA graph" if profile["cuda_graph"] else "inferences"
    how = _SOURCES.get(profile["source"], profile["source"])
    cost = profile["layer_cost_us"]
    subtracted = f"; {cost:.3g} us that the profiler adds to each are subtracted" if cost else ""
    return f"{how}, medians of {profile['inferences']:,} {graph}{subtracted}."


def notes(source: Source) -> list[str]:
    """Return what a reader has to know, without what ``balance`` says."""
    analysis = source.analysis
    own = [note for note in analysis.notes if analysis.totals.rest_name not in note]
    return [*source.profile["notes"], *own]


def rates(analysis: LayerAnalysis) -> str | None:
    """Return what the whole engine achieves against the peaks of its device; None where nothing could be counted."""
    totals = analysis.totals
    parts = []
    if totals.tflops:
        share = f" ({totals.share_of_compute_peak:.1%} of the peak)" if totals.share_of_compute_peak else ""
        parts.append(f"{totals.tflops:.3g} TFLOP/s{share}")
    if totals.gb_per_s:
        share = f" ({totals.share_of_bandwidth_peak:.1%} of the peak)" if totals.share_of_bandwidth_peak else ""
        parts.append(f"{totals.gb_per_s:,.3g} GB/s{share}")
    if not parts:
        return None
    bound = {"compute": "compute", "memory": "memory", "launch": "launches"}.get(totals.bound)
    tail = f"; most of the time is bound by {bound}" if bound else ""
    known = analysis.peaks is not None and (totals.share_of_compute_peak or totals.share_of_bandwidth_peak)
    source = f" Peaks: {analysis.peaks.source}." if analysis.peaks is not None and known else ""
    return f"The engine achieves {' and '.join(parts)}{tail}.{source}"


def gemm(analysis: LayerAnalysis) -> str | None:
    """Return the share of the time in matrix products against the goal of NVIDIA's guide."""
    from sweep.analysis.layers import GEMM_GOAL

    share = analysis.totals.gemm_share
    if share is None:
        return None
    word = "reaches" if share >= GEMM_GOAL else "misses"
    return f"{share:.0%} of the layers' time is in matrix products, which {word} the goal of {GEMM_GOAL:.0%}."


def amount(value: float) -> str:
    """Return a number of us with the digits that a person reads: ``8.31``, ``25.0``, ``210``, ``12,400``."""
    size = abs(value)
    for least, decimals in ((100, 0), (10, 1), (1, 2)):
        if round(size, decimals) >= least:
            return f"{value:,.{decimals}f}"
    return f"{value:.3g}"


def us(value: float) -> str:
    """Return a time with its unit: ``8.31 us``, ``210 us``."""
    return f"{amount(value)} us"


def rate(value: float) -> str:
    """Return TFLOP/s or GB/s within seven characters; what is close to nothing is told as that."""
    return "<0.001" if 0 < value < 1e-3 else amount(value)  # noqa: PLR2004


def layer_text(row: LayerRow) -> str:
    """Return what a layer is called: the nodes that it computes, their common scope once; else its own name."""
    if not row.nodes:
        return f"({ADDED.get(row.added or '', row.kind)}) {row.name}"
    return nodes_text(row.nodes)


def places(source: Source, finding: Finding) -> list[str]:
    """Return what a finding is about: its nodes, else its layers by the nodes that they compute."""
    if finding.nodes:
        return list(finding.nodes)
    rows = {row.name: row for row in source.analysis.rows}
    return [layer_text(rows[name]) if name in rows else name for name in finding.layers]


def nodes_text(nodes: Sequence[str]) -> str:
    """Return the names of nodes with their common scope once: ``layer0.attention.{key.matmul, value.matmul}``."""
    if len(nodes) == 1:
        return nodes[0]
    parts = [name_parts(node) for node in nodes]
    shared = 0
    while all(len(part) > shared + 1 for part in parts) and len({part[shared] for part in parts}) == 1:
        shared += 1
    cut = _prefix(nodes[0], shared)
    if not cut or not all(node.startswith(cut) for node in nodes):
        return " + ".join(nodes)
    return f"{cut}{{{', '.join(node[len(cut) :] for node in nodes)}}}"


def fitted(row: LayerRow, width: int) -> str:
    """Return ``layer_text`` within `width` characters: fewer nodes first, then without the middle of the name."""
    text = layer_text(row)
    if len(text) <= width or not row.nodes:
        return clipped(text, width)
    more = len(row.nodes) - 1
    tail = f" +{more}" if more else ""
    return clipped(row.nodes[0], width - len(tail)) + tail


def clipped(text: str, width: int) -> str:
    """Return `text` within `width` characters, with an ellipsis in its middle; its end tells the most."""
    if len(text) <= width:
        return text
    head = max((width - 1) // 3, 0)
    return f"{text[:head]}{_ELLIPSIS}{text[len(text) - (width - 1 - head) :]}"


def types_text(source: Source, row: LayerRow) -> str:
    """Return the types that a layer reads and writes: ``fp16``, or ``fp32 > int8`` where they differ."""
    layer = source.profile["layers"][row.index]
    read, written = (
        "/".join(dict.fromkeys(tensor["dtype"] for tensor in layer[side] if tensor["dtype"]))
        for side in ("inputs", "outputs")
    )
    return read if read == written or not written else f"{read} > {written}" if read else written


def _prefix(name: str, parts: int) -> str:
    """Return the start of `name` that holds its first `parts` parts and the separator behind them."""
    if not parts:
        return ""
    seen, inside = 0, False
    for place, letter in enumerate(name):
        if letter in "/.":
            if inside:
                seen += 1
                inside = False
                if seen == parts:
                    return name[: place + 1]
        else:
            inside = True
    return ""
