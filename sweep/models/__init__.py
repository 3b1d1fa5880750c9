"""Name or path -> float32 ONNX, deterministic; and what the network takes.

Importing this imports neither onnx nor onnxruntime: a plan needs signatures only.
"""

from sweep.models import zoo
from sweep.models.cost_model import COST_REVISION, Cost, cost
from sweep.models.datasets.labelled_arrays import Labelled
from sweep.models.evaluation import EvaluationSet
from sweep.models.importers import LEAST_OPSET, is_too_new, lower_ir_version, saved_model, torch_export, upgrade
from sweep.models.input_shapes import SAMPLES_ADVICE, UNNAMED, check_batch, override, settle
from sweep.models.normal_form import NORMAL_FORM_REVISION, write_normal_form
from sweep.models.onnx_file import (
    declared_inputs,
    dynamic_inputs,
    feeds_weights,
    file_digest,
    inspect,
    needs_normal_form,
    opset,
    outputs,
    parameters,
    settle_by_samples,
)
from sweep.models.random_inputs import draw
from sweep.models.resolution import calibration, dimensions, feeds, graph_inputs, has_data, held_out, resolve, signature
from sweep.models.sibling_file import sibling_ref
from sweep.models.signatures import BATCH, OutputSpec, Signature, TensorSpec, render_shape

__all__ = [
    "BATCH",
    "COST_REVISION",
    "LEAST_OPSET",
    "NORMAL_FORM_REVISION",
    "SAMPLES_ADVICE",
    "UNNAMED",
    "Cost",
    "EvaluationSet",
    "Labelled",
    "OutputSpec",
    "Signature",
    "TensorSpec",
    "calibration",
    "check_batch",
    "cost",
    "datasets",
    "declared_inputs",
    "dimensions",
    "draw",
    "dynamic_inputs",
    "evaluation",
    "feeds",
    "feeds_weights",
    "file_digest",
    "graph_inputs",
    "has_data",
    "held_out",
    "inspect",
    "is_too_new",
    "lower_ir_version",
    "needs_normal_form",
    "opset",
    "outputs",
    "override",
    "parameters",
    "render_shape",
    "resolve",
    "saved_model",
    "settle",
    "settle_by_samples",
    "sibling_ref",
    "signature",
    "torch_export",
    "upgrade",
    "write_normal_form",
    "zoo",
]
