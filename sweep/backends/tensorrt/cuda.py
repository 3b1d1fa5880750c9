"""Call CUDA's runtime and driver API with every error code checked. Only this module imports ``cuda.bindings``."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
from typing import TYPE_CHECKING, Any

import numpy as np

from sweep.errors import SessionError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Iterator

Handle = Any  # a stream, event or graph of cuda.bindings


class Replay(functools.partial[Any]):
    """Bind ``cudaGraphLaunch`` to a graph and a stream, recognisably: the driver has the same call."""


class Copy(functools.partial[Any]):
    """Bind ``cudaMemcpyAsync`` to its arguments, recognisably: the driver has the same call."""


def installed() -> bool:
    """Return whether ``cuda.bindings`` (cuda-python 12.6 and later) is installed, without importing it."""
    try:
        return importlib.util.find_spec("cuda.bindings.runtime") is not None
    except ModuleNotFoundError:
        return False


class Cuda:
    """Call the CUDA functions that a session needs. Sizes are in bytes; device memory is an address.

    Attributes:
        rt: ``cuda.bindings.runtime``; the hot path binds its functions.
        drv: ``cuda.bindings.driver``, for functions that the runtime lacks.
        driver_library: name or path of the driver, whose functions compiled code calls.

    Raises:
        UnsupportedError: cuda-python is not installed.
    """

    driver_library = "libcuda.so.1"

    def __init__(self) -> None:
        try:
            from cuda.bindings import driver, runtime
        except ImportError as error:
            raise UnsupportedError(f"cuda-python is missing ({error}); pip install 'cuda-python>=12.6'") from error
        self.rt: Any = runtime
        self.drv: Any = driver
        self._ok = runtime.cudaError_t.cudaSuccess
        self.not_ready = runtime.cudaError_t.cudaErrorNotReady

    def call(self, name: str, *args: Any) -> Any:
        """Call the runtime's function ``name``.

        Returns:
            Its result, a tuple of several, or None.

        Raises:
            SessionError: the call failed; with CUDA's name and text of the error.
        """
        error, *values = getattr(self.rt, name)(*args)
        if error != self._ok:
            self.fail(name, error)
        return values[0] if len(values) == 1 else tuple(values) or None

    def fail(self, name: str, error: Any) -> None:
        """Raise the runtime's ``error`` of the call ``name``, with CUDA's name and text of it.

        Raises:
            SessionError: always.
        """
        word, text = (getattr(self.rt, f"cudaGetError{part}")(error)[1].decode() for part in ("Name", "String"))
        raise SessionError(f"{name}: {word} ({text})")

    def drive(self, name: str, *args: Any) -> Any:
        """Call the driver's function ``name``, as ``call`` does the runtime's.

        Raises:
            SessionError: the call failed, with the driver's name of the error, or this version of CUDA lacks the
                function.
        """
        function = getattr(self.drv, name, None)
        if function is None:
            raise SessionError(f"{name}: this version of CUDA does not have it")
        try:
            error, *values = function(*args)
        except RuntimeError as missing:  # what the bindings say of a function that the installed driver lacks
            raise SessionError(f"{name}: {missing}") from missing
        if error != self.drv.CUresult.CUDA_SUCCESS:
            word = self.drv.cuGetErrorName(error)[1] or b"unknown error"
            raise SessionError(f"{name}: {word.decode()}")
        return values[0] if len(values) == 1 else tuple(values) or None

    def address(self, name: str) -> int:
        """Return the address of the driver's function ``name``, for compiled code. Its handles are the runtime's.

        Raises:
            SessionError: the driver cannot be loaded, or lacks the function.
        """
        try:
            function = getattr(_library(self.driver_library), name)
        except (OSError, AttributeError) as error:
            raise SessionError(f"{name}: {error}") from error
        return int(ctypes.cast(function, ctypes.c_void_p).value or 0)

    def current_context(self) -> int:
        """Return the handle of the CUDA context of this thread."""
        context = ctypes.c_void_p()
        error = _library(self.driver_library).cuCtxGetCurrent(ctypes.byref(context))
        if error:
            raise SessionError(f"cuCtxGetCurrent: error {error}")
        return int(context.value or 0)

    def fail_driver(self, name: str, error: int) -> None:
        """Raise the driver's ``error`` of the call ``name``, with the driver's name of it.

        Raises:
            SessionError: always.
        """
        text = ctypes.c_char_p()
        _library(self.driver_library).cuGetErrorName(error, ctypes.byref(text))
        word = f"error {error}" if text.value is None else text.value.decode()
        raise SessionError(f"{name}: {word}")

    def stream(self) -> Handle:
        """Create a stream that does not wait for the default stream."""
        return self.call("cudaStreamCreateWithFlags", self.rt.cudaStreamNonBlocking)

    def event(self, *, blocking: bool) -> Handle:
        """Create an event with timing; ``blocking`` puts a waiting thread to sleep."""
        flag = self.rt.cudaEventBlockingSync if blocking else self.rt.cudaEventDefault
        return self.call("cudaEventCreateWithFlags", flag)

    def malloc(self, size: int) -> int:
        """Allocate ``size`` bytes of device memory and return their address."""
        return int(self.call("cudaMalloc", max(size, 1)))

    def pinned(self, size: int) -> int:
        """Allocate ``size`` bytes of page-locked host memory and return their address."""
        return int(self.call("cudaHostAlloc", max(size, 1), self.rt.cudaHostAllocDefault))

    def copy(self, target: int, source: int, size: int, kind: str, stream: Handle) -> None:
        """Enqueue a copy of ``size`` bytes on ``stream``; ``kind`` is ``HostToDevice`` or ``DeviceToHost``."""
        self.call("cudaMemcpyAsync", target, source, size, self.kind(kind), stream)

    def kind(self, name: str) -> Any:
        """Return the runtime's constant of a copy direction."""
        return getattr(self.rt.cudaMemcpyKind, f"cudaMemcpy{name}")

    def begin_capture(self, stream: Handle) -> None:
        """Capture the work that this thread enqueues on ``stream``.

        Other threads may work meanwhile: the mode is thread-local.
        """
        self.call("cudaStreamBeginCapture", stream, self.rt.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal)

    def instantiate(self, graph: Handle) -> tuple[Handle, int]:
        """Instantiate an executable graph from ``graph``, which is destroyed in any case, and count its nodes.

        Raises:
            SessionError: nothing was captured, or CUDA refused the graph.
        """
        try:
            nodes = int(self.call("cudaGraphGetNodes", graph, 0)[1])
            if nodes == 0:
                raise SessionError("the captured graph is empty")
            return self.call("cudaGraphInstantiate", graph, 0), nodes
        finally:
            self.rt.cudaGraphDestroy(graph)

    def graph_pool_bytes(self) -> int:
        """Return the device memory that CUDA reserved for allocations inside graphs, bytes, in this process."""
        attribute = self.rt.cudaGraphMemAttributeType.cudaGraphMemAttrReservedMemCurrent
        return int(self.call("cudaDeviceGetGraphMemAttribute", self.call("cudaGetDevice"), attribute))

    def start_profiler(self) -> None:
        """Wait for the GPU, then tell an attached profiler to record from here."""
        self.call("cudaDeviceSynchronize")
        self.call("cudaProfilerStart")

    def stop_profiler(self) -> None:
        """Wait for the GPU, then tell an attached profiler to stop."""
        self.call("cudaDeviceSynchronize")
        self.call("cudaProfilerStop")

    def free_memory(self) -> int:
        """Return the free device memory, in bytes, across all processes."""
        return int(self.call("cudaMemGetInfo")[0])

    def device(self) -> dict[str, Any]:
        """Return {gpu, compute_capability, sm_count, cuda_runtime} of the current device."""
        number = self.call("cudaGetDevice")
        properties = self.call("cudaGetDeviceProperties", number)
        name = properties.name
        return {
            "gpu": (name.decode() if isinstance(name, bytes) else str(name)).rstrip("\x00"),
            "compute_capability": f"{properties.major}.{properties.minor}",
            "sm_count": int(properties.multiProcessorCount),
            "cuda_runtime": int(self.call("cudaRuntimeGetVersion")),
        }


