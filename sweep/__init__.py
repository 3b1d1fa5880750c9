"""Run declarative experiment sweeps for TensorRT inference, and read their results.

The folder listing is the pipeline: argv + conf/ -> Variant -> Plan -> typed ONNX -> engine ->
session -> load -> samples -> summary -> record on disk -> MLflow, report.

``sweep.load`` and ``sweep.frame`` read what was measured (docs/howto/take-results-away.md); they are loaded when they
are first used, so that ``import sweep`` stays light.
"""

from pathlib import Path

from lazy_loader import attach_stub

__version__ = "0.1.0"
__path__.append(str(Path(__file__).parent / "old_commands"))  # `python -m sweep.doctor` and others, for one release
__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
