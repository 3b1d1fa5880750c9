"""Resolve backend names to backends. A new backend is one entry here."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from sweep.errors import ConfigError
from sweep.system import environment

if TYPE_CHECKING:
    from sweep.backends.base import Backend

_BACKENDS = {
    "onnxruntime": "sweep.backends.onnxruntime.backend:OnnxRuntime",
    "simulated": "sweep.backends.simulated:Simulated",
    "tensorrt": "sweep.backends.tensorrt.backend:TensorRT",
    "tensorrt_rtx": "sweep.backends.tensorrt.backend:TensorRTRTX",
}


def names() -> tuple[str, ...]:
    """Return the name of every backend, in the order of registration."""
    return tuple(_BACKENDS)


def get(name: str) -> Backend:
    """Return the backend called ``name``; its inference library is imported only when it builds or loads.

    Raises:
        ConfigError: there is no such backend.
    """
    if name not in _BACKENDS:
        raise ConfigError(f"backend={name}: no such backend; there are: auto, {', '.join(_BACKENDS)}")
    module, _, attribute = _BACKENDS[name].partition(":")
    backend: Backend = getattr(importlib.import_module(module), attribute)()
    return backend


def resolve(name: str) -> tuple[str, str | None]:
    """Return the backend name that ``name`` stands for on this machine, and the reason where ``name`` is ``auto``.

    Raises:
        ConfigError: there is no such backend.
    """
    if name != "auto":
        get(name)
        return name, None
    gpu = environment.machine()["gpu"]
    if gpu is None:
        return "onnxruntime", "no GPU on this machine"
    from sweep.backends.tensorrt.backend import TensorRT, TensorRTRTX

    candidates = (TensorRT(), TensorRTRTX())
    for backend in candidates:
        if backend.missing() is None:
            return backend.name, f"{gpu} and {backend.facts()['tensorrt']} are here"
    return "onnxruntime", f"{gpu} is here, but {'; '.join(str(backend.missing()) for backend in candidates)}"
