"""Run typed ONNX on onnxruntime."""
