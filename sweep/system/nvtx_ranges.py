"""Push and pop NVTX ranges, by which NVIDIA's profilers name what a process was doing.

NVTX calls do nothing unless a profiler injects itself, which it tells by a variable of the environment; nothing is
loaded without one.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

INSTALL = "pip install nvtx"
# Set by nsys and ncu in what they start, and passed on to its children.
_INJECTIONS = ("NVTX_INJECTION64_PATH", "CUDA_INJECTION64_PATH", "NSYS_PROFILING_SESSION_ID")
_LIBRARIES = ("libnvToolsExt.so.1", "libnvtx3interop.so.1", "libnvtx3interop.so")
_TOOLKIT = ("/usr/local/cuda/lib64", "/opt/cuda/lib64")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranges:
    """Mark ranges through one implementation of NVTX. Ranges of a thread nest: the last one pushed is popped first.

    Attributes:
        provider: name of the implementation, for a person.
        push: begins a range of the given name.
        pop: ends the last range.
    """

    provider: str
    push: Callable[[str], Any]
    pop: Callable[[], Any]

    @contextmanager
    def range(self, *names: str) -> Iterator[None]:
        """Mark the context by ranges of these names, the outermost first."""
        for name in names:
            self.push(name)
        try:
            yield
        finally:
            for _ in names:
                self.pop()


NO_RANGES = Ranges(provider="none", push=lambda _: None, pop=lambda: None)


def profiler_attached() -> bool:
    """Return whether a profiler of NVIDIA's started this process, or one above it."""
    return any(os.environ.get(name) for name in _INJECTIONS)


@functools.cache
def load_ranges() -> Ranges | None:
    """Return the `nvtx` package, else NVTX's own library; None where neither is there."""
    return _of_package() or _of_library()


def attached_ranges() -> Ranges | None:
    """Return what marks ranges where a profiler is attached; None without one, or without NVTX."""
    return load_ranges() if profiler_attached() else None


def _of_package() -> Ranges | None:
    try:
        import nvtx
    except ImportError:
        return None
    push: Callable[..., Any] = nvtx.push_range
    return Ranges(provider="the nvtx package", push=lambda name: push(message=name), pop=nvtx.pop_range)


def _of_library() -> Ranges | None:
    for name in (*_LIBRARIES, *map(str, _installed_libraries())):
        try:
            library = ctypes.CDLL(name)
            push, pop = library.nvtxRangePushA, library.nvtxRangePop
        except (OSError, AttributeError):  # not there, or without the functions
            continue
        push.argtypes = [ctypes.c_char_p]
        return Ranges(provider=Path(name).name, push=_encoding(push), pop=pop)
    return None


def _encoding(push: Callable[[bytes], Any]) -> Callable[[str], Any]:
    return lambda name: push(name.encode())


def _installed_libraries() -> Iterator[Path]:
    """Yield the libraries of NVIDIA's wheels (nvidia-nvtx-cu12, nvidia-nvtx) and of the CUDA toolkit."""
    spec = importlib.util.find_spec("nvidia")
    wheels = [] if spec is None else [Path(place) for place in spec.submodule_search_locations or ()]
    for name in _LIBRARIES:
        for root in wheels:
            yield from root.glob(f"*/lib/{name}")
        for folder in _TOOLKIT:
            yield Path(folder) / name
