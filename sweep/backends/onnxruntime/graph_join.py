"""Join the nodes of onnxruntime's optimised graph to the nodes of the typed graph that each of them computes.

A fused node is found from its tensors: optimisers keep the names of the tensors that stay, so the nodes of the typed
graph between the outputs and the inputs of a fused node are what it computes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweep.system import nested_graphs, onnx_shapes, subgraphs

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from onnx import GraphProto, NodeProto

_PREFIX = re.compile(r"^(InsertedPrecisionFreeCast_|FusedBack_|FusedFront_)+")  # of tensors that changed their type
_NCHWC = "_nchwc"  # ends the name of a node in a blocked layout, which is that of the tensor it replaced
_ADDED = {  # operators that no node asks for, and why onnxruntime adds them
    "ReorderInput": "reformat",
    "ReorderOutput": "reformat",
    "Transpose": "reformat",
    "MemcpyFromHost": "copy",
    "MemcpyToHost": "copy",
    "Identity": "copy",
    "Cast": "cast",
}
_PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_SUM = 3  # place of the tensor that a blocked convolution adds to its result
_SIZES = ("Shape", "Size")  # folded into constants where the sizes are known


@dataclass(frozen=True, slots=True)
class Joined:
    """Tell what a node of the optimised graph computes.

    Attributes:
        nodes: names of nodes of the typed graph, in its order.
        added: why onnxruntime added it, where no node asks for it.
    """

    nodes: list[str]
    added: str | None


def join(optimised: GraphProto, typed: GraphProto) -> list[Joined]:
    """Return what each node of the optimised graph computes, in its order.

    Args:
        optimised: the graph that onnxruntime runs.
        typed: the graph that it was built from.
    """
    graph = _TypedGraph(typed)
    reads, writes = _typed_tensors(optimised, graph)
    boundary = {name for names in writes for name in names}
    graph.find_constants(boundary)
    joined: list[Joined] = []
    for place, node in enumerate(optimised.node):
        if writes[place] and set(writes[place]) <= set(reads[place]):
            joined.append(Joined([], _ADDED.get(node.op_type, "other")))
            continue
        nodes = graph.between(writes[place], boundary | set(reads[place]), set(node.input))
        joined.append(Joined(nodes, None if nodes else _ADDED.get(node.op_type, "other")))
    return _with_parts(optimised, joined, graph)


def _typed_tensors(optimised: GraphProto, graph: _TypedGraph) -> tuple[list[list[str]], list[list[str]]]:
    """Return the tensors of the typed graph that each node of the optimised one reads, and those that it writes."""
    alias: dict[str, str] = {}
    for node in optimised.node:
        for place, output in enumerate(node.output):
            name = graph.tensor_of(node, place, output)
            if name is not None:
                alias[output] = name
    for node in (*optimised.node, *reversed(optimised.node)):  # a reordered tensor is the same tensor
        if node.op_type == "ReorderOutput" and node.output[0] in alias:
            alias.setdefault(node.input[0], alias[node.output[0]])
        if node.op_type == "ReorderInput":
            source = alias.get(node.input[0]) or graph.plain_name(node.input[0])
            if source is not None:
                alias.setdefault(node.output[0], source)
    reads = [
        [name for text in _inputs(node) if (name := alias.get(text) or graph.plain_name(text)) is not None]
        for node in optimised.node
    ]
    writes = [[alias[text] for text in node.output if text in alias] for node in optimised.node]
    return reads, writes


def _with_parts(optimised: GraphProto, joined: list[Joined], graph: _TypedGraph) -> list[Joined]:
    """Give every part of a node that onnxruntime took apart that node, such as a HardSwish in two.

    The last part alone writes a tensor of the typed graph. A product is in one piece: what is added before it, such as
    the dequantisation of a bias, is no part of it.
    """
    readers: dict[str, list[int]] = {}
    for place, node in enumerate(optimised.node):
        for name in _inputs(node):
            readers.setdefault(name, []).append(place)
    result = list(joined)
    for place in reversed(range(len(joined))):
        later = {number for name in optimised.node[place].output for number in readers.get(name, ())}
        wholes = {tuple(result[reader].nodes) for reader in later}
        if result[place].added != "other" or len(wholes) != 1:
            continue
        nodes = list(wholes.pop())
        operators = {optimised.node[reader].op_type for reader in later}
        if len(nodes) == 1 and graph.operator_of(nodes[0]) not in operators | _PRODUCTS:
            result[place] = Joined(nodes, None)
    return result


def _inputs(node: NodeProto) -> list[str]:
    """Return the tensors that a node reads, also inside its subgraphs."""
    inner = [nested for graph in subgraphs(node) for nested in nested_graphs(graph)]
    return [*filter(None, node.input), *(name for graph in inner for item in graph.node for name in item.input if name)]


class _TypedGraph:
    """Hold the typed graph, with the producer of each tensor."""

    def __init__(self, graph: GraphProto) -> None:
        self._nodes = list(graph.node)
        self._names = onnx_shapes.node_names(graph)
        self._stored = {tensor.name for tensor in graph.initializer}
        self._producer = {name: place for place, node in enumerate(graph.node) for name in node.output if name}
        self._inputs = {value.name for value in graph.input}
        self._by_name = {name: place for place, name in enumerate(self._names)}
        self._constant: set[int] = set()  # nodes that compute nothing but constants

    def find_constants(self, boundary: set[str]) -> None:
        """Find the nodes whose results are constants, unless the optimised graph still computes them."""
        constant = set(self._stored)
        for place, node in enumerate(self._nodes):
            folded = node.op_type in _SIZES or all(name in constant for name in _inputs(node))
            if folded and not any(name in boundary for name in node.output):
                self._constant.add(place)
                constant.update(node.output)

    def operator_of(self, name: str) -> str:
        """Return the operator of the node of this name."""
        return self._nodes[self._by_name[name]].op_type

    def plain_name(self, name: str) -> str | None:
        """Return the typed graph's name of a tensor; None where it has none."""
        for text in (name, _PREFIX.sub("", name)):
            if text in self._producer or text in self._inputs or text in self._stored:
                return text
        return None

    def tensor_of(self, node: NodeProto, place: int, output: str) -> str | None:
        """Return the typed graph's name of an output of a node of the optimised graph; None where it has none."""
        name = self.plain_name(output)
        if name is None and node.name.endswith(_NCHWC) and place == 0:
            name = self._after_fusions(node, self.plain_name(node.name.removesuffix(_NCHWC)))
        if name is None and node.name in self._by_name:
            typed = self._nodes[self._by_name[node.name]]
            name = typed.output[place] if typed.op_type == node.op_type and place < len(typed.output) else None
        return name or None

    def _after_fusions(self, node: NodeProto, name: str | None) -> str | None:
        """Return the tensor after the sum and the activation that a blocked convolution took in; it keeps its name."""
        if name is None or name not in self._producer:
            return name
        first = self._nodes[self._producer[name]].op_type
        if len(node.input) > _SUM and node.input[_SUM]:
            name = self._output_of_reader(name, ("Add", "Sum")) or name
        activation = next((item.s.decode() for item in node.attribute if item.name == "activation"), first)
        return name if activation == first else self._output_of_reader(name, (activation,)) or name

    def _output_of_reader(self, name: str, operators: Sequence[str]) -> str | None:
        """Return the output of the one node with one of these operators that reads a tensor; None without one."""
        readers = [node for node in self._nodes if name in node.input and node.op_type in operators]
        return readers[0].output[0] if len(readers) == 1 else None

    def between(self, outputs: Iterable[str], ends: set[str], read: set[str]) -> list[str]:
        """Return the nodes from which tensors are computed, back to other tensors.

        Args:
            outputs: the tensors.
            ends: tensors that are not followed further, unless they are among the outputs.
            read: tensors that the optimised node reads; a node that computes constants counts where it reads one.
        """
        found: set[int] = set()
        pending = [self._producer[name] for name in outputs if name in self._producer]
        while pending:
            place = pending.pop()
            if place in found:
                continue
            found.add(place)
            for name in _inputs(self._nodes[place]):
                producer = self._producer.get(name)
                if producer is None or name in ends:
                    continue
                if producer not in self._constant or self._reads(producer, read):
                    pending.append(producer)
        return [self._names[place] for place in sorted(found)]

    def _reads(self, place: int, read: set[str]) -> bool:
        """Return whether a node, or one before it, reads a stored tensor that the optimised graph still reads."""
        pending, seen = [place], set[int]()
        while pending:
            number = pending.pop()
            if number in seen:
                continue
            seen.add(number)
            for name in _inputs(self._nodes[number]):
                if name in read and name in self._stored:
                    return True
                if name in self._producer:
                    pending.append(self._producer[name])
        return False
