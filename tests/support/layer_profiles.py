"""Author layer profiles: a graph of few nodes, and the layers that compute it with their times."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.storage import GraphNode, GraphTensor, Layer, LayerProfile, LayerTensor

SIDE = 1024


class ProfileAuthor:
    """Collects nodes, tensors and layers of a profile of an H200.

    Args:
        dtype: type of the tensors that are authored without one.
    """

    def __init__(self, dtype: str = "fp16") -> None:
        self.dtype = dtype
        self.nodes: list[GraphNode] = []
        self.tensors: dict[str, GraphTensor] = {}
        self.layers: list[Layer] = []
        self.tensor("x", (SIDE, SIDE))

    def tensor(self, name: str, shape: Sequence[int], dtype: str | None = None, *, constant: bool = False) -> str:
        """A tensor of the graph; gives its name."""
        self.tensors[name] = {"shape": list(shape), "dtype": dtype or self.dtype, "constant": constant}
        return name

    def const(self, shape: Sequence[int] = (), dtype: str | None = None) -> str:
        """A constant; gives its name."""
        return self.tensor(f"w{len(self.tensors)}", shape, dtype, constant=True)

    def op(
        self, kind: str, *inputs: str, shape: Sequence[int] | None = None, dtype: str | None = None, **attributes: Any
    ) -> str:
        """A node, whose output has the shape and type of its first input unless given; gives the output's name."""
        name = f"{kind}{len(self.nodes)}"
        self.nodes.append(
            {"name": name, "op": kind, "inputs": list(inputs), "outputs": [f"{name}_out"], "attributes": attributes}
        )
        first = self.tensors[inputs[0]]
        return self.tensor(f"{name}_out", shape or first["shape"] or (), dtype or first["dtype"])

    def layer(self, *outputs: str, us: float, **more: Any) -> str:
        """A layer that computes the nodes which write `outputs`; gives its name."""
        writers = {tensor: node["name"] for node in self.nodes for tensor in node["outputs"]}
        nodes = [writers[tensor] for tensor in outputs]
        name = more.pop("name", "+".join(nodes) or f"added{len(self.layers)}")
        self.layers.append(
            {
                "name": name,
                "kind": more.pop("kind", "kgen"),
                "time": {"median_us": us, "p10_us": us * 0.9, "p90_us": us * 1.1, "count": 50},
                "nodes": nodes,
                "added": None,
                "inputs": [],
                "constants": [],
                "outputs": [],
                "tactic": None,
                "stream": 0,
                **more,
            }
        )
        return name

    def each(self, us: float) -> None:
        """A layer of its own for each node that has none."""
        computed = {name for layer in self.layers for name in layer["nodes"]}
        for node in self.nodes:
            if node["name"] not in computed:
                self.layer(node["outputs"][0], us=us)

    def product(self, x: str, width: int = SIDE, *, us: float = 250.0) -> str:
        """A MatMul with a stored matrix in a layer of its own; gives its output."""
        rows, inner = self.tensors[x]["shape"] or (SIDE, SIDE)
        y = self.op("MatMul", x, self.const((inner, width)), shape=(rows, width))
        self.layer(y, us=us, kind="gemm")
        return y

    def products(self, x: str = "x", count: int = 4, us: float = 250.0) -> str:
        """Several of them; gives the last output."""
        for _ in range(count):
            x = self.product(x, us=us)
        return x

    def profile(self, **more: Any) -> LayerProfile:
        """The profile; an inference takes as long as its layers."""
        total = sum(layer["time"]["median_us"] for layer in self.layers if layer["time"] is not None)
        fields: Any = {
            "schema": 1,
            "key": "0" * 16,
            "label": "authored",
            "backend": "tensorrt_rtx",
            "device": "NVIDIA H200",
            "batch": 1,
            "precision": self.dtype,
            "inferences": 50,
            "source": "cupti",
            "cuda_graph": False,
            "timed_us": total,
            "profiled_us": None,
            "layer_cost_us": None,
            "gaps_us": None,
            "layers": self.layers,
            "nodes": self.nodes,
            "tensors": self.tensors,
            "notes": [],
            **more,
        }
        return fields  # type: ignore[no-any-return]


def listed(name: str, shape: Sequence[int], dtype: str = "fp16", layout: str = "row major") -> LayerTensor:
    """A tensor as the library lists it."""
    return {"name": name, "shape": list(shape), "dtype": dtype, "format": layout}
