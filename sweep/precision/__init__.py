"""Convert an fp32 ONNX graph into one whose tensor types are the precision that was requested.

TensorRT 11 is strongly typed: it has no precision flags, and an engine computes in the types of its graph. A precision
label is therefore only as good as the graph under it, and ``check_label`` compares the two. onnx and onnxruntime are
imported when a function runs, never with this package.
"""

from sweep.precision.compute_types import check_label, count_compute_types, is_typed
from sweep.precision.conversion import NATIVE, Conversion, Ranges, convert, passes_through
from sweep.precision.emulation import emulate
from sweep.precision.graph_pass import SIMPLIFY, transform
from sweep.precision.layer_error import LayerError, measure_layer_errors
from sweep.precision.modelopt import modelopt_versions
from sweep.precision.node_search import Judgement, SearchResult, exact_patterns, fewest_nodes, ranked_nodes
from sweep.precision.product_rounding import random_ops, reverse_sums, round_products, widen_sums
from sweep.precision.sparsity import sparsify

REVISION = 5
"""Raise this number when the converters write other graphs for the same request: it is part of the cache key."""

TOOLS = ("numpy", "onnx", "onnxruntime")
"""Name the packages whose versions, with ``REVISION``, decide the bytes of a conversion: they are in the cache key."""

__all__ = [
    "NATIVE",
    "REVISION",
    "SIMPLIFY",
    "TOOLS",
    "Conversion",
    "Judgement",
    "LayerError",
    "Ranges",
    "SearchResult",
    "check_label",
    "convert",
    "count_compute_types",
    "emulate",
    "exact_patterns",
    "fewest_nodes",
    "is_typed",
    "measure_layer_errors",
    "modelopt_versions",
    "passes_through",
    "random_ops",
    "ranked_nodes",
    "reverse_sums",
    "round_products",
    "sparsify",
    "transform",
    "widen_sums",
]
