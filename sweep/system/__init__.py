"""Wrap the operating system and the GPU: signals, child processes, locks, files, NVML, MPS."""
