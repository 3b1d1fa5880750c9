"""Write the layer profile of an engine: its layers by the backend, and the graph that they compute."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

from sweep.backends import ProfileLimits, SupportsLayerProfile, registry
from sweep.errors import SessionError
from sweep.system import onnx_shapes, write_atomic

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np

    from sweep.runner.messages import LayersRequest
    from sweep.runner.worker.artifacts import Artifacts
    from sweep.runner.worker.events import Events
    from sweep.spec import Variant
    from sweep.storage import GraphNode, GraphTensor, LayerProfile

SCHEMA = 1
LIMITS = ProfileLimits()
_NO_GRAPH = "the plan came without a network, so its layers are joined to no nodes"


def write_profile(
    request: LayersRequest, variant: Variant, artifacts: Artifacts, feeds: Mapping[str, np.ndarray], events: Events
) -> None:
    """Profile the layers of an engine, and write the profile.

    Args:
        request: where it goes, and what it says of the variant.
        variant: what runs.
        artifacts: its engine and graphs.
        feeds: value of each input at the full batch.
        events: hears of the stage.

    Raises:
        SessionError: the engine's layers cannot be profiled.
    """
    backend = registry.get(variant.backend)
    if not isinstance(backend, SupportsLayerProfile):
        raise SessionError(f"{variant.backend} has no layers to profile")
    events.stage("layers", done=0.5)
    typed = None if artifacts.onnx is None else artifacts.onnx.typed
    measured = backend.profile_layers(artifacts.engine.path, artifacts.engine.info, variant, feeds, typed, LIMITS)
    nodes, tensors = ([], {}) if typed is None else describe_graph(typed, {name: a.shape for name, a in feeds.items()})
    profile = {
        "schema": SCHEMA,
        "key": request.key,
        "label": request.label,
        "backend": variant.backend,
        "device": request.device,
        "batch": variant.engine.batch,
        "precision": variant.onnx.precision.name,
        **measured,
        "nodes": nodes,
        "tensors": tensors,
    }
    if typed is None:
        profile["notes"] = [*measured["notes"], _NO_GRAPH]
    write_atomic(request.path, encode(cast("LayerProfile", profile)))


def encode(profile: LayerProfile) -> bytes:
    """Return the file of a profile."""
    return json.dumps(profile, allow_nan=False).encode() + b"\n"


def describe_graph(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> tuple[list[GraphNode], dict[str, GraphTensor]]:
    """Return the nodes of a graph, and its tensors with the inputs at ``shapes``.

    Args:
        path: the ONNX file.
        shapes: shape of each input.
    """
    import onnx

    model = onnx.load(path, load_external_data=False)
    nodes: list[GraphNode] = [
        {
            "name": name,
            "op": onnx_shapes.operator(node),
            "inputs": list(node.input),
            "outputs": list(node.output),
            "attributes": onnx_shapes.plain_attributes(node),
        }
        for name, node in zip(onnx_shapes.node_names(model.graph), model.graph.node, strict=True)
    ]
    constant = _constants(model.graph)
    types = _types(model, shapes)
    unknown = onnx_shapes.TensorType(None, None)
    names = dict.fromkeys(
        [
            *(value.name for value in model.graph.input),
            *(name for node in nodes for name in (*node["inputs"], *node["outputs"]) if name),
        ]
    )
    tensors: dict[str, GraphTensor] = {}
    for name in names:
        kind = types.get(name, unknown)
        shape = None if kind.shape is None else list(kind.shape)
        tensors[name] = {"shape": shape, "dtype": kind.dtype, "constant": name in constant}
    return nodes, tensors


def _types(model: Any, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, onnx_shapes.TensorType]:
    """Return the types of the tensors; none where the graph contradicts itself, as a library may accept it."""
    import onnx

    try:
        return onnx_shapes.infer_types(model, shapes)
    except (onnx.shape_inference.InferenceError, ValueError):
        return {}


def _constants(graph: Any) -> set[str]:
    """Return the names of the tensors that are stored, or computed from such alone."""
    constant = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        if all(name in constant for name in node.input if name) and not node.op_type.startswith("Random"):
            constant.update(node.output)
    return constant
