"""ONNX and a precision in, ONNX whose types *are* the precision out.

TensorRT 11 is strongly typed: there is no precision flag left, the graph says it all. So a label is
only as good as the graph under it, and ``check_label`` holds the two together. onnx and onnxruntime
are imported when a function runs, never with this package.
"""

from sweep.typed_onnx.dispatch import Converted, convert, passes_through
from sweep.typed_onnx.emulate import emulate
from sweep.typed_onnx.evidence import check_label, dtypes
from sweep.typed_onnx.modelopt import versions as modelopt_versions
from sweep.typed_onnx.passes import SIMPLIFY, transform
from sweep.typed_onnx.prune import prune
from sweep.typed_onnx.trace import Traced, traced

REVISION = 2
"""Raise it when the converters give other graphs for the same request, so that none of before is used."""

TOOLS = ("numpy", "onnx", "onnxruntime")
"""The packages whose versions decide, with ``REVISION``, what a conversion gives."""

__all__ = [
    "REVISION",
    "SIMPLIFY",
    "TOOLS",
    "Converted",
    "Traced",
    "check_label",
    "convert",
    "dtypes",
    "emulate",
    "modelopt_versions",
    "passes_through",
    "prune",
    "traced",
    "transform",
]