@functools.cache
def _library(name: str) -> ctypes.CDLL:
    return ctypes.CDLL(name)


@functools.cache
def get() -> Cuda:
    """Return the one ``Cuda`` of this process.

    Raises:
        UnsupportedError: cuda-python is not installed.
    """
    return Cuda()


class ResourceStack:
    """Release CUDA resources in the reverse order of their registration. ``close`` may be called again.

    Attributes:
        device_bytes: device memory of the registered tensors, in bytes.
    """

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self.device_bytes = 0
        self._entries: list[tuple[str, Any]] = []

    def push(self, value: Any, release: str) -> Any:
        """Register ``value`` and return it; the runtime's function ``release`` releases it."""
        self._entries.append((release, value))
        return value

    def close(self) -> None:
        """Release every resource; the first failure is raised after all releases were tried.

        Raises:
            SessionError: CUDA could not release a resource.
        """
        failures: list[SessionError] = []
        for release, value in self._drain():
            try:
                self._cuda.call(release, value)
            except SessionError as error:
                failures.append(error)
        if failures:
            raise failures[0]

    def _drain(self) -> Iterator[tuple[str, Any]]:
        while self._entries:
            yield self._entries.pop()


def view(address: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """View host memory at ``address`` as an array; the memory must outlive it."""
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if size == 0:
        return np.empty(shape, dtype)
    memory: Any = (ctypes.c_byte * size).from_address(address)
    return np.asarray(np.frombuffer(memory, dtype=dtype).reshape(shape))


def fill(address: int, byte: int, size: int) -> None:
    """Set ``size`` bytes of host memory at ``address``."""
    ctypes.memset(address, byte, size)
