"""Author layer profiles for tests: a few layers with their times and nodes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from sweep.analysis.layers import analyse
from sweep.report.layers import Source
from sweep.storage import LayerProfile

if TYPE_CHECKING:
    from collections.abc import Sequence

CONV = {"inputs": ["x", "w"], "outputs": ["c"], "attributes": {"kernel_shape": [3, 3]}}


def time(median_us: float) -> dict[str, Any]:
    """Durations that hardly differ."""
    return {"median_us": median_us, "p10_us": median_us * 0.9, "p90_us": median_us * 1.2, "count": 50}


def layer(name: str, us: float | None, *nodes: str, dtype: str = "fp16", **changes: Any) -> dict[str, Any]:
    """One layer that computes `nodes`; without any, a reformat of the library."""
    tensor = {"name": "t", "shape": [8, 64, 56, 56], "dtype": dtype, "format": "NHWC"}
    return {
        "name": name,
        "kind": "correlation" if nodes else "reformat",
        "time": None if us is None else time(us),
        "nodes": list(nodes),
        "added": None if nodes else "reformat",
        "inputs": [tensor],
        "constants": [],
        "outputs": [tensor],
        "tactic": None,
        "stream": 0,
        **changes,
    }


def profile(label: str, layers: Sequence[dict[str, Any]], ops: dict[str, str], **changes: Any) -> dict[str, Any]:
    """A profile as its file holds it; `ops` has the operator of each node."""
    whole = sum(item["time"]["median_us"] for item in layers if item["time"])
    nodes = [
        {"name": name, "op": op, "inputs": [f"{name}_in"], "outputs": [f"{name}_out"], "attributes": {}}
        for name, op in ops.items()
    ]
    shape = {"shape": [8, 64, 56, 56], "dtype": "fp16", "constant": False}
    return {
        "schema": 1,
        "key": label.replace(" ", "-"),
        "label": label,
        "backend": "tensorrt_rtx",
        "device": "NVIDIA H200",
        "batch": 8,
        "precision": "fp16",
        "inferences": 50,
        "source": "library",
        "cuda_graph": False,
        "timed_us": whole + 10.0,
        "profiled_us": None,
        "layer_cost_us": None,
        "gaps_us": None,
        "layers": list(layers),
        "nodes": nodes,
        "tensors": {f"{name}_{end}": shape for name in ops for end in ("in", "out")},
        "notes": [],
        **changes,
    }


def source(label: str, layers: Sequence[dict[str, Any]], ops: dict[str, str], **changes: Any) -> Source:
    """The same, read and analysed."""
    typed = msgspec.convert(profile(label, layers, ops, **changes), LayerProfile)
    return Source(profile=typed, analysis=analyse(typed, every=True), path=Path("layers.json"))


def write(path: Path, content: dict[str, Any]) -> Path:
    """Write a profile to its file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


FP16 = (
    [layer("conv1+relu1", 100.0, "block1/conv", "block1/relu"), layer("conv2", 50.0, "block2.conv")],
    {"block1/conv": "Conv", "block1/relu": "Relu", "block2.conv": "Conv"},
)
INT8 = (
    [
        layer("quantise1", 60.0, "block1/conv_q", dtype="int8"),
        layer("conv1", 70.0, "block1/conv", dtype="int8"),
        layer("relu1", 20.0, "block1/relu", dtype="int8"),
        layer("conv2", 50.0, "block2.conv", dtype="int8"),
        layer("reformat", 15.0),
    ],
    {
        "block1/conv_q": "QuantizeLinear",
        "block1/conv": "Conv",
        "block1/relu": "Relu",
        "block2.conv": "Conv",
    },
)
