"""How large the tensors of a float32 graph become over the calibration data, found by running it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.errors import ConversionError
from sweep.typed_onnx import graph as graphs
from sweep.typed_onnx.tools import quiet

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from onnx import ModelProto

    from sweep.axes import Precision

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
    import onnxruntime

    if not names:
        return {}
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    with tempfile.TemporaryDirectory(prefix="sweep-ranges-") as folder, quiet():
        path = Path(folder, "measured.onnx")
        _save_measured(model, names, path)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        rows = [session.run([name + _SUFFIX for name in names], dict(batch)) for batch in calibration]
    found = np.asarray(rows, np.float64).max(axis=0)
    return dict(zip(names, map(float, found), strict=True))


def _save_measured(model: ModelProto, names: Sequence[str], path: Path) -> None:
    """Saves ``model`` with a maximum of each tensor as a further output, then takes them out again."""
    from onnx import TensorProto, external_data_helper, helper

    large = graphs.is_large(model)
    graph, nodes, outputs = model.graph, len(model.graph.node), len(model.graph.output)
    try:
        for name in names:
            size, result = f"{name}__size", name + _SUFFIX
            graph.node.append(helper.make_node("Abs", [name], [size]))
            graph.node.append(helper.make_node("ReduceMax", [size], [result], keepdims=0))
            graph.output.append(helper.make_tensor_value_info(result, TensorProto.FLOAT, []))
        graphs.save(model, path)
    finally:
        del graph.node[nodes:], graph.output[outputs:]
    if large:  # saving beside the graph moved the weights out of it
        external_data_helper.load_external_data_for_model(model, str(path.parent))


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
