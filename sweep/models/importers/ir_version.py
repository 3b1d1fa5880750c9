"""Lower the IR version of files that the installed onnxruntime is too old to read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sweep.errors import ModelError
from sweep.models import onnx_file
from sweep.models.importers.opset_upgrade import SINGLE_FILE_BYTES
from sweep.system import environment, is_readable_ir, readable_ir_version, save_onnx

if TYPE_CHECKING:
    from pathlib import Path

    import onnx


def is_too_new(path: Path) -> bool:
    """Tell whether a file is of an IR version that the installed onnxruntime does not read.

    Raises:
        ModelError: the file cannot be read.
    """
    return not is_readable_ir(onnx_file.ir_version(path))


def lower_ir_version(path: Path, target: Path) -> None:
    """Write the model of ``path`` to ``target`` in the newest IR version that the installed onnxruntime reads.

    Raises:
        ModelError: not even the installed onnx knows its version, so that what it may hold is unknown.
    """
    import onnx

    version = onnx_file.ir_version(path)
    if version > onnx.IR_VERSION:
        readable, reader = readable_ir_version(), environment.library_version("onnxruntime")
        raise ModelError(
            f"{path} is of IR version {version}: onnx {onnx.__version__} knows versions up to {onnx.IR_VERSION}, and "
            f"onnxruntime {reader} reads them up to {readable} (its max supported IR version); export it again with an "
            f"older onnx, or set model.ir_version = {readable} and save it again"
        )
    model = onnx.load(path)
    save_onnx(model, target, f"{target.name}.data" if _is_large(model) else None)


def _is_large(model: onnx.ModelProto) -> bool:
    return sum(tensor.ByteSize() for tensor in model.graph.initializer) > SINGLE_FILE_BYTES
