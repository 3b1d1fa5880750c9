"""Convert with NVIDIA's Model Optimizer in a child process: it imports PyTorch, which must stay out of this process.

The child (``sweep.precision.modelopt_worker``) may run in an interpreter of its own, with the versions of onnx and
onnxruntime that Model Optimizer requires.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lazy_loader  # type: ignore[import-untyped]  # it has no types

from sweep.errors import ConversionError
from sweep.precision import activation_ranges, compute_types, onnx_graph
from sweep.precision.modelopt_worker import BATCHES, GUARD_BATCHES, SOURCE, TYPED
from sweep.precision.notes import count_of, first_names
from sweep.system import ChildProcess, RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np
    from onnx import ModelProto

    from sweep.spec import Precision

PYTHON = "SWEEP_MODELOPT_PYTHON"
"""Name the environment variable for the interpreter that has nvidia-modelopt, if `sweep` runs in another one.
"""

_ROOT = Path(__file__).parents[2]
_LAUNCH_CODE = (  # import the worker from this checkout, then see only the packages of the interpreter
    "import sys; sys.path[0] = sys.argv[1]; sys.path.append(sys.argv[2]); "
    "from sweep.precision import modelopt_worker; del sys.path[0], sys.path[-1]; modelopt_worker.main()"
)
_LIBRARIES = Path(lazy_loader.__file__).parents[1]  # the only package that the worker's imports need besides Python
_REPRODUCIBLE = {
    "PYTHONHASHSEED": "0"
}  # Model Optimizer iterates over sets of names; a fixed hash seed makes its bytes reproducible
_GUARD_BATCHES = 2  # its guard keeps every tensor of every sample: 64 samples of ViT-B/16 take over 20 GB
_PASSIVE_OPS = ("Cast", "Constant", "QuantizeLinear", "DequantizeLinear")


@functools.cache
def modelopt_versions() -> dict[str, str | None]:
    """Return the versions of the packages that decide Model Optimizer's graphs, as its child process has them.

    Returns:
        Version by package name; None for a package that is not installed.

    Raises:
        ConversionError: the child cannot be started.
    """
    with _modelopt_process("precision.tool=modelopt", {}) as child:
        return child.request({"versions": True})["versions"]  # type: ignore[no-any-return]  # JSON


def convert_with_modelopt(
    source: Path, precision: Precision, calibration: Sequence[Mapping[str, np.ndarray]], context: str
) -> tuple[ModelProto, tuple[str, ...], tuple[str, ...]]:
    """Convert a file with Model Optimizer.

    Args:
        source: the fp32 ONNX file.
        precision: the recipe; Model Optimizer knows neither ``wide`` nor percentiles.
        calibration: batches of every input by name, for int8, fp8 and the range guard.
        context: what was requested of which file, the start of an error message.

    Returns:
        The graph with its types inferred, the notes for the record, and the nodes that the range guard kept in fp32.

    Raises:
        ConversionError: Model Optimizer is missing, or could not convert the file.
    """
    quantizes = precision.dtype in compute_types.QUANTIZED_DTYPES
    needs_ranges = quantizes or bool(precision.guard)
    if needs_ranges:
        activation_ranges.check_calibration_batches(precision, calibration)
    with tempfile.TemporaryDirectory(prefix="sweep-modelopt-") as folder_name:
        folder = Path(folder_name)
        large = _write_inputs(folder, source, calibration if needs_ranges else ())
        with _modelopt_process(context, {**_REPRODUCIBLE, "TMPDIR": folder_name}) as child:
            versions = child.request({"folder": folder_name, "large": large, **_request(precision)})["versions"]
            sys.stderr.write(child.output_tail())  # the worker's log collects what libraries print
        model = onnx_graph.infer_types(onnx_graph.load(folder / TYPED))
    fp32_nodes = _fp32_nodes(model) if precision.rest or not quantizes else ()
    notes = (*_notes(model, precision, fp32_nodes), *_guard_notes(precision, calibration), _versions_note(versions))
    return model, notes, fp32_nodes if precision.guard else ()


def _write_inputs(folder: Path, source: Path, calibration: Sequence[Mapping[str, np.ndarray]]) -> bool:
    """Write the graph and the samples for the child; return whether the weights need a file of their own."""
    import numpy as np

    model = onnx_graph.load(source)
    for index, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{index}"
    onnx_graph.save(model, folder / SOURCE)
    for folder_name, batches in ((BATCHES, calibration), (GUARD_BATCHES, calibration[:_GUARD_BATCHES])):
        (folder / folder_name).mkdir()
        for index, batch in enumerate(batches):
            np.savez(folder / folder_name / f"{index:05}.npz", **batch)  # type: ignore[arg-type]  # allow_pickle is none
    return onnx_graph.is_large(model)


def _request(precision: Precision) -> dict[str, Any]:
    """Encode the recipe as the child's request."""
    quantizes = precision.dtype in compute_types.QUANTIZED_DTYPES
    return {
        "quantized": precision.dtype if quantizes else None,
        "rest": precision.rest if quantizes else precision.dtype,
        "ops": list(precision.quantize_ops),
        "method": precision.calibration_method or "max",
        "guard": bool(precision.guard),
        "keep_io": precision.keep_io,
    }


