"""Run declarative experiment sweeps for TensorRT inference.

The folder listing is the pipeline: argv + conf/ -> Variant -> Plan -> typed ONNX -> engine ->
session -> load -> samples -> summary -> record on disk -> MLflow, report.
"""

from pathlib import Path

__version__ = "0.1.0"
__path__.append(str(Path(__file__).parent / "old_commands"))  # `python -m sweep.doctor` and others, for one release
