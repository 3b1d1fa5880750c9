"""Count the operations and bytes of a layer, and name what it does.

Operations: two for each multiply-add, by the rules of ``sweep.system.operator_cost``; one for each element that an
elementwise node writes or a reduction reads; five for each element that a normalisation reads. Bytes: what the layer
reads and writes, once, by the library's own list of tensors where it has shapes and types, else by the tensors at the
boundary of its nodes.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from sweep.analysis.layers.graph import Graph, is_product, plain_dtype
from sweep.system import UncountableError, multiply_adds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.analysis.layers.types import Category
    from sweep.storage import Layer, LayerTensor

BITS = {
    "fp64": 64,
    "fp32": 32,
    "tf32": 32,
    "fp16": 16,
    "bf16": 16,
    "int64": 64,
    "uint64": 64,
    "int32": 32,
    "uint32": 32,
    "int16": 16,
    "uint16": 16,
    "int8": 8,
    "uint8": 8,
    "bool": 8,
    "fp8": 8,
    "int4": 4,
    "uint4": 4,
    "fp4": 4,
}
COMPUTES = ("fp64", "fp32", "tf32", "bf16", "fp16", "fp8", "int8", "uint8", "fp4", "int4")
"""Types that a product can have, the widest first."""
NORMALISATIONS = frozenset(
    {"LayerNormalization", "BatchNormalization", "InstanceNormalization", "GroupNormalization", "RMSNormalization"}
    | {"LpNormalization", "MeanVarianceNormalization", "LRN", "Softmax", "LogSoftmax"}
)
POOLS = frozenset({"MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"})
REDUCTIONS = frozenset(
    {"ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceSumSquare"}
    | {"ReduceLogSum", "ReduceLogSumExp", "ArgMax", "ArgMin", "CumSum", "TopK"}
    | POOLS
)
VIEWS = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Dropout"})
MOVES = VIEWS | frozenset(
    {"Transpose", "Cast", "Concat", "Split", "Slice", "Gather", "GatherElements", "GatherND", "Pad", "Expand", "Tile"}
    | {"DepthToSpace", "SpaceToDepth", "ScatterND", "ScatterElements", "ReverseSequence", "Compress", "Resize"}
    | {"ReorderInput", "ReorderOutput", "MemcpyToHost", "MemcpyFromHost", "Upsample", "CastLike", "Where"}
)
QUANTISERS = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"})
UNARY = frozenset(
    {
        "Relu",
        "LeakyRelu",
        "PRelu",
        "Elu",
        "Selu",
        "Celu",
        "Gelu",
        "Sigmoid",
        "HardSigmoid",
        "HardSwish",
        "Swish",
        "Mish",
    }
    | {
        "Tanh",
        "Softplus",
        "Softsign",
        "Erf",
        "Exp",
        "Log",
        "Sqrt",
        "Reciprocal",
        "Neg",
        "Abs",
        "Floor",
        "Ceil",
        "Round",
    }
    | {"Sign", "Sin", "Cos", "Clip", "Not", "IsNaN", "IsInf"}
)
ELEMENTWISE = UNARY | frozenset(
    {"Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Sum", "Mean", "Mod", "Where", "And", "Or", "Xor", "Equal"}
    | {"Greater", "GreaterOrEqual", "Less", "LessOrEqual", "BitShift"}
)
SHAPES = frozenset({"Shape", "Size", "Constant", "ConstantOfShape", "Range"})
_LOOKUPS = frozenset({"Gather", "GatherElements", "GatherND", "Slice", "Split"})
_NORM_OPERATIONS = 5
_CAMEL = re.compile(r"[A-Z][a-z0-9]+")
_MOVING_WORDS = frozenset({"Cast", "Conc", "Tran", "Resh", "Move", "Copy", "Slic", "Spli", "Pad", "Repl", "Gath"})
_Words = tuple[tuple[tuple[str, ...], "Category"], ...]
# Words of the library's own name -> what a layer without nodes does.
_NO_NODE: _Words = (
    (("mha", "attention"), "attention"),
    (("gemm", "matmul", "matrix", "myl_fc"), "gemm"),
    (("conv", "correlation"), "convolution"),
    (("quant",), "quantisation"),
    (("reformat", "copy", "transpose", "shuffle", "cast", "move", "tran", "resh", "conc", "slic"), "data movement"),
    (("pool", "reduce", "mean"), "reduction"),
    (("norm", "softmax"), "normalisation"),
    (("pointwise", "elementwise", "add", "mul", "relu"), "elementwise"),
)
_FOUR = 4
_THREE = 3


def size_of(shape: Sequence[int] | None, dtype: str | None) -> int | None:
    """Return the bytes of a tensor; None where its shape or type is not known."""
    kind = plain_dtype(dtype)
    bits = None if kind is None else BITS.get("fp8" if kind.startswith("fp8") else kind)
    if shape is None or bits is None or any(size < 0 for size in shape):
        return None
    return -(-math.prod(shape) * bits // 8)


def layer_flops(graph: Graph, place: int) -> float | None:
    """Count the operations of a layer; None where it has products whose number is not known.

    The work of a node that several layers compute is divided among its owners.
    """
    total = 0.0
    for name in owned_nodes(graph, place):
        try:
            total += node_flops(graph, name) / len(graph.owners[name])
        except UncountableError:
            return None
    return total


def owned_nodes(graph: Graph, place: int) -> list[str]:
    """Return the nodes whose work counts to a layer."""
    nodes = dict.fromkeys(graph.profile["layers"][place]["nodes"])
    return [name for name in nodes if place in graph.owners.get(name, [])]


def node_flops(graph: Graph, name: str) -> float:
    """Count the operations of a node.

    Raises:
        UncountableError: it has products whose number is not known.
    """
    node, op = graph.nodes[name], graph.op(name)
    inputs = [graph.shape(tensor) if tensor else None for tensor in node["inputs"]]
    output = graph.shape(node["outputs"][0]) if node["outputs"] else None
    if op == "Attention":
        return 2.0 * _attention(node["op"], inputs, node["attributes"])
    if is_product(op):
        attributes, flipped = node["attributes"], node["op"].rpartition(".")[2] in {"FusedMatMul", "TransposeMatMul"}
        if flipped and attributes.get("transA") and inputs[0] is not None:
            inputs[0] = (*inputs[0][:-2], inputs[0][-1], inputs[0][-2])
        try:
            return 2.0 * multiply_adds(op, inputs, output, attributes)
        except (ValueError, IndexError) as error:  # operands of a rank that the operator has not
            raise UncountableError from error
    read = math.prod(inputs[0]) if inputs and inputs[0] is not None else 0
    written = math.prod(output) if output is not None else 0
    if op in NORMALISATIONS:
        return float(_NORM_OPERATIONS * read)
    if op in POOLS and node["attributes"].get("kernel_shape"):
        return float(written * math.prod(node["attributes"]["kernel_shape"]))
    if op in REDUCTIONS:
        return float(read)
    return float(written) if op in ELEMENTWISE or op in QUANTISERS else 0.0


def _attention(op: str, inputs: Sequence[tuple[int, ...] | None], attributes: dict[str, object]) -> int:
    """Count the products of scores and context; those of the projections too where the operator has them."""
    query, key = (inputs[0] if inputs else None), (inputs[1] if len(inputs) > 1 else None)
    if query is None or key is None:
        raise UncountableError
    if op in {"com.microsoft.Attention", "com.microsoft.QAttention"}:  # weights stand second
        if len(query) != _THREE or len(key) != 2:  # noqa: PLR2004 - a matrix
            raise UncountableError
        batch, length, width = query
        return batch * length * width * key[1] + 2 * batch * length * length * key[1] // 3
    value = inputs[2] if len(inputs) > 2 and inputs[2] is not None else key  # noqa: PLR2004 - the third
    if len(query) == len(key) == len(value) == _FOUR:
        batch, heads, length, width = query
        return batch * heads * length * key[2] * (width + value[3])
    if len(query) == len(key) == len(value) == _THREE:
        q_heads, kv_heads = attributes.get("q_num_heads", 1), attributes.get("kv_num_heads", 1)
        if not isinstance(q_heads, int) or not isinstance(kv_heads, int) or not kv_heads:
            raise UncountableError
        batch, length, width = query
        return batch * length * key[1] * (width + value[2] * q_heads // kv_heads)
    raise UncountableError


def layer_bytes(graph: Graph, place: int) -> int | None:
    """Count the bytes that a layer reads and writes; None where a shape or a type is not known."""
    layer = graph.profile["layers"][place]
    ops = [graph.op(name) for name in layer["nodes"] if name in graph.nodes]
    if graph.profile["source"] == "onnxruntime" and ops and set(ops) <= VIEWS | SHAPES:
        return 0  # the buffer of the input is that of the output
    looked_up = _looked_up(graph, layer["nodes"])
    tensors: list[LayerTensor] = [*layer["inputs"], *layer["constants"], *layer["outputs"]]
    listed = _listed_bytes(layer, looked_up) if tensors else None
    return _boundary_bytes(graph, layer["nodes"], looked_up) if listed is None else listed


def _looked_up(graph: Graph, names: Sequence[str]) -> int | None:
    """Return the elements that look-ups of a layer write: no more are read of a table; None without a look-up."""
    sizes = [
        math.prod(shape)
        for name in names
        if name in graph.nodes and graph.op(name) in _LOOKUPS
        for tensor in graph.nodes[name]["outputs"]
        if (shape := graph.shape(tensor)) is not None
    ]
    return sum(sizes) if sizes else None


def _listed_bytes(layer: Layer, looked_up: int | None) -> int | None:
    total = 0
    for tensor in (*layer["inputs"], *layer["constants"]):
        size = size_of(tensor["shape"], tensor["dtype"])
        if size is None:
            return None
        total += _read(size, tensor["shape"] or (), looked_up)
    written = [size_of(tensor["shape"], tensor["dtype"]) for tensor in layer["outputs"]]
    return None if None in written or not written else total + sum(size for size in written if size is not None)


def _read(size: int, shape: Sequence[int], looked_up: int | None) -> int:
    elements = math.prod(shape)
    return size if looked_up is None or elements <= looked_up else size * looked_up // elements


def _boundary_bytes(graph: Graph, names: Sequence[str], looked_up: int | None) -> int | None:
    known = [name for name in names if name in graph.nodes]
    if not known:
        return None
    reads, writes = graph.boundary(known)
    total = 0
    for tensor, is_read in [*((tensor, True) for tensor in reads), *((tensor, False) for tensor in writes)]:
        size = size_of(graph.shape(tensor), graph.dtype(tensor))
        if size is None:
            return None
        total += _read(size, graph.shape(tensor) or (), looked_up) if is_read else size
    return total


def compute_dtype(graph: Graph, place: int) -> str | None:
    """Return the type in which a layer computes: that of its largest operands, the wider of activations and weights."""
    layer = graph.profile["layers"][place]
    names = [name for name in layer["nodes"] if name in graph.nodes]
    products = [name for name in names if is_product(graph.op(name))]
    kinds = [_largest(layer["inputs"]), _largest(layer["constants"])]
    if kinds[0] is not None and not any(is_product(graph.op(name)) for name in owned_nodes(graph, place)) and names:
        kinds = kinds[:1]  # the scale of a pooling or a norm may be wider than what it reads
    if not any(kinds):
        tensors = graph.nodes[products[0]]["inputs"][:2] if products else graph.boundary(names)[0]
        kinds = [graph.dtype(_before_dequantise(graph, tensor, names)) for tensor in tensors]
    present = {"fp8" if kind.startswith("fp8") else kind for kind in kinds if kind is not None}
    found = next((kind for kind in COMPUTES if kind in present), None)
    return "int8" if found == "uint8" else found


def _before_dequantise(graph: Graph, tensor: str, names: Sequence[str]) -> str:
    """Return what a DequantizeLinear of the same layer reads, where it writes `tensor`."""
    writer = graph.writer.get(tensor)
    inside = writer is not None and writer in names and graph.op(writer) == "DequantizeLinear"
    return graph.nodes[writer]["inputs"][0] if inside and writer is not None else tensor


def _largest(tensors: Sequence[LayerTensor]) -> str | None:
    kinds = [
        (math.prod(tensor["shape"] or ()), kind)
        for tensor in tensors
        if (kind := plain_dtype(tensor["dtype"])) is not None and (kind in COMPUTES or kind.startswith("fp8"))
    ]
    return max(kinds, key=lambda item: item[0])[1] if kinds else None


def category(graph: Graph, place: int) -> Category:
    """Name what a layer does, by the most costly of the operators that count to it."""
    layer = graph.profile["layers"][place]
    ops = [graph.op(name) for name in owned_nodes(graph, place)]
    if layer["added"] is not None:
        return "data movement"
    if not ops and layer["nodes"] and any(name in graph.nodes for name in layer["nodes"]):
        return "data movement"  # it prepares the operands of a product that another layer computes
    words = _CAMEL.findall(layer["name"].partition("__myl_")[2].rpartition("_myl")[0])
    if words and set(words) <= _MOVING_WORDS:
        return "data movement"
    return _by_ops(ops, layer) if ops else _by_name(layer)


def _by_ops(ops: Sequence[str], layer: Layer) -> Category:
    products, kinds = [op for op in ops if is_product(op)], set(ops)
    is_attention = "mha" in layer["name"].lower() or ("Softmax" in ops and len(products) > 1)
    tests: tuple[tuple[Category, object], ...] = (
        ("attention", "Attention" in products or is_attention),
        ("convolution", any("Conv" in op for op in products)),
        ("gemm", products),
        ("normalisation", kinds & NORMALISATIONS or {"ReduceMean", "Sqrt"} <= kinds),
        ("reduction", kinds & REDUCTIONS),
        ("elementwise", kinds & (ELEMENTWISE - {"Where"})),
        ("quantisation", kinds & QUANTISERS),
        ("data movement", kinds & MOVES),
    )
    return next((name for name, holds in tests if holds), "other")


def _by_name(layer: Layer) -> Category:
    """Name what a layer without nodes does by its type; by the name of its kernel where the type does not tell."""
    for text in (layer["kind"].lower(), layer["name"].lower() if layer["name"].startswith("_") else ""):
        for words, name in _NO_NODE:
            if any(word in text for word in words):
                return name
    return "other"
