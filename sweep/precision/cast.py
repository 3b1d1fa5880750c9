"""fp32 graph -> the same graph in float16 or bfloat16, Q/DQ pairs included.

Each operand of each node is either low (float16, bfloat16) or high (float32): high where the caller keeps
the node, where the ONNX standard has no such type for that operand (Resize's scales), and where TensorRT's
parser has none. A tensor that is made in one type and read in the other gets one Cast behind its maker, so
float32 nodes that follow one another exchange float32.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from sweep.precision import graph as graphs

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    import numpy as np
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

OPSET = {"fp16": 20, "bf16": 22}
"""The opset in which every common operator has the type; Conv has bfloat16 from 22 on."""

FP16_MAX = 65504.0
_NOT_IN_TENSORRT = {"bf16": ("HardSwish", "HardSigmoid"), "fp16": ()}
_ALWAYS_HIGH = {("Resize", 1), ("Resize", 2), ("Upsample", 1)}  # where to sample, not what: too coarse in 16 bits
_DRAWN = ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial")
_HIGH, _LOW = "high", "low"


def lowered(
    model: ModelProto, dtype: str, *, keep_io: bool, kept: Collection[str] = ()
) -> tuple[ModelProto, tuple[str, ...]]:
    """Turns every float32 tensor of ``model`` into ``dtype``, except around nodes that stay in float32.

    Args:
        model: a graph with its weights loaded and every node named, float32 where it is not quantised; used up.
        dtype: ``fp16`` or ``bf16``.
        keep_io: float32 inputs and outputs stay, behind a Cast.
        kept: names of nodes that stay in float32.

    Returns:
        The graph and what to tell about it.

    Raises:
        ConversionError: the graph contradicts itself.
    """
    lowering = _Lowering(graphs.inferred(model), dtype, keep_io=keep_io, kept=kept)
    return lowering.run(), lowering.notes


class _Lowering:
    """One conversion: what each operand wants, a name for each tensor in each type, then the nodes anew."""

    def __init__(self, model: ModelProto, dtype: str, *, keep_io: bool, kept: Collection[str]) -> None:
        from onnx import TensorProto

        self._model = model
        self._float = TensorProto.FLOAT
        self._low_type = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}[dtype]
        self._dtype = dtype
        self._io = _HIGH if keep_io else _LOW
        self._kept = frozenset(kept)
        self._opset = {item.domain: item.version for item in model.opset_import}
        self._floats = {name for _, scope in _scopes(model.graph) for name, kind in scope.items() if kind == 1}
        self._made: dict[str, str] = {}
        self._wanted: dict[str, set[str]] = defaultdict(set)
        self._plain: dict[str, str] = {}
        self._clipped = 0
        self.notes: tuple[str, ...] = ()

    def run(self) -> ModelProto:
        top = self._model.graph
        io = {value.name for value in (*top.input, *top.output)}
        for graph in graphs.graphs(top):
            self._find_makers(graph, self._io if graph is top else _LOW)
        for graph in graphs.graphs(top):
            self._find_readers(graph, self._io if graph is top else _LOW)
        for name in self._floats:
            made = self._made.get(name) or (_HIGH if _HIGH in self._wanted[name] else _LOW)
            self._plain[name] = self._io if name in io else made
        self.notes = (*self._kept_notes(), *self.notes)
        self._rewrite(top)
        if self._clipped:
            self.notes += (f"{plural(self._clipped, 'weight')} clipped to +-{FP16_MAX:.0f}",)
        return self._model

    def _find_makers(self, graph: GraphProto, io: str) -> None:
        for value in graph.input:
            self._made[value.name] = io
        for node in graph.node:
            for index, name in enumerate(node.output):
                self._made[name] = self._kind(node, index, output=True)
        for tensor in graph.initializer:
            self._made.pop(tensor.name, None)  # older files list their weights among the inputs too

    def _find_readers(self, graph: GraphProto, io: str) -> None:
        for node in graph.node:
            for index, name in enumerate(node.input):
                self._wanted[name].add(self._kind(node, index))
        for value in graph.output:
            self._wanted[value.name].add(io)

    def _kind(self, node: NodeProto, index: int, *, output: bool = False) -> str:
        """Whether an operand is high or low; only float32 operands are ever asked for."""
        if node.op_type == "QuantizeLinear":  # it gives integers: reading float32 where there is some costs nothing
            return self._made.get(node.input[0], _LOW)
        if node.name in self._kept or node.op_type in (*_NOT_IN_TENSORRT[self._dtype], *_DRAWN):
            return _HIGH
        if not output and (node.op_type, index) in _ALWAYS_HIGH:
            return _HIGH
        allowed = _allowed(node, index, self._opset, output=output)
        return _LOW if f"tensor({'float16' if self._dtype == 'fp16' else 'bfloat16'})" in allowed else _HIGH

    def _kept_notes(self) -> list[str]:
        high = Counter(
            node.op_type
            for graph in graphs.graphs(self._model.graph)
            for node in graph.node
            if node.name not in self._kept
            and any(name in self._floats and self._made.get(name) == _HIGH for name in node.output)
        )
        return [f"{plural(high.total(), 'node')} kept in fp32: {', '.join(sorted(high))}"] if high else []

    def _rewrite(self, graph: GraphProto) -> None:
        stored = {tensor.name for tensor in graph.initializer}
        self._rewrite_weights(graph)
        nodes = [cast for value in graph.input if value.name not in stored for cast in self._casts(value.name)]
        for node in graph.node:
            made = list(node.output)
            self._rewrite_node(node)
            nodes.append(node)
            nodes.extend(cast for name in made for cast in self._casts(name))
            for inner in graphs.subgraphs(node):
                self._rewrite(inner)
        del graph.node[:], graph.value_info[:]
        graph.node.extend(nodes)
        self._rewrite_values(graph)

    def _rewrite_weights(self, graph: GraphProto) -> None:
        kept = []
        for tensor in graph.initializer:
            if tensor.name not in self._floats:
                kept.append(tensor)
                continue
            for kind in sorted(self._wanted[tensor.name]):
                kept.append(self._low_tensor(tensor) if kind == _LOW else _copy(tensor))
                kept[-1].name = self._name(tensor.name, kind)
        del graph.initializer[:]
        graph.initializer.extend(kept)

    def _rewrite_node(self, node: NodeProto) -> None:
        kinds = [self._kind(node, index) for index in range(len(node.input))]
        high = bool(node.output) and self._made[node.output[0]] == _HIGH
        for index, name in enumerate(node.input):
            node.input[index] = self._name(name, kinds[index])
        for index, name in enumerate(node.output):
            node.output[index] = self._name(name, self._made[name])
        if not high:
            self._rewrite_attributes(node)

    def _rewrite_attributes(self, node: NodeProto) -> None:
        """Nodes that say the type of what they give in an attribute."""
        import numpy as np
        from onnx import helper, numpy_helper

        for item in node.attribute:
            if item.name in {"to", "dtype"} and item.i == self._float:
                item.i = self._low_type
            elif item.name == "value" and item.t.data_type == self._float:
                item.t.CopyFrom(self._low_tensor(item.t))
            elif item.name in {"value_float", "value_floats"}:
                value = numpy_helper.from_array(np.asarray(helper.get_attribute_value(item), np.float32))
                item.CopyFrom(helper.make_attribute("value", self._low_tensor(value)))
        if node.op_type == "ConstantOfShape" and not node.attribute:
            zero = self._low_tensor(numpy_helper.from_array(np.zeros(1, np.float32)))
            node.attribute.append(helper.make_attribute("value", zero))

    def _rewrite_values(self, graph: GraphProto) -> None:
        top = graph is self._model.graph
        for value in (*graph.input, *graph.output):
            if value.name not in self._floats:
                continue
            kind = self._io if top else _LOW
            value.name = self._name(value.name, kind)
            if kind == _LOW:
                value.type.tensor_type.elem_type = self._low_type

    def _casts(self, name: str) -> Iterator[NodeProto]:
        """The Cast behind the maker of ``name``, if somebody reads it in the type that it is not made in."""
        from onnx import helper

        if name not in self._floats:
            return
        made = self._made[name]
        for kind in sorted(self._wanted[name] - {made}):
            result, to = self._name(name, kind), self._float if kind == _HIGH else self._low_type
            yield helper.make_node("Cast", [self._name(name, made)], [result], name=f"{name}_to_{kind}", to=to)

    def _name(self, name: str, kind: str) -> str:
        """What the tensor is called in a type: by its own name in the one that it is made in, or crosses I/O in."""
        return name if name not in self._floats or self._plain[name] == kind else f"{name}_{kind}"

    def _low_tensor(self, tensor: TensorProto) -> TensorProto:
        from onnx import numpy_helper

        values, clipped = rounded(numpy_helper.to_array(tensor), self._dtype)
        self._clipped += clipped
        return numpy_helper.from_array(values, tensor.name)


def rounded(values: np.ndarray, dtype: str) -> tuple[np.ndarray, bool]:
    """Float32 values as float16 or bfloat16, to nearest even; and whether float16 clipped finite ones."""
    import ml_dtypes
    import numpy as np

    if dtype == "bf16":
        return values.astype(ml_dtypes.bfloat16), False
    beyond = bool(np.any((np.abs(values) > FP16_MAX) & np.isfinite(values)))
    return np.where(np.isfinite(values), np.clip(values, -FP16_MAX, FP16_MAX), values).astype(np.float16), beyond


def _allowed(node: NodeProto, index: int, opset: dict[str, int], *, output: bool) -> Collection[str]:
    """The types that the ONNX standard lets an operand have; none for an operator that is not in it."""
    from onnx import defs

    domain = "" if node.domain == "ai.onnx" else node.domain
    try:
        schema = defs.get_schema(node.op_type, opset.get(domain, opset.get("ai.onnx", 1)), domain)
    except defs.SchemaError:
        return ()
    formal = schema.outputs if output else schema.inputs
    word = formal[min(index, len(formal) - 1)].type_str  # the last one stands for any number
    return next((item.allowed_type_strs for item in schema.type_constraints if item.type_param_str == word), [word])


def _scopes(graph: GraphProto) -> Iterator[tuple[GraphProto, dict[str, int]]]:
    for one in graphs.graphs(graph):
        yield one, graphs.types(one)


def _copy(tensor: TensorProto) -> TensorProto:
    result = type(tensor)()
    result.CopyFrom(tensor)
    return result


def plural(count: int, noun: str) -> str:
    """``1 node``, ``2 nodes``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
