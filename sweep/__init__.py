"""Declarative experiment sweeps for TensorRT inference.

The folder listing is the pipeline: argv + conf/ -> Variant -> Plan -> typed ONNX -> engine ->
session -> load -> samples -> summary -> record on disk -> MLflow, report.
"""

__version__ = "0.1.0"
