"""Run NVIDIA's Model Optimizer in the child process that ``sweep.precision.modelopt`` starts.

The child reads one JSON line per request on stdin and answers with one; what Model Optimizer prints goes to stderr. It
may run in an interpreter that has neither `sweep` nor its dependencies: nothing is imported here but the standard
library and ``sweep.system.child_process``.

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

from sweep.system import array_files, required, save_onnx, serve

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

SOURCE, TYPED, BATCHES, GUARD_BATCHES = "source.onnx", "typed.onnx", "batches", "guard_batches"
TOOLS = ("nvidia-modelopt", "numpy", "onnx", "onnx-graphsurgeon", "onnxruntime")
_NEEDED_BY = "precision.tool=modelopt"
_INSTALL = "pip install 'trt-sweep[modelopt]', or name an interpreter that has it in SWEEP_MODELOPT_PYTHON"


def main() -> None:
    """Answer requests until stdin ends."""
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


def _convert(folder: Path, request: Mapping[str, Any]) -> None:
    """Write the typed graph beside the source: first the Q/DQ pairs in a float32 graph, then the rest in 16 bits.

    The range guard of a mixed precision runs on the source. It runs its graph on onnxruntime with all optimizations,
    which take fp8 pairs for integers and either refuse them or give other values.
    """
    sys.modules["tensorrt"] = None  # type: ignore[assignment]  # Model Optimizer would build an engine with it, which takes a GPU
    source, typed = folder / SOURCE, folder / TYPED
    if request["quantized"] is None:
        _save(_cast(source, request, guard=request["guard"]), typed, request)
        return
    fp32_nodes = _fp32_nodes(_cast(source, request, guard=True)) if request["guard"] else ()
    quantized = folder / "quantized.onnx" if request["rest"] else typed
    _quantize(source, quantized, request)
    if request["rest"]:
        _save(_cast(quantized, request, fp32_nodes=fp32_nodes), typed, request)


def _quantize(source: Path, target: Path, request: Mapping[str, Any]) -> None:
    """Quantize with weights stored in their type behind a DequantizeLinear (``dq_only``)."""
    quantization = required("modelopt.onnx.quantization", _NEEDED_BY, _INSTALL)
    quantization.quantize(
        str(source),
        quantize_mode=request["quantized"],
        calibration_data_reader=_reader(source.parent / BATCHES),
        calibration_method=request["method"],
        calibration_eps=["cpu"],
        op_types_to_quantize=request["ops"] or None,
        use_external_data_format=request["large"],
        output_path=str(target),
        high_precision_dtype="fp32",
        direct_io_types=not request["keep_io"],
        dq_only=True,
    )


def _cast(source: Path, request: Mapping[str, Any], *, guard: bool = False, fp32_nodes: Collection[str] = ()) -> Any:
    """Cast the graph's float32 to 16 bits, except the nodes in ``fp32_nodes`` and those that the range guard finds."""
    autocast = required("modelopt.onnx.autocast", _NEEDED_BY, _INSTALL)
    ranges = (
        {"calibration_data": str(source.parent / GUARD_BATCHES)}
        if guard
        else {"data_max": math.inf, "init_max": math.inf}
    )
    return autocast.convert_to_mixed_precision(
        str(source),
        low_precision_type=request["rest"],
        keep_io_types=request["keep_io"],
        nodes_to_exclude=[f"{re.escape(name)}$" for name in fp32_nodes],
        **ranges,
    )


def _fp32_nodes(model: Any) -> tuple[str, ...]:
    """Name the nodes of a cast graph that produce float32, except the Casts."""
    from onnx import TensorProto

    values = (*model.graph.value_info, *model.graph.output)
    fp32_tensors = {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    return tuple(node.name for node in model.graph.node if node.op_type != "Cast" and fp32_tensors & {*node.output})


def _save(model: Any, target: Path, request: Mapping[str, Any]) -> None:
    save_onnx(model, target, f"{target.name}.data" if request["large"] else None)


def _reader(folder: Path) -> Any:
    """Make the reader of the batches in ``folder`` that Model Optimizer expects."""
    calibrate = required("onnxruntime.quantization.calibrate", _NEEDED_BY, _INSTALL)
    files = sorted(folder.glob("*.npz"))

    def load(file: Path) -> dict[str, Any]:
        return array_files.read_arrays(file, follow=False)

    class Reader(calibrate.CalibrationDataReader):  # type: ignore[name-defined,misc]  # the base class is imported at run time
        def __init__(self) -> None:
            self.rewind()

        def get_first(self) -> dict[str, Any]:
            return load(files[0])

        def get_next(self) -> dict[str, Any] | None:
            file = next(self._remaining, None)
            return None if file is None else load(file)

        def rewind(self) -> None:
            self._remaining = iter(files)

    return Reader()
