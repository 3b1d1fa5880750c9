"""Time the nodes of onnxruntime's optimised graph by its own profiler.

The profiler writes an event for each node of each inference, in whole microseconds of the host's clock. The session
that it watches is one of its own, and is timed once more when the profiler has stopped.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.backends.clock import RealClock
from sweep.backends.layer_times import median, summarise
from sweep.backends.onnxruntime.graph_join import Joined, join
from sweep.backends.onnxruntime.session import OnnxRuntimeStream, in_input_types
from sweep.errors import SessionError
from sweep.system import onnx_shapes, subgraphs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np

    from sweep.backends.base import ProfileLimits
    from sweep.spec import JsonDict

    Event = Mapping[str, Any]

PREFIX = "onnxruntime_profile"
_SUFFIX = "_kernel_time"
_TYPES = {"float": "fp32", "float16": "fp16", "bfloat16": "bf16", "double": "fp64"}
_BLOCKED = "com.microsoft.nchwc"
_WHOLE_US = "onnxruntime's profiler counts whole microseconds: a layer that is shorter counts as 0"


@dataclass(frozen=True, slots=True)
class _Run:
    """Hold the events of one inference.

    Attributes:
        duration_us: duration of the inference, us.
        nodes: event of each node that ran, in order; those of subgraphs too.
    """

    duration_us: float
    nodes: list[Event]


def profile(
    open_session: Callable[[], Any], feeds: Mapping[str, np.ndarray], limits: ProfileLimits
) -> tuple[list[_Run], float]:
    """Run a session that profiles, then without its profiler.

    Args:
        open_session: opens a session that writes a profile.
        feeds: value of each input.
        limits: bound the inferences.

    Returns:
        The profiled inferences after the warm-up, and the median duration of one without the profiler, us.
    """
    session = open_session()
    stream = OnnxRuntimeStream(session, in_input_types(session, feeds))
    clock = RealClock()
    stream.enqueue()
    begin = clock.now_ns()
    stream.enqueue()
    count = limits.count((clock.now_ns() - begin) / 1e9)
    for _ in range(count):
        stream.enqueue()
    events = json.loads(Path(session.end_profiling()).read_bytes())
    durations = []
    for _ in range(count):
        begin = clock.now_ns()
        stream.enqueue()
        durations.append((clock.now_ns() - begin) / 1e3)
    runs = split_runs(events)[-count:]
    timed_us = median(durations)
    if not runs or timed_us is None:
        raise SessionError(f"onnxruntime profiled no inference of {count}")
    return runs, timed_us


def split_runs(events: Sequence[Event]) -> list[_Run]:
    """Split the events of a profile into inferences: the event of an inference follows those of its nodes."""
    runs: list[_Run] = []
    nodes: list[Event] = []
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(_SUFFIX):
            nodes.append(event)
        elif event.get("name") == "model_run":
            runs.append(_Run(float(event["dur"]), nodes))
            nodes = []
    return runs


def describe_layers(runs: Sequence[_Run], optimised: Any, typed: Any | None) -> tuple[list[JsonDict], list[str]]:
    """Return the layers of a profile in the order in which they ran, and notes about them.

    Args:
        runs: the profiled inferences.
        optimised: the graph that ran.
        typed: the graph that it was built from; None where there is none.
    """
    joined = join(optimised, typed) if typed is not None else [Joined([], "other") for _ in optimised.node]
    places = _Places(optimised)
    constants = {tensor.name for tensor in optimised.initializer}
    durations: dict[int, list[float]] = {}
    shown: dict[int, Event] = {}
    unknown: dict[str, tuple[Event, list[float]]] = {}
    has_subgraphs = any(True for node in optimised.node for _ in subgraphs(node))
    for run in runs:
        seen: set[int] = set()
        for event in run.nodes:
            place = places.of(event)
            if place is not None and place not in seen:
                seen.add(place)
                durations.setdefault(place, []).append(float(event["dur"]))
                shown.setdefault(place, event)
            elif not has_subgraphs:  # an inner node is part of the time of the node around it
                unknown.setdefault(event["name"], (event, []))[1].append(float(event["dur"]))
    types = _tensor_types(optimised, shown)
    layers = [_layer(optimised.node[place], joined[place], durations[place], types, constants) for place in durations]
    for layer, place in zip(layers, durations, strict=True):
        layer["name"] = shown[place]["name"].removesuffix(_SUFFIX)
    layers += [_unknown_layer(event, times) for event, times in unknown.values()]
    return _unique(layers), [_WHOLE_US]


class _Places:
    """Find the node of an event.

    Args:
        graph: the graph that ran.
    """

    def __init__(self, graph: Any) -> None:
        # As its event has them: a node without a name gets its operator and place as its name.
        self._exact = {
            (node.name or f"{node.op_type}_{place}", node.op_type, str(place)): place
            for place, node in enumerate(graph.node)
        }
        counts = Counter((node.name, node.op_type) for node in graph.node if node.name)
        self._named = {
            (node.name, node.op_type): place
            for place, node in enumerate(graph.node)
            if counts[node.name, node.op_type] == 1
        }

    def of(self, event: Event) -> int | None:
        """Return the place of the event's node in the graph; None for one of a subgraph, or that was added at load."""
        name, args = event["name"].removesuffix(_SUFFIX), event["args"]
        place = self._exact.get((name, args["op_name"], str(args["node_index"])))
        return self._named.get((name, args["op_name"])) if place is None else place


