"""Name or path -> float32 ONNX, deterministic; and what the network takes.

Importing this imports neither onnx nor onnxruntime: a plan needs signatures only.
"""

from sweep.models import export, saved_model, zoo
from sweep.models.cost import COST_REVISION, Cost, cost
from sweep.models.inputs import draw
from sweep.models.labelled import Labelled
from sweep.models.materialise import calibration, feeds, has_data, held_out, resolve, signature
from sweep.models.shapes import check_batch
from sweep.models.source import dynamic_inputs, feeds_weights, file_digest, inspect, opset, outputs, parameters
from sweep.models.spec import BATCH, OutputSpec, Signature, TensorSpec
from sweep.models.upgrade import LEAST_OPSET, upgrade

__all__ = [
    "BATCH",
    "COST_REVISION",
    "LEAST_OPSET",
    "Cost",
    "Labelled",
    "OutputSpec",
    "Signature",
    "TensorSpec",
    "calibration",
    "check_batch",
    "cost",
    "draw",
    "dynamic_inputs",
    "export",
    "feeds",
    "feeds_weights",
    "file_digest",
    "has_data",
    "held_out",
    "inspect",
    "opset",
    "outputs",
    "parameters",
    "resolve",
    "saved_model",
    "signature",
    "upgrade",
    "zoo",
]
