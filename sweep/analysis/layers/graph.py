"""Index the graph of a layer profile: who writes and reads a tensor, and which layers compute a node."""

from __future__ import annotations

from collections import defaultdict
from functools import cached_property
from typing import TYPE_CHECKING

from sweep.system import multiplies

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sweep.storage import GraphNode, Layer, LayerProfile

    Shape = tuple[int, ...]

DTYPES = {
    "float": "fp32",
    "float32": "fp32",
    "half": "fp16",
    "float16": "fp16",
    "bfloat16": "bf16",
    "float64": "fp64",
    "double": "fp64",
}
"""Names of types that libraries use beside those of ``LayerTensor.dtype``."""
_ALIASES = {
    "FusedConv": "Conv",
    "NhwcFusedConv": "Conv",
    "QLinearConvTranspose": "ConvTranspose",
    "FusedMatMul": "MatMul",
    "TransposeMatMul": "MatMul",
    "DynamicQuantizeMatMul": "MatMul",
    "MatMulIntegerToFloat": "MatMul",
    "MatMulNBits": "MatMul",
    "FusedGemm": "Gemm",
    "QGemm": "Gemm",
    "FusedGelu": "Gelu",
    "FastGelu": "Gelu",
    "BiasGelu": "Gelu",
    "QuickGelu": "Gelu",
    "SkipLayerNormalization": "LayerNormalization",
    "EmbedLayerNormalization": "LayerNormalization",
    "SimplifiedLayerNormalization": "RMSNormalization",
    "SkipSimplifiedLayerNormalization": "RMSNormalization",
    "QAttention": "Attention",
    "MultiHeadAttention": "Attention",
    "GroupQueryAttention": "Attention",
}
_PRODUCT_WORDS = ("gemm", "conv", "correlation", "matmul", "mha", "attention", "_fc", "matrix", "runtime_fusion")


def base_op(op: str) -> str:
    """Return the operator without its domain; of a library's fused operator, the one that it extends."""
    name = op.rpartition(".")[2]
    return _ALIASES.get(name, name)


def plain_dtype(dtype: str | None) -> str | None:
    """Return a type as ``LayerTensor.dtype`` names it."""
    return None if dtype is None else DTYPES.get(dtype.lower(), dtype.lower())


class Graph:
    """Index the nodes, tensors and layers of a profile.

    Attributes:
        profile: the profile.
        nodes: nodes by name.
        writer: name of the node that writes a tensor.
        readers: names of the nodes that read a tensor.
    """

    def __init__(self, profile: LayerProfile) -> None:
        self.profile = profile
        self.nodes: dict[str, GraphNode] = {node["name"]: node for node in profile["nodes"]}
        self.writer: dict[str, str] = {}
        self.readers: dict[str, list[str]] = defaultdict(list)
        for node in profile["nodes"]:
            for name in node["outputs"]:
                if name:
                    self.writer[name] = node["name"]
            for name in dict.fromkeys(node["inputs"]):
                if name:
                    self.readers[name].append(node["name"])

    @cached_property
    def layers_of(self) -> dict[str, list[int]]:
        """Return the places of the layers that compute each node."""
        places: dict[str, list[int]] = defaultdict(list)
        for index, layer in enumerate(self.profile["layers"]):
            for name in dict.fromkeys(layer["nodes"]):
                if name in self.nodes:
                    places[name].append(index)
        return places

    @cached_property
    def owners(self) -> dict[str, list[int]]:
        """Return the layers to which the work of a node is counted.

        A library names a convolution at the layer that multiplies and at the one that pads its input: the work is the
        former's. Of several that fit, each gets an equal part.
        """
        owners = dict(self.layers_of)
        for name, places in owners.items():
            if len(places) > 1 and is_product(self.op(name)):
                owners[name] = [place for place in places if self._multiplies(place)] or places
        return owners

    def _multiplies(self, place: int) -> bool:
        layer = self.profile["layers"][place]
        text = f"{layer['kind']} {layer['name']}".lower()
        words = text if layer["kind"].lower() not in {"kgen", "reformat"} else _own_words(layer)
        return layer["added"] is None and any(word in words for word in _PRODUCT_WORDS)

    def op(self, name: str) -> str:
        """Return the operator of a node (``base_op``)."""
        return base_op(self.nodes[name]["op"])

    def before(self, name: str, index: int | None = None) -> list[str]:
        """Return the nodes that write the inputs of a node, or its input at `index`."""
        inputs = self.nodes[name]["inputs"]
        wanted = inputs if index is None else inputs[index : index + 1]
        return [self.writer[tensor] for tensor in wanted if tensor in self.writer]

    def after(self, name: str) -> list[str]:
        """Return the nodes that read an output of a node."""
        return list(dict.fromkeys(reader for tensor in self.nodes[name]["outputs"] for reader in self.readers[tensor]))

    def is_output(self, tensor: str) -> bool:
        """Return whether no node reads a tensor that a node writes: it is an output of the graph."""
        return tensor in self.writer and not self.readers.get(tensor)

    def shape(self, tensor: str) -> Shape | None:
        """Return the shape of a tensor; None where it is not known."""
        known = self.profile["tensors"].get(tensor)
        return None if known is None or known["shape"] is None else tuple(known["shape"])

    def dtype(self, tensor: str) -> str | None:
        """Return the type of a tensor; None where it is not known."""
        known = self.profile["tensors"].get(tensor)
        return None if known is None else plain_dtype(known["dtype"])

    def is_constant(self, tensor: str) -> bool:
        """Return whether a tensor is stored in the graph or computed from what is."""
        known = self.profile["tensors"].get(tensor)
        return known is not None and known["constant"]

    def boundary(self, names: Sequence[str]) -> tuple[list[str], list[str]]:
        """Return the tensors that a group of nodes reads from outside, and those that it writes for outside."""
        inside = set(names)
        written = [tensor for name in names for tensor in self.nodes[name]["outputs"] if tensor]
        reads = dict.fromkeys(tensor for name in names for tensor in self.nodes[name]["inputs"] if tensor)
        outside = [tensor for tensor in written if self.is_output(tensor) or set(self.readers[tensor]) - inside]
        return [tensor for tensor in reads if tensor not in written], outside

    def layers(self, names: Iterable[str]) -> list[int]:
        """Return the places of the layers that compute any of `names`, in their order."""
        return sorted({place for name in names for place in self.layers_of.get(name, [])})


def is_product(op: str) -> bool:
    """Return whether an operator multiplies matrices: a product, a convolution, attention or a recurrent layer."""
    return multiplies(op)


def _own_words(layer: Layer) -> str:
    """Return what the name of a generated kernel says of it, without the names of nodes."""
    name = layer["name"].lower()
    return name if name.startswith("_") else ""
