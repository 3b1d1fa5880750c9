"""Cast an fp32 graph to float16 or bfloat16, Q/DQ pairs included.

Each operand of each node is either low (float16, bfloat16) or high (float32). It is high where the caller keeps the
node in float32, where the ONNX standard has no such type for that operand (Resize's scales), and where TensorRT's
parser has none. A tensor that is produced in one type and read in the other gets one Cast behind its producer, so
float32 nodes that follow one another exchange float32.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from sweep.precision import compute_types, onnx_graph
from sweep.precision.notes import count_of
from sweep.system import nested_graphs, subgraphs

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    import numpy as np
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

OPSET = {"fp16": 20, "bf16": 22}
"""Map a dtype to the opset in which every common operator has it; Conv has bfloat16 from 22 on."""

FP16_MAX = 65504.0
_FP32_OPERANDS = {
    ("Resize", 1),
    ("Resize", 2),
    ("Upsample", 1),
}  # Resize's regions and scales say where to sample; 16 bits are too coarse for a position.
_RANDOM_OPS = ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial")
_CONTAINER_OPS = (  # the type of a sequence or an optional value is declared where no Cast can follow
    *("SequenceConstruct", "SequenceEmpty", "SequenceInsert", "SequenceErase", "SequenceAt", "SequenceMap"),
    *("SplitToSequence", "ConcatFromSequence", "Optional", "OptionalGetElement"),
)
_FLOAT_OPS = ("BitCast", "MeanVarianceNormalization")
"""Name operators for float32 alone: one reads its bits, the other's definition in ONNX holds float32 constants."""
_HIGH, _LOW = "high", "low"


def cast_model(
    model: ModelProto, dtype: str, *, keep_io: bool, fp32_nodes: Collection[str] = ()
) -> tuple[ModelProto, tuple[str, ...]]:
    """Cast every float32 tensor of a model to 16 bits, except around nodes that stay in float32.

    Args:
        model: a graph with its weights loaded and every node named, float32 where it is not quantized. It is modified.
        dtype: ``fp16`` or ``bf16``.
        keep_io: keep float32 inputs and outputs, behind a Cast.
        fp32_nodes: names of nodes that stay in float32.

    Returns:
        The graph, and notes for the record: nodes kept in fp32, weights clipped.

    Raises:
        ConversionError: type inference found that the graph contradicts itself.
    """
    model_cast = _ModelCast(onnx_graph.infer_types(model), dtype, keep_io=keep_io, fp32_nodes=fp32_nodes)
    return model_cast.run(), model_cast.notes


def low_operands(model: ModelProto, dtype: str) -> Callable[[NodeProto, int, str], bool]:
    """Return a function that tells whether ``cast_model`` would give an operand 16 bits.

    Args:
        model: a graph with its types inferred.
        dtype: ``fp16`` or ``bf16``.

    Returns:
        A function of a node, the index of one of its float32 operands, and ``input`` or ``output``.
    """
    model_cast = _ModelCast(model, dtype, keep_io=True, fp32_nodes=())
    return lambda node, index, side: model_cast.is_low(node, index, output=side == "output")


