"""How large the tensors of a float32 graph become over the calibration data, found by running it."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.errors import ConversionError
from sweep.precision import graph as graphs
from sweep.precision.onnx_tools import quiet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy as np
    from onnx import ModelProto

    from sweep.spec import Precision

_SUFFIX = "__largest"


def largest(
    model: ModelProto, names: Sequence[str], calibration: Sequence[Mapping[str, np.ndarray]]
) -> dict[str, float]:
    """The largest |x| of each tensor over all batches; ``inf`` where one is infinite, NaN where one is.

    Each maximum is taken inside the graph, so memory stays that of one inference.

    Args:
        model: a float32 graph with its weights loaded; given back as it was.
        names: float32 tensors of its outermost graph.
        calibration: batches, each a dict of every graph input by name.
    """
    import numpy as np

    if not names:
        return {}
    with exposed(model, {name: ("ReduceMax", name + _SUFFIX) for name in names}) as run:
        rows = [run(batch) for batch in calibration]
    found = np.asarray(rows, np.float64).max(axis=0)
    return dict(zip(names, map(float, found), strict=True))


def bytes_of(model: ModelProto, names: Sequence[str], batch: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Bytes of each float32 tensor in an inference on ``batch``."""
    if not names:
        return {}
    with exposed(model, {name: ("Size", f"{name}__count") for name in names}) as run:
        return {name: 4 * int(size) for name, size in zip(names, run(batch), strict=True)}


def chunks(names: Sequence[str], sizes: Mapping[str, int], at_once: int) -> Iterator[list[str]]:
    """The names in order, cut so that the sizes of each part sum to ``at_once`` or it holds one name."""
    held: list[str] = []
    total = 0
    for name in names:
        if held and total + sizes[name] > at_once:
            yield held
            held, total = [], 0
        held.append(name)
        total += sizes[name]
    if held:
        yield held


@contextlib.contextmanager
def exposed(
    model: ModelProto, wanted: Mapping[str, tuple[str, str]]
) -> Iterator[Callable[[Mapping[str, np.ndarray]], list[Any]]]:
    """A function from a batch to something of each wanted tensor, in their order.

    Args:
        model: a graph with its weights loaded; given back as it was.
        wanted: by tensor: the op that is put on it (``Identity``, ``Size``, or ``ReduceMax`` of its magnitude), and
            the name of what that gives.
    """
    import onnxruntime

    graph, nodes, outputs = model.graph, len(model.graph.node), len(model.graph.output)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        _put(model, wanted)
        with quiet(), on_disk(model) as path:
            session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    finally:
        del graph.node[nodes:], graph.output[outputs:]
    names = [result for _, result in wanted.values()]
    yield lambda batch: list(session.run(names, dict(batch)))


@contextlib.contextmanager
def on_disk(model: ModelProto) -> Iterator[Path]:
    """A file of ``model`` for as long as it is needed; ``model`` keeps its weights."""
    from onnx import external_data_helper

    large = graphs.is_large(model)
    with tempfile.TemporaryDirectory(prefix="sweep-ranges-") as folder:
        path = Path(folder, "measured.onnx")
        graphs.save(model, path)
        if large:  # saving beside the graph moved the weights out of it
            external_data_helper.load_external_data_for_model(model, folder)
        yield path


def _put(model: ModelProto, wanted: Mapping[str, tuple[str, str]]) -> None:
    """Makes something of each wanted tensor a further output."""
    from onnx import TensorProto, helper

    for name, (op, result) in wanted.items():
        if op == "ReduceMax":
            model.graph.node.append(helper.make_node("Abs", [name], [f"{name}__size"]))
            model.graph.node.append(helper.make_node(op, [f"{name}__size"], [result], keepdims=0))
        else:
            model.graph.node.append(helper.make_node(op, [name], [result]))
        kind = TensorProto.INT64 if op == "Size" else TensorProto.FLOAT
        model.graph.output.append(helper.make_tensor_value_info(result, kind, None if op == "Identity" else []))


def floats(model: ModelProto) -> list[str]:
    """Every float32 tensor that is computed in, or fed to, the outermost graph of an inferred model."""
    from onnx import TensorProto

    stored = {tensor.name for tensor in model.graph.initializer}
    scope = graphs.types(model.graph)
    made = [name for node in model.graph.node for name in node.output]
    fed = [value.name for value in model.graph.input if value.name not in stored]
    return [name for name in (*fed, *made) if scope.get(name) == TensorProto.FLOAT]


def check_calibration(precision: Precision, calibration: Sequence[Mapping[str, np.ndarray]]) -> None:
    """Refuses to draw ranges from nothing, or from values that are not finite.

    Raises:
        ConversionError: which batch and which input.
    """
    import numpy as np

    if not calibration:
        raise ConversionError(
            f"precision {precision.name} got no calibration batches: set calibration_batches to 1 or more"
        )
    for index, batch in enumerate(calibration):
        bad = [name for name, value in batch.items() if value.dtype.kind == "f" and not np.isfinite(value).all()]
        if bad:
            raise ConversionError(f"calibration batch {index} holds NaN or Inf in {bad[0]}: narrow that input's range")
