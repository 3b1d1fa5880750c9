"""The child process that runs NVIDIA's Model Optimizer, started by ``sweep.typed_onnx.modelopt``.

One JSON line in on stdin, one out; what Model Optimizer prints goes to stderr. It may run in an interpreter that has
neither `sweep` nor its dependencies: nothing is imported from here but the standard library and ``side_process``.

Source:
    https://nvidia.github.io/Model-Optimizer/guides/_onnx_quantization.html and .../guides/8_autocast.html
"""

from __future__ import annotations

import importlib.metadata
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.side_process import required, serve

if TYPE_CHECKING:
    from collections.abc import Mapping

SOURCE, TYPED, BATCHES, SEEN = "source.onnx", "typed.onnx", "batches", "seen"
TOOLS = ("nvidia-modelopt", "numpy", "onnx", "onnx-graphsurgeon", "onnxruntime")
_ASKED = "precision.tool=modelopt"
_INSTALL = "pip install 'sweep[modelopt]', or name an interpreter that has it in SWEEP_MODELOPT_PYTHON"


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
    """Writes the typed graph beside the source: first the Q/DQ pairs in a float32 graph, then the rest in 16 bits."""
    sys.modules["tensorrt"] = None  # type: ignore[assignment]  # it would build with it, which takes a GPU
    source = folder / SOURCE
    if asked["quantised"] is not None:
        quantised = folder / ("quantised.onnx" if asked["rest"] else TYPED)
        _quantise(source, quantised, asked)
        source = quantised
    if asked["rest"]:
        _lower(source, folder / TYPED, asked)


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


def _lower(source: Path, target: Path, asked: Mapping[str, Any]) -> None:
    autocast = required("modelopt.onnx.autocast", _ASKED, _INSTALL)
    onnx = required("onnx", _ASKED, _INSTALL)
    batches = {"calibration_data": str(source.parent / SEEN)}
    model = autocast.convert_to_mixed_precision(
        str(source),
        low_precision_type=asked["rest"],
        keep_io_types=asked["keep_io"],
        **(batches if asked["guard"] else {"data_max": math.inf, "init_max": math.inf}),
    )
    large = {"save_as_external_data": True, "location": f"{target.name}.data"} if asked["large"] else {}
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