class _ModelCast:
    """Cast one model: choose a kind for each operand, name each tensor in each type, then rewrite the nodes."""

    def __init__(self, model: ModelProto, dtype: str, *, keep_io: bool, fp32_nodes: Collection[str]) -> None:
        from onnx import TensorProto

        self._model = model
        self._float = TensorProto.FLOAT
        self._low_type = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}[dtype]
        self._dtype = dtype
        self._io = _HIGH if keep_io else _LOW
        self._fp32_nodes = frozenset(fp32_nodes)
        self._opset = {item.domain: item.version for item in model.opset_import}
        self._float_tensors = {name for _, scope in _scopes(model.graph) for name, kind in scope.items() if kind == 1}
        self._produced_kind: dict[str, str] = {}
        self._reader_kinds: dict[str, set[str]] = defaultdict(set)
        self._unsuffixed_kind: dict[str, str] = {}
        self._fresh = onnx_graph.FreshNames(model.graph)
        self._suffixed_names: dict[tuple[str, str], str] = {}
        self._clipped = 0
        self.notes: tuple[str, ...] = ()

    def run(self) -> ModelProto:
        """Rewrite the model and collect its notes."""
        top = self._model.graph
        io = {value.name for value in (*top.input, *top.output)}
        for graph in nested_graphs(top):
            self._record_producers(graph, self._io if graph is top else _LOW)
        for graph in nested_graphs(top):
            self._record_readers(graph, self._io if graph is top else _LOW)
        for name in self._float_tensors:
            kind = self._produced_kind.get(name) or (_HIGH if _HIGH in self._reader_kinds[name] else _LOW)
            self._unsuffixed_kind[name] = self._io if name in io else kind
        self.notes = (*self._fp32_notes(), *self.notes)
        self._rewrite(top)
        if self._clipped:
            self.notes += (f"{count_of(self._clipped, 'weight')} clipped to +-{FP16_MAX:.0f}",)
        return self._model

    def is_low(self, node: NodeProto, index: int, *, output: bool) -> bool:
        """Tell whether an operand of a float32 tensor becomes 16 bits."""
        return self._kind(node, index, output=output) == _LOW

    def _record_producers(self, graph: GraphProto, io: str) -> None:
        for value in graph.input:
            self._produced_kind[value.name] = io
        for node in graph.node:
            for index, name in enumerate(node.output):
                self._produced_kind[name] = self._kind(node, index, output=True)
        for tensor in graph.initializer:
            self._produced_kind.pop(
                tensor.name, None
            )  # files before IR version 4 list their weights among the inputs too

    def _record_readers(self, graph: GraphProto, io: str) -> None:
        for node in graph.node:
            for index, name in enumerate(node.input):
                self._reader_kinds[name].add(self._kind(node, index))
        for value in graph.output:
            self._reader_kinds[value.name].add(io)

    def _kind(self, node: NodeProto, index: int, *, output: bool = False) -> str:
        """Choose high or low for an operand; only operands of float32 tensors are ever looked up."""
        if (
            node.op_type == "QuantizeLinear"
        ):  # its result is an integer either way, so it reads whichever type exists: no Cast is needed
            return self._produced_kind.get(node.input[0], _LOW)
        if node.name in self._fp32_nodes or node.op_type in (
            *compute_types.OPS_WITHOUT_DTYPE.get(self._dtype, ()),
            *_RANDOM_OPS,
            *_CONTAINER_OPS,
            *_FLOAT_OPS,
        ):
            return _HIGH
        if not output and (node.op_type, index) in _FP32_OPERANDS:
            return _HIGH
        allowed_types = _allowed_types(node, index, self._opset, output=output)
        return _LOW if f"tensor({'float16' if self._dtype == 'fp16' else 'bfloat16'})" in allowed_types else _HIGH

    def _fp32_notes(self) -> list[str]:
        """Report the nodes that stay in fp32 although the caller did not ask for it."""
        high = Counter(
            node.op_type
            for graph in nested_graphs(self._model.graph)
            for node in graph.node
            if node.name not in self._fp32_nodes
            and any(name in self._float_tensors and self._produced_kind.get(name) == _HIGH for name in node.output)
        )
        return [f"{count_of(high.total(), 'node')} kept in fp32: {', '.join(sorted(high))}"] if high else []

    def _rewrite(self, graph: GraphProto) -> None:
        stored = {tensor.name for tensor in graph.initializer}
        self._rewrite_weights(graph)
        nodes = [cast for value in graph.input if value.name not in stored for cast in self._casts_of(value.name)]
        for node in graph.node:
            outputs = list(node.output)
            self._rewrite_node(node)
            nodes.append(node)
            nodes.extend(cast for name in outputs for cast in self._casts_of(name))
            for inner in subgraphs(node):
                self._rewrite(inner)
        del graph.node[:], graph.value_info[:]
        graph.node.extend(nodes)
        self._rewrite_values(graph)

    def _rewrite_weights(self, graph: GraphProto) -> None:
        tensors = []
        for tensor in graph.initializer:
            if tensor.name not in self._float_tensors:
                tensors.append(tensor)
                continue
            for kind in sorted(self._reader_kinds[tensor.name]):
                tensors.append(self._low_tensor(tensor) if kind == _LOW else _copy(tensor))
                tensors[-1].name = self._name(tensor.name, kind)
        del graph.initializer[:]
        graph.initializer.extend(tensors)

    def _rewrite_node(self, node: NodeProto) -> None:
        kinds = [self._kind(node, index) for index in range(len(node.input))]
        high = bool(node.output) and self._produced_kind[node.output[0]] == _HIGH
        for index, name in enumerate(node.input):
            node.input[index] = self._name(name, kinds[index])
        for index, name in enumerate(node.output):
            node.output[index] = self._name(name, self._produced_kind[name])
        if not high:
            self._rewrite_attributes(node)

    def _rewrite_attributes(self, node: NodeProto) -> None:
        """Change the attributes by which a node declares the type of its output."""
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
            if value.name not in self._float_tensors:
                continue
            kind = self._io if top else _LOW
            value.name = self._name(value.name, kind)
            if kind == _LOW:
                value.type.tensor_type.elem_type = self._low_type

    def _casts_of(self, name: str) -> Iterator[NodeProto]:
        """Yield the Cast behind the producer of ``name`` for each type in which it is read but not produced."""
        from onnx import helper

        if name not in self._float_tensors:
            return
        produced = self._produced_kind[name]
        for kind in sorted(self._reader_kinds[name] - {produced}):
            result, to = self._name(name, kind), self._float if kind == _HIGH else self._low_type
            yield helper.make_node(
                "Cast", [self._name(name, produced)], [result], name=self._fresh.take(f"{name}_to_{kind}"), to=to
            )

    def _name(self, name: str, kind: str) -> str:
        """Name a tensor in a type: as it is called in the type that it is made in or crosses I/O in, else suffixed."""
        if name not in self._float_tensors or self._unsuffixed_kind[name] == kind:
            return name
        if (name, kind) not in self._suffixed_names:
            self._suffixed_names[name, kind] = self._fresh.take(f"{name}_{kind}")
        return self._suffixed_names[name, kind]

    def _low_tensor(self, tensor: TensorProto) -> TensorProto:
        from onnx import numpy_helper

        values, clipped = round_to_dtype(numpy_helper.to_array(tensor), self._dtype)
        self._clipped += clipped
        return numpy_helper.from_array(values, tensor.name)


