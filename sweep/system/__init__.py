"""Wrap the operating system and the GPU: signals, child processes, locks, files, NVML, MPS."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
