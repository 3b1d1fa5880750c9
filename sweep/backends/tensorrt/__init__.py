"""TensorRT and TensorRT-RTX: engines from typed ONNX, timed on CUDA streams. One implementation of both libraries."""
