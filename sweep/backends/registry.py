"""Names -> backends. The one place to add a backend."""

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
    """Every backend that can be asked for by name."""
    return tuple(_BACKENDS)


def get(name: str) -> Backend:
    """The backend called ``name``; its inference library is imported only when it builds or loads.

    Raises:
        ConfigError: there is no such backend.
    """
    if name not in _BACKENDS:
        raise ConfigError(f"backend={name}: no such backend; there are: auto, {', '.join(_BACKENDS)}")
    module, _, attribute = _BACKENDS[name].partition(":")
    backend: Backend = getattr(importlib.import_module(module), attribute)()
    return backend


def resolve(name: str) -> tuple[str, str | None]:
    """The backend that ``name`` stands for here, and for ``auto`` the reason."""
    if name != "auto":
        get(name)
        return name, None
    gpu = environment.machine()["gpu"]
    if gpu is None:
        return "onnxruntime", "no GPU on this machine"
    from sweep.backends.tensorrt.backend import TensorRT, TensorRTRTX

    found = (TensorRT(), TensorRTRTX())
    for backend in found:
        if backend.missing() is None:
            return backend.name, f"{gpu} and {backend.facts()['tensorrt']} are here"
    return "onnxruntime", f"{gpu} is here, but {'; '.join(str(backend.missing()) for backend in found)}"