def _tensor_types(graph: Any, events: Mapping[int, Event]) -> dict[str, tuple[str | None, list[int]]]:
    """Return type and shape of each tensor: as it is stored, or as the event of a node that has it tells."""
    types: dict[str, tuple[str | None, list[int]]] = {}
    for place, event in events.items():
        node = graph.node[place]
        for names, told in ((node.input, "input_type_shape"), (node.output, "output_type_shape")):
            rows = _told(event["args"].get(told))
            present = [name for name in names if name]
            if len(rows) == len(present):  # an operator that packed its weights does not tell of them
                types |= dict(zip(present, rows, strict=True))
    for tensor in graph.initializer:
        types[tensor.name] = (onnx_shapes.type_name(tensor.data_type), list(tensor.dims))
    return types


def _told(rows: Sequence[Mapping[str, list[int]]] | None) -> list[tuple[str | None, list[int]]]:
    """Return type and shape of each tensor that an event tells of."""
    return [(_TYPES.get(kind, kind), shape) for row in rows or () for kind, shape in row.items()]


def _layer(
    node: Any,
    joined: Joined,
    durations: Sequence[float],
    types: Mapping[str, tuple[str | None, list[int]]],
    constants: set[str],
) -> JsonDict:
    form = "nchwc" if node.domain == _BLOCKED else None
    inputs = [_tensor(name, types.get(name), form) for name in node.input if name]
    return {
        "name": node.name,
        "kind": node.op_type,
        "time": summarise(durations),
        "nodes": joined.nodes,
        "added": joined.added,
        "inputs": [tensor for tensor in inputs if tensor["name"] not in constants],
        "constants": [tensor for tensor in inputs if tensor["name"] in constants],
        "outputs": [_tensor(name, types.get(name), form) for name in node.output if name],
        "tactic": None,
        "stream": None,
    }


def _tensor(name: str, told: tuple[str | None, list[int]] | None, form: str | None) -> JsonDict:
    dtype, shape = told or (None, None)
    return {"name": name, "shape": shape, "dtype": dtype, "format": form}


def _unknown_layer(event: Event, durations: Sequence[float]) -> JsonDict:
    """Return the layer of an event whose node the saved graph does not have: it was added when the graph was loaded."""
    kind = event["args"]["op_name"]
    added = {"Cast": "cast", "Transpose": "reformat"}.get(kind, "copy" if kind.startswith("Memcpy") else "other")
    return {
        "name": event["name"].removesuffix(_SUFFIX),
        "kind": kind,
        "time": summarise(durations),
        "nodes": [],
        "added": added,
        "inputs": [_tensor("", row, None) for row in _told(event["args"].get("input_type_shape"))],
        "constants": [],
        "outputs": [_tensor("", row, None) for row in _told(event["args"].get("output_type_shape"))],
        "tactic": None,
        "stream": None,
    }


def _unique(layers: list[JsonDict]) -> list[JsonDict]:
    """Return the layers, each with a name of its own."""
    used: dict[str, int] = {}
    for layer in layers:
        number = used[layer["name"]] = used.get(layer["name"], 0) + 1
        if number > 1:
            layer["name"] = f"{layer['name']}#{number}"
    return layers
