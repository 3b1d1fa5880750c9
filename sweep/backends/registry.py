"""Names -> backends. The one place to add a backend."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.errors import ConfigError

if TYPE_CHECKING:
    from sweep.backends.base import Backend

_BACKENDS = {
    "onnxruntime": "sweep.backends.onnxruntime:OnnxRuntime",
    "simulated": "sweep.backends.simulated:Simulated",
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
    gpu = Path("/dev/nvidiactl").exists()
    libraries = [lib for lib in ("tensorrt", "tensorrt_rtx") if importlib.util.find_spec(lib)]
    if gpu and libraries:
        return "onnxruntime", f"a GPU and {libraries[0]} are here, but this version of sweep cannot drive them yet"
    missing = "no GPU" if not gpu else "a GPU but neither tensorrt nor tensorrt_rtx"
    return "onnxruntime", f"{missing} on this machine"
