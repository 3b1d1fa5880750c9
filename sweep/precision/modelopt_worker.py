"""The child process that runs NVIDIA's Model Optimizer, started by ``sweep.precision.modelopt``.

One JSON line in on stdin, one out; what Model Optimizer prints goes to stderr. It may run in an interpreter that has
neither `sweep` nor its dependencies: nothing is imported from here but the standard library and ``child_process``.

Source:
    https://nvidia.github.io/Model-Optimizer/guides/_onnx_quantization.html and .../guides/8_autocast.html
"""

from __future__ import annotations

import importlib.metadata
import math
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.system.child_process import required, serve

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

SOURCE, TYPED, BATCHES, SEEN = "source.onnx", "typed.onnx", "batches", "seen"
TOOLS = ("nvidia-modelopt", "numpy", "onnx", "onnx-graphsurgeon", "onnxruntime")
_ASKED = "precision.tool=modelopt"
_INSTALL = "pip install 'trt-sweep[modelopt]', or name an interpreter that has it in SWEEP_MODELOPT_PYTHON"


def main() -> None:
    """Answer what is asked, until stdin ends."""
    serve(_answer)


def _answer(message: Mapping[str, Any]) -> dict[str, Any]:
    if message.get("versions"):
        return {"versions": {name: _version(name) for name in TOOLS}}
    _convert(Path(message["folder"]), message)
    return {"versions": {name: _version(name) for name in TOOLS}}


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _convert(folder: Path, asked: Mapping[str, Any]) -> None:
    """Writes the typed graph beside the source: first the Q/DQ pairs in a float32 graph, then the rest in 16 bits.

    The guard of a mix looks at the source: it runs its graph on onnxruntime with all optimisations, and those take fp8
    pairs for integers, and refuse them or give other values.
    """
    sys.modules["tensorrt"] = None  # type: ignore[assignment]  # it would build with it, which takes a GPU
    source, typed = folder / SOURCE, folder / TYPED
    if asked["quantised"] is None:
        _save(_lowered(source, asked, guard=asked["guard"]), typed, asked)
        return
    kept = _in_fp32(_lowered(source, asked, guard=True)) if asked["guard"] else ()
    quantised = folder / "quantised.onnx" if asked["rest"] else typed
    _quantise(source, quantised, asked)
    if asked["rest"]:
        _save(_lowered(quantised, asked, kept=kept), typed, asked)


def _quantise(source: Path, target: Path, asked: Mapping[str, Any]) -> None:
    """Weights are stored in their type behind a DequantizeLinear (``dq_only``)."""
    quantization = required("modelopt.onnx.quantization", _ASKED, _INSTALL)
    quantization.quantize(
        str(source),
        quantize_mode=asked["quantised"],
        calibration_data_reader=_reader(source.parent / BATCHES),
        calibration_method=asked["method"],
        calibration_eps=["cpu"],
        op_types_to_quantize=asked["ops"] or None,
        use_external_data_format=asked["large"],
        output_path=str(target),
        high_precision_dtype="fp32",
        direct_io_types=not asked["keep_io"],
        dq_only=True,
    )


def _lowered(source: Path, asked: Mapping[str, Any], *, guard: bool = False, kept: Collection[str] = ()) -> Any:
    """The graph with its float32 in 16 bits, but for the nodes in ``kept`` and those that the guard finds."""
    autocast = required("modelopt.onnx.autocast", _ASKED, _INSTALL)
    ranges = {"calibration_data": str(source.parent / SEEN)} if guard else {"data_max": math.inf, "init_max": math.inf}
    return autocast.convert_to_mixed_precision(
        str(source),
        low_precision_type=asked["rest"],
        keep_io_types=asked["keep_io"],
        nodes_to_exclude=[f"{re.escape(name)}$" for name in kept],
        **ranges,
    )


def _in_fp32(model: Any) -> tuple[str, ...]:
    """Nodes of a lowered graph that give float32, but for the Casts."""
    from onnx import TensorProto

    values = (*model.graph.value_info, *model.graph.output)
    wide = {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    return tuple(node.name for node in model.graph.node if node.op_type != "Cast" and wide & {*node.output})


def _save(model: Any, target: Path, asked: Mapping[str, Any]) -> None:
    import onnx

    large: dict[str, Any] = {"save_as_external_data": True, "location": f"{target.name}.data"} if asked["large"] else {}
    onnx.save_model(model, str(target), **large)


def _reader(folder: Path) -> Any:
    """The batches in ``folder``, as Model Optimizer wants to read them."""
    import numpy as np

    calibrate = required("onnxruntime.quantization.calibrate", _ASKED, _INSTALL)
    files = sorted(folder.glob("*.npz"))

    def load(file: Path) -> dict[str, Any]:
        with np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)

    class Reader(calibrate.CalibrationDataReader):  # type: ignore[name-defined,misc]  # a class found at run time
        def __init__(self) -> None:
            self.rewind()

        def get_first(self) -> dict[str, Any]:
            return load(files[0])

        def get_next(self) -> dict[str, Any] | None:
            file = next(self._left, None)
            return None if file is None else load(file)

        def rewind(self) -> None:
            self._left = iter(files)

    return Reader()
