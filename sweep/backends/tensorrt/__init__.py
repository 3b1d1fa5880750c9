"""Build engines from typed ONNX with TensorRT or TensorRT-RTX, and time them on CUDA streams: one implementation."""

PLAN = "engine.plan"
"""Name the file of an engine in its folder of the cache."""

__all__ = ["PLAN", "plan_file", "rtx_releases"]
