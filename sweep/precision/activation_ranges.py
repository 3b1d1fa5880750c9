"""Compute the largest magnitude of each tensor of a float32 graph over the calibration data, by running the graph."""

from __future__ import annotations

import contextlib
import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.errors import ConversionError
from sweep.precision import onnx_graph
from sweep.precision.onnx_tools import quiet_onnxruntime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy as np
    from onnx import ModelProto

    from sweep.spec import Precision

UNSEEN = -math.inf
"""Stand for the magnitude of a tensor that was empty over all calibration data."""

_MAGNITUDE_SUFFIX = "__largest"


def largest_magnitudes(
    model: ModelProto, names: Sequence[str], calibration: Sequence[Mapping[str, np.ndarray]]
) -> dict[str, float]:
    """Compute the largest |x| of each tensor over all batches.

    Each maximum is taken inside the graph, so memory stays that of one inference.

    Args:
        model: a float32 graph with its weights loaded; unchanged afterwards.
        names: float32 tensors of its outermost graph.
        calibration: batches, each an array for every graph input by name.

    Returns:
        The magnitude by tensor name; ``inf`` where a value is infinite, NaN where one is NaN, ``UNSEEN`` where
        the tensor held no value in any batch. A batch in which it holds none adds nothing.
    """
    import numpy as np

    if not names:
        return {}
    with extra_outputs(model, {name: ("ReduceMax", name + _MAGNITUDE_SUFFIX) for name in names}) as run:
        rows = [run(batch) for batch in calibration]
    magnitudes = np.asarray(rows, np.float64).max(axis=0)
    magnitudes[magnitudes < 0] = UNSEEN  # the largest value of nothing, which no magnitude is
    return dict(zip(names, map(float, magnitudes), strict=True))


def tensor_bytes(model: ModelProto, names: Sequence[str], batch: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Measure how large each float32 tensor is in an inference.

    Args:
        model: a float32 graph with its weights loaded; unchanged afterwards.
        names: float32 tensors of its outermost graph.
        batch: an array for every graph input by name.

    Returns:
        Bytes by tensor name.
    """
    if not names:
        return {}
    with extra_outputs(model, {name: ("Size", f"{name}__count") for name in names}) as run:
        return {name: 4 * int(size) for name, size in zip(names, run(batch), strict=True)}


def chunk_by_size(names: Sequence[str], sizes: Mapping[str, int], limit_bytes: int) -> Iterator[list[str]]:
    """Cut a list of tensors into chunks of limited size, in order.

    Args:
        names: tensor names.
        sizes: bytes by tensor name.
        limit_bytes: most bytes in a chunk; a single larger tensor is a chunk by itself.

    Yields:
        The names of one chunk.
    """
    chunk: list[str] = []
    total = 0
    for name in names:
        if chunk and total + sizes[name] > limit_bytes:
            yield chunk
            chunk, total = [], 0
        chunk.append(name)
        total += sizes[name]
    if chunk:
        yield chunk


@contextlib.contextmanager
def extra_outputs(
    model: ModelProto, requests: Mapping[str, tuple[str, str]]
) -> Iterator[Callable[[Mapping[str, np.ndarray]], list[Any]]]:
    """Open a session that returns a value derived from each requested tensor.

    Args:
        model: a graph with its weights loaded; unchanged afterwards.
        requests: by tensor: the op to apply to it (``Identity``, ``Size``, or ``ReduceMax`` of its magnitude), and the
            name that that op's output should have.

    Yields:
        A function from a batch, an array for every graph input by name, to the outputs in the order of ``requests``.
    """
    import onnxruntime

    graph, nodes, outputs = model.graph, len(model.graph.node), len(model.graph.output)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        names = _append_outputs(model, requests)
        with quiet_onnxruntime(), temporary_model_file(model) as path:
            session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    finally:
        del graph.node[nodes:], graph.output[outputs:]
    yield lambda batch: list(session.run(names, dict(batch)))


@contextlib.contextmanager
def temporary_model_file(model: ModelProto) -> Iterator[Path]:
    """Save a model to a file for the duration of a context; the model keeps its weights.

    Args:
        model: a graph with its weights loaded.

    Yields:
        The path of the file.
    """
    from onnx import external_data_helper

    large = onnx_graph.is_large(model)
    with tempfile.TemporaryDirectory(prefix="sweep-ranges-") as folder:
        path = Path(folder, "measured.onnx")
        onnx_graph.save(model, path)
        if large:  # saving to a second file moved the weights out of the graph
            external_data_helper.load_external_data_for_model(model, folder)
        yield path


def _append_outputs(model: ModelProto, requests: Mapping[str, tuple[str, str]]) -> list[str]:
    """Append the requested ops to the graph, declare their results as outputs and return the names of these."""
    from onnx import TensorProto, helper

    fresh, results = onnx_graph.FreshNames(model.graph), []
    for name, (op, wanted) in requests.items():
        result = fresh.take(wanted)
        results.append(result)
        if op == "ReduceMax":
            size = fresh.take(f"{name}__size")
            model.graph.node.append(helper.make_node("Abs", [name], [size]))
            model.graph.node.append(helper.make_node(op, [size], [result], keepdims=0))
        else:
            model.graph.node.append(helper.make_node(op, [name], [result]))
        kind = TensorProto.INT64 if op == "Size" else TensorProto.FLOAT
        model.graph.output.append(helper.make_tensor_value_info(result, kind, None if op == "Identity" else []))
    return results


def float_tensors(model: ModelProto) -> list[str]:
    """List the float32 tensors that the outermost graph takes as input or computes.

    Args:
        model: a graph with its types inferred.

    Returns:
        Tensor names: the graph's inputs, then the nodes' outputs in graph order.
    """
    from onnx import TensorProto

    stored = {tensor.name for tensor in model.graph.initializer}
    scope = onnx_graph.element_types(model.graph)
    outputs = [name for node in model.graph.node for name in node.output]
    inputs = [value.name for value in model.graph.input if value.name not in stored]
    return [name for name in (*inputs, *outputs) if scope.get(name) == TensorProto.FLOAT]


def check_calibration_batches(precision: Precision, calibration: Sequence[Mapping[str, np.ndarray]]) -> None:
    """Refuse calibration data from which no range can be computed: no batch at all, or values that are not finite.

    Args:
        precision: the recipe, for the message.
        calibration: batches, each an array for every graph input by name.

    Raises:
        ConversionError: there is no batch, or the message names the batch and the input that is not finite.
    """
    import numpy as np

    if not calibration:
        raise ConversionError(
            f"precision {precision.name} got no calibration batches: set calibration_batches to 1 or more"
        )
    for index, batch in enumerate(calibration):
        bad = [name for name, value in batch.items() if value.dtype.kind == "f" and not np.isfinite(value).all()]
        if bad:
            raise ConversionError(
                f"calibration batch {index} holds NaN or Inf in {bad[0]}: narrow the range of that input"
            )
