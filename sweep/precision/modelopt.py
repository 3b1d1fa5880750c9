"""NVIDIA's Model Optimizer as the converter, in a child process: it brings PyTorch, which may not live here.

The child (``sweep.precision.modelopt_worker``) may run in an interpreter of its own, with the onnx and the onnxruntime
that Model Optimizer names.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.errors import ConversionError
from sweep.precision import activation_ranges, compute_types
from sweep.precision import graph as graphs
from sweep.precision.cast import plural
from sweep.precision.modelopt_worker import BATCHES, SEEN, SOURCE, TYPED
from sweep.system.child_process import ChildProcess, RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np
    from onnx import ModelProto

    from sweep.spec import Precision

PYTHON = "SWEEP_MODELOPT_PYTHON"
"""Environment variable: the interpreter that has nvidia-modelopt, where it is not the one that runs `sweep`."""

_ROOT = Path(__file__).parents[2]
_START = (  # these very modules, which import the standard library alone; then its own packages, no current folder
    "import sys; sys.path[0] = sys.argv[1]; from sweep.precision import modelopt_worker; del sys.path[0]; "
    "modelopt_worker.main()"
)
_STEADY = {"PYTHONHASHSEED": "0"}  # it goes through sets of names, and is to give the same bytes each time
_SEEN_BATCHES = 2  # its guard holds every tensor of every sample: 64 samples of ViT-B/16 are over 20 GB
_NO_WORK = ("Cast", "Constant", "QuantizeLinear", "DequantizeLinear")
_SHOWN = 5


@functools.cache
def versions() -> dict[str, str | None]:
    """Versions of what Model Optimizer makes graphs with, as the child finds them; None for what is missing.

    Raises:
        ConversionError: the child cannot be started.
    """
    with _child("precision.tool=modelopt", {}) as child:
        return child.request({"versions": True})["versions"]  # type: ignore[no-any-return]  # JSON


def converted(
    source: Path, precision: Precision, calibration: Sequence[Mapping[str, np.ndarray]], doing: str
) -> tuple[ModelProto, tuple[str, ...], tuple[str, ...]]:
    """The graph in ``source`` with ``precision`` in its types; notes; the nodes that its range guard kept in fp32.

    Args:
        source: the fp32 ONNX.
        precision: the recipe; ``wide`` and percentiles are not among what Model Optimizer knows.
        calibration: batches of every input by name: for int8, fp8 and the guard.
        doing: what was asked of which file, the start of an error's message.

    Raises:
        ConversionError: Model Optimizer is missing, or could not convert it.
    """
    quantising = precision.dtype in compute_types.QUANTISED
    drawing = quantising or bool(precision.guard)
    if drawing:
        activation_ranges.check_calibration(precision, calibration)
    with tempfile.TemporaryDirectory(prefix="sweep-modelopt-") as place:
        folder = Path(place)
        large = _handed(folder, source, calibration if drawing else ())
        with _child(doing, {**_STEADY, "TMPDIR": place}) as child:
            made_by = child.request({"folder": place, "large": large, **_asked(precision)})["versions"]
            sys.stderr.write(child.output_tail())  # to the worker's log, with what other libraries print
        model = graphs.inferred(graphs.load(folder / TYPED))
    kept = _in_fp32(model) if precision.rest or not quantising else ()
    notes = (*_told(model, precision, kept), *_unseen(precision, calibration), _makers(made_by))
    return model, notes, kept if precision.guard else ()


def _handed(folder: Path, source: Path, calibration: Sequence[Mapping[str, np.ndarray]]) -> bool:
    """Puts the graph and the samples where the child reads them; whether the weights need a file of their own."""
    import numpy as np

    model = graphs.load(source)
    for index, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{index}"
    graphs.save(model, folder / SOURCE)
    for place, batches in ((BATCHES, calibration), (SEEN, calibration[:_SEEN_BATCHES])):
        (folder / place).mkdir()
        for index, batch in enumerate(batches):
            np.savez(folder / place / f"{index:05}.npz", **batch)  # type: ignore[arg-type]  # allow_pickle is none
    return graphs.is_large(model)


def _asked(precision: Precision) -> dict[str, Any]:
    """The recipe in the child's words."""
    quantising = precision.dtype in compute_types.QUANTISED
    return {
        "quantised": precision.dtype if quantising else None,
        "rest": precision.rest if quantising else precision.dtype,
        "ops": list(precision.quantize_ops),
        "method": precision.calibration_method or "max",
        "guard": bool(precision.guard),
        "keep_io": precision.keep_io,
    }


@contextlib.contextmanager
def _child(doing: str, environment: Mapping[str, str]) -> Iterator[ChildProcess]:
    python = os.environ.get(PYTHON) or sys.executable
    try:
        child = ChildProcess(
            [python, "-c", _START, str(_ROOT)],
            "the process of Model Optimizer",
            environment={**os.environ, **environment},
        )
    except OSError as error:
        raise ConversionError(
            f"{doing}: the process of Model Optimizer cannot be started: {error}; set {PYTHON} to an interpreter that "
            "has nvidia-modelopt"
        ) from error
    try:
        yield child
    except RefusedError as error:
        raise ConversionError(f"{doing}: {error}") from error
    finally:
        child.close()


def _in_fp32(model: ModelProto) -> tuple[str, ...]:
    """Nodes of an inferred graph that give float32, but for those that only pass it on or change its type."""
    from onnx import TensorProto

    return tuple(
        node.name or node.output[0]
        for node, scope in graphs.typed_nodes(model.graph)
        if node.op_type not in _NO_WORK and any(scope.get(name) == TensorProto.FLOAT for name in node.output)
    )


def _told(model: ModelProto, precision: Precision, kept: Sequence[str]) -> Iterator[str]:
    """What a reader of the label should know, as found in the graph."""
    if precision.dtype in compute_types.QUANTISED:
        left = [name for name, kind in compute_types.compute_types(model) if kind != precision.dtype]
        if left:
            yield f"{plural(len(left), 'product')} kept in {precision.rest or 'fp32'}: {_shown(left)}"
        if not precision.quantize_ops:
            yield "what to quantise was chosen by modelopt"
        if precision.rest is not None:
            yield f"quantised products give {precision.rest}: precision.wide is not modelopt's"
    if kept:
        yield f"{plural(len(kept), 'node')} kept in fp32 by modelopt: {_shown(kept)}"


def _unseen(precision: Precision, calibration: Sequence[Mapping[str, np.ndarray]]) -> Iterator[str]:
    """That the guard was given less than the ranges were."""
    if precision.guard and len(calibration) > _SEEN_BATCHES:
        yield f"modelopt's range guard saw the first {_SEEN_BATCHES} of {len(calibration)} batches"


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _makers(found: Mapping[str, str | None]) -> str:
    return "made by " + ", ".join(f"{name} {found[name]}" for name in ("nvidia-modelopt", "onnx", "onnxruntime"))
