"""TensorRT and TensorRT-RTX: engines from typed ONNX, timed on CUDA streams. One implementation of both libraries."""

PLAN = "engine.plan"
"""Name the file of an engine in its folder of the cache."""

__all__ = ["PLAN"]