@contextlib.contextmanager
def _modelopt_process(context: str, environment: Mapping[str, str]) -> Iterator[ChildProcess]:
    python = os.environ.get(PYTHON) or sys.executable
    try:
        child = ChildProcess(
            [python, "-c", _LAUNCH_CODE, str(_ROOT), str(_LIBRARIES)],
            "the process of Model Optimizer",
            environment={**os.environ, **environment},
        )
    except OSError as error:
        raise ConversionError(
            f"{context}: the process of Model Optimizer cannot be started: {error}; set {PYTHON} to an interpreter "
            "that has nvidia-modelopt"
        ) from error
    try:
        yield child
    except RefusedError as error:
        raise ConversionError(f"{context}: {error}") from error
    finally:
        child.close()


def _fp32_nodes(model: ModelProto) -> tuple[str, ...]:
    """Name the nodes of an inferred graph that produce float32, but not those that only pass it on or cast it."""
    from onnx import TensorProto

    return tuple(
        node.name or node.output[0]
        for node, scope in onnx_graph.typed_nodes(model.graph)
        if node.op_type not in _PASSIVE_OPS and any(scope.get(name) == TensorProto.FLOAT for name in node.output)
    )


def _notes(model: ModelProto, precision: Precision, fp32_nodes: Sequence[str]) -> Iterator[str]:
    """Word what a reader of the label should know about the converted graph."""
    if precision.dtype in compute_types.QUANTIZED_DTYPES:
        unquantized = [name for name, kind in compute_types.node_compute_types(model) if kind != precision.dtype]
        if unquantized:
            number = count_of(len(unquantized), "product")
            yield f"{number} kept in {precision.rest or 'fp32'}: {first_names(unquantized)}"
        if not precision.quantize_ops:
            yield "what to quantise was chosen by modelopt"
        if precision.rest is not None:
            yield f"quantised products give {precision.rest}: precision.wide is not modelopt's"
    if fp32_nodes:
        yield f"{count_of(len(fp32_nodes), 'node')} kept in fp32 by modelopt: {first_names(fp32_nodes)}"


def _guard_notes(precision: Precision, calibration: Sequence[Mapping[str, np.ndarray]]) -> Iterator[str]:
    """Note that the range guard was given fewer batches than the ranges."""
    if precision.guard and len(calibration) > _GUARD_BATCHES:
        yield f"modelopt's range guard saw the first {_GUARD_BATCHES} of {len(calibration)} batches"


def _versions_note(versions: Mapping[str, str | None]) -> str:
    return "made by " + ", ".join(f"{name} {versions[name]}" for name in ("nvidia-modelopt", "onnx", "onnxruntime"))
