"""ONNX and a precision in, ONNX whose types *are* the precision out.

TensorRT 11 is strongly typed: there is no precision flag left, the graph says it all. So a label is
only as good as the graph under it, and ``check_label`` holds the two together. onnx and onnxruntime
are imported when a function runs, never with this package.
"""

from sweep.precision.compute_types import check_label, dtypes
from sweep.precision.convert import Converted, convert, passes_through
from sweep.precision.emulate import emulate
from sweep.precision.graph_pass import SIMPLIFY, transform
from sweep.precision.layer_error import Traced, traced
from sweep.precision.modelopt import versions as modelopt_versions
from sweep.precision.sparsity import prune

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
