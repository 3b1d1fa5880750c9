"""Run inside the child process: prepare one variant, measure it, check its outputs."""

__all__ = ["artifact_keys", "artifacts", "model_files", "profiled_inferences"]
