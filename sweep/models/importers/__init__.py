"""Import networks of other frameworks and old opsets as ONNX."""

from sweep.models.importers import saved_model, torch_export
from sweep.models.importers.ir_version import is_too_new, lower_ir_version
from sweep.models.importers.opset_upgrade import LEAST_OPSET, upgrade

__all__ = ["LEAST_OPSET", "is_too_new", "lower_ir_version", "saved_model", "torch_export", "upgrade"]
