"""Write a user's file in the form that every library reads alike: shapes as the user fixed them, names that are unique.

Exporters call unrelated dimensions alike (``?``, ``unk__10``), and onnxruntime and TensorRT take dimensions of one name
for dimensions of one size. onnxruntime refuses two nodes of one name, and converters know no sparse initializers.
"""

from __future__ import annotations

import re
import shutil
from collections import Counter
from typing import TYPE_CHECKING

from sweep.models import external_data
from sweep.system import make_node_names_unique, nested_graphs, save_onnx

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    import onnx

    from sweep.models.signatures import TensorSpec

NORMAL_FORM_REVISION = 2
"""Raise it when the same file is written otherwise."""

_MEANINGLESS = re.compile(r"\?|unk__\d+|None|-1|\*", re.IGNORECASE)  # names that exporters give to any dimension


def is_irregular(model: onnx.ModelProto) -> bool:
    """Tell whether a file needs another form whatever its shapes are.

    It has two nodes of one name, sparse initializers, or dimensions with a name that says nothing.
    """
    graphs = list(nested_graphs(model.graph))
    names = Counter(node.name for graph in graphs for node in graph.node if node.name)
    dims = (dim.dim_param for graph in graphs for value in _values(graph) for dim in _dims(value.type))
    return (
        any(count > 1 for count in names.values())
        or any(graph.sparse_initializer for graph in graphs)
        or any(_MEANINGLESS.fullmatch(name) for name in dims)
    )


def fixes_sizes(declared: Iterable[TensorSpec], settled: Iterable[TensorSpec]) -> bool:
    """Tell whether sizes that the file leaves open are settled to numbers, or its inputs to shapes that it lacks."""
    pairs = [(before.shape, after.shape) for before, after in zip(declared, settled, strict=True)]
    return any(
        len(before) != len(after)
        or any(isinstance(one, str) and isinstance(other, int) for one, other in zip(before, after, strict=True))
        for before, after in pairs
    )


def write_normal_form(path: Path, inputs: Iterable[TensorSpec], target: Path) -> None:
    """Write the same function with its input shapes as settled, unique node names and dense initializers.

    Every other named dimension loses its name, since the name may be that of an input that has a size of its own now;
    what libraries need of these they infer. In a graph with branches, sizes that the file leaves open stay open: a
    library infers shapes in a branch that never runs, too, and refuses the file if they do not fit there. External
    data is copied beside the target.

    Args:
        path: the user's file.
        inputs: its inputs, settled; the batch becomes the symbol ``batch``.
        target: the file to write.
    """
    import onnx

    model = onnx.load(path, load_external_data=False)
    files = external_data.files(path, list(external_data.tensors(model)))
    settled = {spec.name: spec.shape for spec in inputs}
    branches = len(list(nested_graphs(model.graph))) > 1
    fixed = {value.name: [dim.dim_value > 0 for dim in _dims(value.type)] for value in model.graph.input}
    for graph in list(nested_graphs(model.graph)):
        for value in _values(graph):
            for dim in _dims(value.type):
                if dim.HasField("dim_param") or dim.dim_value < 0:
                    dim.Clear()
        _store_densely(graph, path)
    for value in model.graph.input:
        if value.name in settled:
            shape = settled[value.name]
            written = [not branches or isinstance(size, str) for size in shape]
            if branches and len(fixed[value.name]) == len(shape):
                written = [known or was_fixed for known, was_fixed in zip(written, fixed[value.name], strict=True)]
            _set_shape(value, [size if known else None for size, known in zip(shape, written, strict=True)])
    make_node_names_unique(model.graph)
    save_onnx(model, target)
    for item in files:
        copy = target.parent / item.location
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path.parent / item.location, copy)


def _values(graph: onnx.GraphProto) -> Iterator[onnx.ValueInfoProto]:
    yield from graph.input
    yield from graph.output
    yield from graph.value_info


def _dims(kind: onnx.TypeProto) -> Iterator[onnx.TensorShapeProto.Dimension]:
    """Yield the dimensions of a tensor, or of the tensors in a sequence, a map or an optional value."""
    word = kind.WhichOneof("value")
    if word in {"tensor_type", "sparse_tensor_type"}:
        yield from getattr(kind, word).shape.dim
    elif word in {"sequence_type", "optional_type"}:
        yield from _dims(getattr(kind, word).elem_type)
    elif word == "map_type":
        yield from _dims(kind.map_type.value_type)


def _set_shape(value: onnx.ValueInfoProto, shape: Sequence[int | str | None]) -> None:
    tensor = value.type.tensor_type
    tensor.ClearField("shape")
    tensor.shape.SetInParent()
    for size in shape:
        if size is None:
            tensor.shape.dim.add()
        elif isinstance(size, int):
            tensor.shape.dim.add(dim_value=size)
        else:
            tensor.shape.dim.add(dim_param=size)


def _store_densely(graph: onnx.GraphProto, path: Path) -> None:
    import numpy as np
    from onnx import numpy_helper

    for sparse in graph.sparse_initializer:
        values = numpy_helper.to_array(sparse.values, str(path.parent))
        indices = numpy_helper.to_array(sparse.indices, str(path.parent))
        array = np.zeros(tuple(sparse.dims), values.dtype)
        if indices.ndim == 1:
            array.reshape(-1)[indices] = values
        else:
            array[tuple(indices.T)] = values
        graph.initializer.append(numpy_helper.from_array(array, sparse.values.name))
    del graph.sparse_initializer[:]