def round_to_dtype(values: np.ndarray, dtype: str) -> tuple[np.ndarray, bool]:
    """Round float32 values to float16 or bfloat16, to nearest even; float16 clips finite values at +-65504.

    Args:
        values: float32, any shape.
        dtype: ``fp16`` or ``bf16``.

    Returns:
        The values in that type, and whether finite ones were clipped.
    """
    import ml_dtypes
    import numpy as np

    if dtype == "bf16":
        return values.astype(ml_dtypes.bfloat16), False
    clipped = bool(np.any((np.abs(values) > FP16_MAX) & np.isfinite(values)))
    return np.where(np.isfinite(values), np.clip(values, -FP16_MAX, FP16_MAX), values).astype(np.float16), clipped


def _allowed_types(node: NodeProto, index: int, opset: dict[str, int], *, output: bool) -> Collection[str]:
    """List the types that the ONNX standard allows for an operand; none for an operator outside the standard."""
    from onnx import defs

    domain = "" if node.domain == "ai.onnx" else node.domain
    try:
        schema = defs.get_schema(node.op_type, opset.get(domain, opset.get("ai.onnx", 1)), domain)
    except defs.SchemaError:
        return ()
    operands = schema.outputs if output else schema.inputs
    type_name = operands[min(index, len(operands) - 1)].type_str  # the last formal operand is variadic
    return next(
        (item.allowed_type_strs for item in schema.type_constraints if item.type_param_str == type_name), [type_name]
    )


def _scopes(graph: GraphProto) -> Iterator[tuple[GraphProto, dict[str, int]]]:
    for one in nested_graphs(graph):
        yield one, onnx_graph.element_types(one)


def _copy(tensor: TensorProto) -> TensorProto:
    result = type(tensor)()
    result.CopyFrom(tensor)
    return result
