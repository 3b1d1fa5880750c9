"""Name what limits a variant, with the figures that decided and the experiment of ours that would move it.

The rules take the figures of one record alone, in the order in which one hides another: a GPU that waits for its host
says nothing of itself. Their bounds come from 368 closed loops of an H200 (docs/evidence/bottleneck.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from sweep.analysis.layers.throughput import share_of_peak

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sweep.storage import Record


class Limit(StrEnum):
    """Name what limits a variant."""

    HOST = "host enqueue"
    CPU_CROWDED = "CPU crowded"
    TRANSFERS = "transfers"
    POWER = "clocks/power"
    LAUNCHES = "launches"
    COMPUTE = "compute"
    MEMORY = "memory"
    GPU = "compute or memory"
    THREADS = "CPU threads"
    QUEUEING = "queueing"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bottleneck:
    """Hold what limits a variant.

    Attributes:
        limit: its name.
        evidence: the figures that decided, in a few words each; for an unknown limit, what is missing.
        experiments: settings that would move it, as words of a command line; empty where there is none.
    """

    limit: Limit
    evidence: tuple[str, ...]
    experiments: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """Return all of it in one line."""
        tries = f"; try {', or '.join(self.experiments)}" if self.experiments else ""
        return f"{self.limit} ({'; '.join(self.evidence)}){tries}"


_SIMULATED = "simulated"
LAUNCH = "launch"  # of layers: kernels that end before they could fill the GPU

_HOST_BUSY = 0.8  # of the time of the thread that enqueues; from here on a graph gave a tenth and more
_LINK_BUSY = 0.7  # of the time, by copies in one direction over all streams
_COPIES = 0.2  # of an inference on one stream, which a second one would hide behind its compute
_CAPPED = 0.3  # of the readings
_NOT_FULL = 0.5  # of the board's power, below which a second stream gave a fifth and more
_NEARLY_FULL = 0.75  # of the board's power, above which a second stream gave next to nothing
_FULL = 0.9  # of the board's power
_OF_PEAK = 0.5  # of the dense peak of the type, that only a GPU whose products are its limit reaches
_CROWD = 0.15  # of the cores, by other programs
_CORES_BUSY = 0.85  # of the cores, by our own
_OWN_CORE = 0.9  # of a core, that a thread which computes uses
_WAITING = 0.7  # of the peak: a capacity below it is due to waiting, if the service itself keeps the limit
_SERVICE = 0.5  # of the limit, that the unloaded latency takes at most for that

# Limits of the boards' power, W, as their data sheets give them (maximum of a configurable one); by NVML's name.
_BOARD_W: Mapping[str, float] = {
    "NVIDIA B200": 1000.0,
    "NVIDIA H200 NVL": 600.0,
    "NVIDIA H200": 700.0,
    "NVIDIA H100 NVL": 400.0,
    "NVIDIA H100 PCIe": 350.0,
    "NVIDIA H100": 700.0,  # of SXM5: "NVIDIA H100 80GB HBM3"
    "NVIDIA A100-SXM4": 400.0,
    "NVIDIA A100 80GB PCIe": 300.0,
    "NVIDIA A100-PCIE": 250.0,
    "NVIDIA L40S": 350.0,
    "NVIDIA L40": 300.0,
    "NVIDIA L4": 72.0,
    "NVIDIA A10": 150.0,
    "Tesla T4": 70.0,
    "Tesla V100-SXM2": 300.0,
    "NVIDIA GeForce RTX 5090": 575.0,
    "NVIDIA GeForce RTX 4090": 450.0,
    "NVIDIA RTX 6000 Ada Generation": 300.0,
}


class _Figures(NamedTuple):
    """Hold the figures that the rules read; shares are of 1, and None where nothing was measured.

    Attributes:
        record: the record.
        host: share of the time that the thread which enqueues spends in it.
        enqueue_ms: host time of an enqueue, ms.
        period_ms: time between two inferences of one process, ms.
        h2d_ms, compute_ms, d2h_ms: time on the GPU of an inference's parts, ms.
        streams: streams of all clients.
        graph: a CUDA graph ran.
        power: power over the board's limit.
        watts: mean power, W.
    """

    record: Record
    host: float | None
    enqueue_ms: float | None
    period_ms: float
    h2d_ms: float
    compute_ms: float | None
    d2h_ms: float
    streams: int
    graph: bool
    power: float | None
    watts: float | None

    @property
    def copies(self) -> float | None:
        """Return the share of the copies in an inference on the GPU."""
        if self.compute_ms is None:
            return None
        whole = self.h2d_ms + self.compute_ms + self.d2h_ms
        return (self.h2d_ms + self.d2h_ms) / whole if whole > 0 else None


def find_bottleneck(record: Record) -> Bottleneck | None:
    """Return what limits a variant; None where no throughput was measured, or nothing computes.

    Args:
        record: of the variant; the profile of its layers, where it has one, tells compute from memory.
    """
    peak = record.peak
    if peak is None or not peak["ips"] or record.variant.get("backend") == _SIMULATED:
        return None
    waiting = _queueing(record)
    if waiting is not None:
        return waiting
    figures = _figures(record, peak)
    if figures.compute_ms is None:
        return _on_cpu(record)
    rules: tuple[Callable[[_Figures], Bottleneck | None], ...] = (_host, _transfers, _power)
    for rule in rules:
        answer = rule(figures)
        if answer is not None:
            return answer
    profiled = None if record.engine is None else record.engine.get("layers")
    return _on_gpu(figures, None if profiled is None else profiled["bound"])


def _figures(record: Record, peak: Any) -> _Figures:
    gpu_ms = peak.get("gpu_ms") or {}

    def part(name: str) -> float | None:
        return _typical(gpu_ms.get(name))

    streams, clients = _count(record, "streams"), _count(record, "clients")
    period_ms = _count(record, "batch") * clients / peak["ips"] * 1e3
    enqueue_ms = _typical(peak.get("enqueue_ms"))
    watts = _watts(peak)
    board_w = _board_w(record)
    return _Figures(
        record=record,
        host=None if enqueue_ms is None else min(enqueue_ms / period_ms, 1.0),
        enqueue_ms=enqueue_ms,
        period_ms=period_ms,
        h2d_ms=part("h2d") or 0.0,
        compute_ms=part("compute"),
        d2h_ms=part("d2h") or 0.0,
        streams=streams * clients,
        graph=bool((record.realised or {}).get("cuda_graph")),
        power=None if watts is None or board_w is None else watts / board_w,
        watts=watts,
    )


def _typical(part: Any) -> float | None:
    """Return the median of a part, or its mean where too few requests carry a median, ms."""
    if not part:
        return None
    value = part["mean"] if part["p50"] is None else part["p50"]
    return None if value is None else float(value)


def _watts(peak: Any) -> float | None:
    """Return the mean power of the closed loop, W.

    By the energy counter where there is one: the power that NVML reads is a mean over the second before.
    """
    state = peak.get("telemetry") or {}
    energy_j = state.get("energy_j_per_sample")
    if energy_j:
        return float(energy_j * peak["ips"])
    power = state.get("power_w")
    return None if not power else float(power["mean"])


def _board_w(record: Record) -> float | None:
    """Return the limit of the board's power, W; None if unknown.

    Records of earlier versions do not have it: there the data sheet of the longest name that the GPU's begins with.
    """
    facts: Any = dict(record.facts)
    if facts.get("power_limit_w"):
        return float(facts["power_limit_w"])
    names = [name for name in _BOARD_W if str(facts.get("gpu")).startswith(name)]
    return _BOARD_W[max(names, key=len)] if names else None


def _host(figures: _Figures) -> Bottleneck | None:
    if figures.host is None or figures.host < _HOST_BUSY:
        return None
    busy = (
        f"enqueueing takes {figures.enqueue_ms:.3g} ms of the host, {figures.host:.0%} of the "
        f"{figures.period_ms:.3g} ms between two inferences"
    )
    other = _others(figures.record)
    if other is not None and other >= _CROWD:
        crowd = f"other programs used {other:.0%} of the cores"
        return Bottleneck(
            limit=Limit.CPU_CROWDED, evidence=(busy, crowd), experiments=("the same once they have ended",)
        )
    if figures.graph:
        return Bottleneck(limit=Limit.HOST, evidence=(f"{busy}, with a CUDA graph",), experiments=(_more(figures),))
    second = " streams=2" if figures.streams == 1 else ""  # alone, a graph only uncovers the GPU behind it
    return Bottleneck(limit=Limit.HOST, evidence=(busy,), experiments=(f"cuda_graph=true{second}", _more(figures)))


def _transfers(figures: _Figures) -> Bottleneck | None:
    copies = figures.copies
    link = max(figures.h2d_ms, figures.d2h_ms) / figures.period_ms
    side = "to the device" if figures.h2d_ms >= figures.d2h_ms else "to the host"
    if link >= _LINK_BUSY:
        return Bottleneck(
            limit=Limit.TRANSFERS,
            evidence=(f"copies {side} keep the link busy for {min(link, 1.0):.0%} of the time",),
            experiments=("precision.keep_io=false", "transfers=false, for the rate without copies"),
        )
    if figures.streams > 1 or copies is None or copies < _COPIES:
        return None
    return Bottleneck(
        limit=Limit.TRANSFERS,
        evidence=(
            f"copies take {figures.h2d_ms + figures.d2h_ms:.3g} ms, {copies:.0%} of an inference",
            "one stream computes nothing meanwhile",
        ),
        experiments=("streams=2", "transfers=false, for the rate without copies"),
    )


def _power(figures: _Figures) -> Bottleneck | None:
    state: Any = dict(figures.record.peak or {}).get("telemetry") or {}
    reasons: Mapping[str, float] = state.get("throttle_reasons") or {}
    name = max(reasons, key=reasons.__getitem__, default=None)
    capped = name is not None and reasons[name] >= _CAPPED
    full = figures.power is not None and figures.power >= _FULL
    if not capped and not full:
        return None
    evidence = [] if name is None or not capped else [f"{name} in {reasons[name]:.0%} of the readings"]
    if figures.watts is not None:
        of_board = "" if figures.power is None else f", {figures.power:.0%} of the board's limit"
        evidence.append(f"{figures.watts:.0f} W{of_board}")
    clock = state.get("sm_clock_mhz")
    if clock:
        evidence.append(f"SM clock {clock['mean']:.0f} MHz")
    return Bottleneck(limit=Limit.POWER, evidence=tuple(evidence), experiments=_narrower(figures.record))


def _on_gpu(figures: _Figures, layer_bound: str | None) -> Bottleneck:
    """Return the limit of a GPU that waits for nothing, has its clocks, and leaves power unused."""
    used = () if figures.power is None else (f"{figures.watts:.0f} W, {figures.power:.0%} of the board's limit",)
    busy = (
        f"an inference computes for {figures.compute_ms:.3g} ms, and the host takes {figures.host or 0:.0%} of its time"
    )
    if layer_bound in {"compute", "memory"}:
        of_layers = f"most time of the layers is bound by {layer_bound}"
        return Bottleneck(limit=Limit(layer_bound), evidence=(of_layers, *used), experiments=_narrower(figures.record))
    of_peak = share_of_peak(figures.record)
    if layer_bound is None and of_peak is not None and of_peak >= _OF_PEAK:
        products = f"{of_peak:.0%} of the GPU's peak for this type"
        return Bottleneck(limit=Limit.COMPUTE, evidence=(products, *used), experiments=_narrower(figures.record))
    if layer_bound == LAUNCH or (figures.power is not None and figures.power < _NOT_FULL):
        of_layers = "most time of the layers is bound by launches" if layer_bound == LAUNCH else busy
        return Bottleneck(
            limit=Limit.LAUNCHES,
            evidence=(*used, f"{of_layers}: its kernels are too small to fill the GPU"),
            experiments=(f"streams={2 * figures.streams}", _more(figures)),
        )
    if figures.power is None:
        return Bottleneck(
            limit=Limit.UNKNOWN,
            evidence=(busy, "how full the GPU is cannot be told without its power and the limit of its board"),
            experiments=("layers=true",),
        )
    more = (f"streams={2 * figures.streams}", _more(figures)) if figures.power < _NEARLY_FULL else ()
    profile = ("layers=true, which tells compute from memory",) if layer_bound is None else ()
    return Bottleneck(
        limit=Limit.GPU,
        evidence=(*used, busy),
        experiments=(*_narrower(figures.record), *more, *profile),
    )


def _on_cpu(record: Record) -> Bottleneck:
    """Return the limit of a library that computes on the CPU."""
    load: Any = dict(record.peak or {}).get("cpu_load")
    if not load:
        return Bottleneck(limit=Limit.UNKNOWN, evidence=("no use of cores and no time on a GPU was measured",))
    own, other = float(load["own"]), float(load["other"])
    evidence = (f"the sweep used {own:.0%} of the cores, other programs {other:.0%}",)
    if other >= _CROWD:
        return Bottleneck(limit=Limit.CPU_CROWDED, evidence=evidence, experiments=("the same once they have ended",))
    if own >= _CORES_BUSY:
        return Bottleneck(limit=Limit.COMPUTE, evidence=evidence, experiments=_narrower(record))
    cores = dict(record.facts).get("cores")
    threads = _count(record, "intra_op_threads") * _count(record, "streams") * _count(record, "clients")
    if isinstance(cores, int) and threads < cores and own * cores >= _OWN_CORE * threads:
        busy = f"{threads} {'thread computes' if threads == 1 else 'threads compute'}, on {cores} cores"
        return Bottleneck(
            limit=Limit.THREADS,
            evidence=(busy, *evidence),
            experiments=(f"streams={min(2 * threads, cores)}", f"backend.intra_op_threads={min(2 * threads, cores)}"),
        )
    return Bottleneck(
        limit=Limit.UNKNOWN, evidence=(*evidence, "neither cores nor threads are busy"), experiments=("layers=true",)
    )


def _queueing(record: Record) -> Bottleneck | None:
    """Return that waiting limits the capacity under an SLO which the service itself keeps easily."""
    slo, peak = record.slo, None if record.peak is None else record.peak["ips"]
    if slo is None or not slo["capacity_ips"] or not peak:
        return None
    light = next((ms for point in record.points if (ms := point["latency_ms"]["p50"])), None)
    share = slo["capacity_ips"] / peak
    if light is None or share >= _WAITING or light > _SERVICE * slo["limit_ms"]:
        return None
    batch = _count(record, "batch")
    return Bottleneck(
        limit=Limit.QUEUEING,
        evidence=(
            f"p{slo['percentile']:g} reaches {slo['limit_ms']:g} ms at {share:.0%} of the peak",
            f"an inference takes {light:.3g} ms unloaded",
        ),
        experiments=(
            f"streams={2 * _count(record, 'streams')}",
            f"batch={batch // 2}" if batch > 1 else "clients=2",
        ),
    )


def _others(record: Record) -> float | None:
    load: Any = dict(record.peak or {}).get("cpu_load")
    return None if not load else float(load["other"])


def _count(record: Record, axis: str) -> int:
    """Return an axis that counts; 1 where it is not set, and where another version wrote what counts nothing."""
    value = record.variant.get(axis)
    return value if isinstance(value, int) and value > 0 else 1


def _more(figures: _Figures) -> str:
    """Return the word for a larger batch: more work for each launch."""
    return f"batch={4 * _count(figures.record, 'batch')}"


def _narrower(record: Record) -> tuple[str, ...]:
    """Return the words for types that take less time and energy than those of the record.

    Below 16 bits that depends on what the library fuses: on an H200, TensorRT-RTX 1.6 was slower in fp8 and int8.
    """
    recipe = record.variant.get("precision_recipe")
    dtype = str(recipe.get("dtype")) if isinstance(recipe, dict) else ""
    words = {"fp32": "tf32,fp16", "tf32": "fp16"}
    return (f"precision={words[dtype]}",) if dtype in words else ()
