"""Time the layers of a loaded engine: by the kernels that the GPU ran, else by the library's own profiler.

The library's profiler puts an event before and after each layer, which takes some microseconds, and it reports nothing
of an inference that a CUDA graph replays. The kernels are those of the real inference: the profiler only tells how many
of them each layer has, from a graph that is captured with it and never launched.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sweep.backends.clock import RealClock
from sweep.backends.layer_times import cost_notes, median, subtract_cost, summarise
from sweep.backends.tensorrt import kernel_recorder
from sweep.errors import SessionError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sweep.backends.base import ProfileLimits
    from sweep.backends.tensorrt.cuda import Cuda, Handle
    from sweep.backends.tensorrt.execution_context import ExecutionContext
    from sweep.backends.tensorrt.kernel_recorder import Activity
    from sweep.backends.tensorrt.library import Library
    from sweep.spec import JsonDict

_WARMUP = 5
_TIMED = 50
_FAR = 0.05  # share of an inference by which the layers may miss it without a note
_EVENT, _KERNEL, _MEMCPY, _MEMSET = "EventRecord", "Kernel", "Memcpy", "Memset"
_RECORDED = {_KERNEL: "kernel", _MEMCPY: "memcpy", _MEMSET: "memset"}


class _UnassignableError(Exception):
    """Report that the kernels cannot be told apart by layer; its text says why."""


@dataclass(frozen=True, slots=True)
class LayerKernels:
    """Hold what one layer launches.

    Attributes:
        name: name of the layer.
        kinds: kernel, memset or memcpy, in order.
    """

    name: str
    kinds: list[str]


def profile(
    library: Library, cuda: Cuda, context: ExecutionContext, spare: ExecutionContext, limits: ProfileLimits
) -> tuple[JsonDict, dict[str, JsonDict]]:
    """Time the layers of an engine.

    Args:
        library: its library.
        cuda: makes the calls.
        context: runs the inferences that are timed, with the CUDA graph of the variant if it has one.
        spare: another context of the engine, to which the profiler is attached.
        limits: bound the inferences.

    Returns:
        The fields of a layer profile but for the layers, and {time, kernels} of each layer by its name. The time of a
        layer is what its kernels add to the inference, and that of a kernel its own.
    """
    clock = RealClock()
    begin = clock.now_ns()
    timed_us = _median_us(cuda, context.handle, context.launch, _WARMUP, _TIMED)
    count = limits.count((clock.now_ns() - begin) / 1e9 / (_WARMUP + _TIMED))
    notes: list[str] = []
    fields: JsonDict = {
        "inferences": count,
        "source": "library",
        "cuda_graph": context.has_graph,
        "timed_us": timed_us,
        "profiled_us": None,
        "layer_cost_us": None,
        "gaps_us": None,
        "notes": notes,
    }
    try:
        profiled_us, rounds = _record(cuda, context, count)
        names = _layers_in_order(library, spare)
        kernels = _kernels_of_layers(cuda, spare, names)
        times, gaps_us = assign(rounds, kernels)
    except (_UnassignableError, SessionError) as error:
        notes.append(f"the layers are timed by {library.label}'s profiler, by events: {error}")
        return fields, _by_profiler(library, cuda, spare, fields)
    kernels_us = sum(time["time"]["median_us"] for time in times.values())
    if kernels_us + gaps_us > (1 + _FAR) * timed_us >= kernels_us:
        notes.append(
            f"recording slows the enqueue: {gaps_us:.1f} us between kernels were recorded, and the timed inference "
            f"leaves {max(timed_us - kernels_us, 0):.1f} us beside its kernels, which are the gaps here"
        )
        gaps_us = max(timed_us - kernels_us, 0.0)
    fields |= {"source": "cupti", "profiled_us": profiled_us, "gaps_us": gaps_us}
    total_us = kernels_us + gaps_us
    if abs(total_us - timed_us) > _FAR * timed_us:
        notes.append(
            f"kernels and gaps add up to {total_us:.1f} us, and an inference takes {timed_us:.1f} us when nothing is "
            f"recorded: recording, or the time between the events and the first and last kernel, is the difference"
        )
    return fields, times


def _median_us(cuda: Cuda, stream: Handle, launch: Callable[[], Any], warmup: int, count: int) -> float:
    """Return the median duration of an inference between two events, one inference at a time, us."""
    before, after = cuda.event(blocking=False), cuda.event(blocking=False)
    durations = []
    try:
        for number in range(warmup + count):
            cuda.call("cudaEventRecord", before, stream)
            _check(cuda, launch())
            cuda.call("cudaEventRecord", after, stream)
            cuda.call("cudaEventSynchronize", after)
            if number >= warmup:
                durations.append(cuda.call("cudaEventElapsedTime", before, after) * 1e3)
    finally:
        for event in (before, after):
            cuda.call("cudaEventDestroy", event)
    return median(durations) or 0.0


def _check(cuda: Cuda, answer: tuple[Any, ...]) -> None:
    if answer[0] != cuda.rt.cudaError_t.cudaSuccess:
        cuda.fail("enqueue", answer[0])


def _record(cuda: Cuda, context: ExecutionContext, count: int) -> tuple[float, list[list[Activity]]]:
    """Record the kernels of inferences; return the median duration of one meanwhile, and the kernels of each.

    Raises:
        _UnassignableError: there is no CUPTI, or it lost kernels.
        SessionError: CUPTI cannot be used.
    """
    if not kernel_recorder.installed():
        raise _UnassignableError(f"cupti-python is not installed; {kernel_recorder.INSTALL}")
    with kernel_recorder.record() as activities:
        launch = context.recapture() if context.has_graph else context.launch
        profiled_us = _median_us(cuda, context.handle, launch, 0, _WARMUP + count)
    return profiled_us, split_inferences(activities, _WARMUP + count)[_WARMUP:]


def split_inferences(activities: Sequence[Activity], count: int) -> list[list[Activity]]:
    """Split what was recorded into ``count`` inferences, which are all of the same kernels.

    Raises:
        _UnassignableError: they are not.
    """
    size, rest = divmod(len(activities), count)
    rounds = [list(activities[number * size : (number + 1) * size]) for number in range(count)]
    if not size or rest or len({tuple((item.kind, item.name) for item in group) for group in rounds}) > 1:
        raise _UnassignableError(f"{len(activities)} kernels were recorded, which are not {count} equal inferences")
    return rounds


def _layers_in_order(library: Library, spare: ExecutionContext) -> list[str]:
    """Return the names of the layers as the profiler reports them, in the order in which they run."""
    profiler = _attach(library, spare)
    spare.eager()
    spare.buffers.synchronise()
    return [name for name, _ in profiler.rows]


def _attach(library: Library, spare: ExecutionContext) -> Any:
    """Return a profiler of the library, attached to the context, which keeps what it is told in ``rows``."""

    class Profiler(library.trt.IProfiler):  # type: ignore[name-defined,misc]  # a class of a C++ module
        def __init__(self) -> None:
            super().__init__()
            self.rows: list[tuple[str, float]] = []

        def report_layer_time(self, name: str, ms: float) -> None:
            self.rows.append((name, ms))

    profiler = Profiler()
    spare.context.profiler = profiler
    return profiler


def _kernels_of_layers(cuda: Cuda, spare: ExecutionContext, names: Sequence[str]) -> list[LayerKernels]:
    """Return what each layer launches, from a capture in which the profiler has put events around each layer.

    Raises:
        _UnassignableError: the capture is no chain, or has other events than two a layer.
    """
    graph = spare.capture_graph()
    try:
        return count_kernels(_chain(cuda, graph), names)
    finally:
        cuda.call("cudaGraphDestroy", graph)


def _chain(cuda: Cuda, graph: Handle) -> list[str]:
    """Return the kinds of the nodes of a captured graph, from the first to the last.

    Raises:
        _UnassignableError: a node has several before or after it, as where the engine uses several streams.
    """
    size = cuda.call("cudaGraphGetNodes", graph, 0)[1]
    nodes = list(cuda.call("cudaGraphGetNodes", graph, size)[0])[:size]
    edges = cuda.call("cudaGraphGetEdges", graph, 0)[-1]
    sources, targets = cuda.call("cudaGraphGetEdges", graph, edges)[:2] if edges else ([], [])
    following = {
        int(source): int(target) for source, target in zip(list(sources)[:edges], list(targets)[:edges], strict=True)
    }
    first = {int(node) for node in nodes} - set(following.values())
    if len(following) != edges or len(first) != 1 or edges != size - 1:
        raise _UnassignableError("the engine runs kernels side by side, so that their order tells no layer")
    kinds = {int(node): _node_kind(cuda, node) for node in nodes}
    order, node = [], first.pop()
    for _ in range(size):
        order.append(kinds[node])
        node = following.get(node, 0)
    return order


def _node_kind(cuda: Cuda, node: Handle) -> str:
    """Return the kind of a node of a graph, such as Kernel or EventRecord."""
    return str(cuda.call("cudaGraphNodeGetType", node).name).removeprefix("cudaGraphNodeType")


def count_kernels(chain: Sequence[str], names: Sequence[str]) -> list[LayerKernels]:
    """Return what each layer launches; the profiler puts an event before and after the kernels of each.

    Args:
        chain: kinds of the nodes of a captured graph, in their order.
        names: names of the layers, in the order in which they run.

    Raises:
        _UnassignableError: the events are not two a layer, or a kernel lies outside of them.
    """
    events = sum(kind == _EVENT for kind in chain)
    if events != 2 * len(names):
        raise _UnassignableError(f"a capture with the profiler has {events} events for {len(names)} layers")
    layers = [LayerKernels(name, []) for name in names]
    seen = 0
    for kind in chain:
        if kind == _EVENT:
            seen += 1
        elif kind in _RECORDED:
            if seen % 2 == 0:
                raise _UnassignableError("a kernel belongs to no layer of the profiler")
            layers[seen // 2].kinds.append(_RECORDED[kind])
    return layers


def assign(rounds: Sequence[Sequence[Activity]], layers: Sequence[LayerKernels]) -> tuple[dict[str, JsonDict], float]:
    """Assign the kernels of each inference to the layers, by their order.

    Args:
        rounds: what ran in each inference, in order.
        layers: what each layer launches, in order.

    Returns:
        {time, kernels} of each layer by its name, and the median time between the first start and the last end of an
        inference in which no kernel ran, us.

    Raises:
        _UnassignableError: an inference ran other kinds of kernels than the layers launch.
    """
    expected = [kind for layer in layers for kind in layer.kinds]
    recorded = [item.kind for item in rounds[0]]
    if expected != recorded:
        raise _UnassignableError(f"the layers launch {_words(expected)}, and {_words(recorded)} ran in an inference")
    times: dict[str, JsonDict] = {}
    added = [added_us(group) for group in rounds]
    place = 0
    for layer in layers:
        span = slice(place, place + len(layer.kinds))
        place = span.stop
        kernels = [
            {"name": items[0].name, "time": summarise([_us(item) for item in items])}
            for items in zip(*(group[span] for group in rounds), strict=True)
        ]
        total = [sum(durations[span]) for durations in added]
        times[layer.name] = {"time": summarise(total), "kernels": kernels}
    spans_us = [(max(item.end_ns for item in group) - group[0].start_ns) / 1e3 for group in rounds]
    gaps_us = [span - sum(durations) for span, durations in zip(spans_us, added, strict=True)]
    return times, median(gaps_us) or 0.0


def _us(item: Activity) -> float:
    return (item.end_ns - item.start_ns) / 1e3


def added_us(group: Sequence[Activity]) -> list[float]:
    """Return what each kernel of an inference adds to it, us.

    A kernel may start before the one before it has ended, to wait for it on the GPU. What two share is counted for the
    earlier one, so that kernels and gaps add up to the inference.
    """
    result, ended_ns = [], group[0].start_ns
    for item in group:
        result.append(max(item.end_ns - max(item.start_ns, ended_ns), 0) / 1e3)
        ended_ns = max(ended_ns, item.end_ns)
    return result


def _words(kinds: Sequence[str]) -> str:
    return ", ".join(f"{count} {kind}s" for kind, count in sorted(Counter(kinds).items())) or "nothing"


def _by_profiler(library: Library, cuda: Cuda, spare: ExecutionContext, fields: JsonDict) -> dict[str, JsonDict]:
    """Time the layers by the library's profiler, inference by inference; what it costs is subtracted."""
    profiler = _attach(library, spare)
    durations: dict[str, list[float]] = {}

    def run() -> Any:
        del profiler.rows[:]
        answer = spare.eager()
        spare.buffers.synchronise()
        return answer

    for number in range(_WARMUP + fields["inferences"]):
        run()
        if number >= _WARMUP:
            sums_us: dict[str, float] = {}  # in the order in which the layers run; one may be reported in parts
            for name, ms in profiler.rows:
                sums_us[name] = sums_us.get(name, 0.0) + ms * 1e3
            for name, duration_us in sums_us.items():
                durations.setdefault(name, []).append(duration_us)
    fields["profiled_us"] = _median_us(cuda, spare.handle, run, 0, _WARMUP)
    if not durations:
        raise SessionError(f"{library.label}'s profiler reported no layer: {library.log.tail()}")
    times = {name: {"time": summarise(values)} for name, values in durations.items()}
    fields["layer_cost_us"] = subtract_cost(list(times.values()), fields["timed_us"])
    fields["notes"] += cost_notes(fields["layer_cost_us"])
    if fields["cuda_graph"]:
        fields["notes"].append("the profiler times eager inferences; the variant replays a CUDA graph")
    return times
