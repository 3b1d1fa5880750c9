"""Name or path -> float32 ONNX, deterministic; and what the network takes.

Importing this imports neither onnx nor onnxruntime: a plan needs signatures only.
"""

from sweep.models import zoo
from sweep.models.inputs import draw
from sweep.models.materialise import resolve, signature
from sweep.models.shapes import check_batch
from sweep.models.source import dynamic_inputs, file_digest, inspect, parameters
from sweep.models.spec import Signature, TensorSpec

__all__ = [
    "Signature",
    "TensorSpec",
    "check_batch",
    "draw",
    "dynamic_inputs",
    "file_digest",
    "inspect",
    "parameters",
    "resolve",
    "signature",
    "zoo",
]
