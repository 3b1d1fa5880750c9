"""A pretended GPU that takes real time: CUDA's runtime as Python sees it, over a compiled stand-in of its driver.

Python's loop and a C loop can so drive the same handles. It tries their paths, and never measures anything.
"""

import ctypes
import subprocess
from pathlib import Path

from fake_gpu import OK, FakeContext, FakeEngine, FakeRuntime

SOURCE = Path(__file__).with_name("fake_driver.c")
CALLS = ("launch", "record", "synchronise", "query", "elapsed", "set_context")
_CONTEXT = 1


class Driver:
    """The compiled stand-in.

    Attributes:
        path: of the library, to be loaded in place of libcuda.so.1.
        lib: the same, loaded.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "libcuda.so.1"
        flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
        subprocess.run(["cc", *flags, str(SOURCE), "-o", str(self.path)], check=True)
        self.lib = ctypes.CDLL(str(self.path))
        self.lib.fake_new.restype, self.lib.fake_new.argtypes = ctypes.c_void_p, [ctypes.c_int, ctypes.c_int64]
        self.lib.fake_free.argtypes = [ctypes.c_void_p]
        self.lib.fake_reset.argtypes = [ctypes.c_int64]
        self.lib.fake_calls.restype = ctypes.c_int64

    def reset(self, failing_launch: int = -1) -> None:
        """Count from zero; the launch of that number fails."""
        self.lib.fake_reset(failing_launch)

    def counts(self) -> dict[str, int]:
        """Calls of each function, by any thread."""
        return {name: self.lib.fake_calls(number) for number, name in enumerate(CALLS)}


class DriverRuntime(FakeRuntime):
    """``cuda.bindings.runtime`` over a ``Driver``. Each thread has the one context, as with the real runtime."""

    def __init__(self, driver: Driver, service_ns: int) -> None:
        super().__init__()
        self._driver = driver
        self.service_ns = service_ns

    def _make(self, kind: str, ns: int = 0):
        made = self._driver.lib.fake_new(ord(kind), ns)
        self.held[made] = None
        return OK, made

    def _release(self, handle):
        self._drop(handle)
        self._driver.lib.fake_free(handle)
        return (OK,)

    cudaEventDestroy = cudaGraphExecDestroy = cudaStreamDestroy = _release

    def _call(self, name: str, *args):
        self._driver.lib.cuCtxSetCurrent(ctypes.c_void_p(_CONTEXT))
        return (getattr(self._driver.lib, name)(*(ctypes.c_void_p(arg) for arg in args)),)

    def cudaStreamCreateWithFlags(self, _flags):
        return self._make("s")

    def cudaEventCreateWithFlags(self, _flags):
        return self._make("e")

    def cudaGraphInstantiate(self, _graph, _flags):
        return self._make("g", self.service_ns)

    def cudaEventRecord(self, event, stream):
        return self._call("cuEventRecord", event, stream)

    def cudaEventSynchronize(self, event):
        return self._call("cuEventSynchronize", event)

    def cudaEventQuery(self, event):
        return self._call("cuEventQuery", event)

    def cudaGraphLaunch(self, graph, stream):
        return self._call("cuGraphLaunch", graph, stream)

    def cudaEventElapsedTime(self, start, end):
        took = ctypes.c_float()
        (error,) = self._call("cuEventElapsedTime", ctypes.addressof(took), start, end)
        return error, took.value

    def cudaMemcpyAsync(self, target, source, size, _kind, _stream):
        ctypes.memmove(target, source, size)
        return (OK,)


class DriverContext(FakeContext):
    """Takes the engine's time on the stream, and computes nothing."""

    def execute_async_v3(self, stream):
        runtime = self.engine.runtime
        if runtime.captured is None:
            runtime.cudaGraphLaunch(self.engine.work, stream)
        else:
            runtime.captured.append(stream)
        return True


class DriverEngine(FakeEngine):
    """An engine whose every inference takes the runtime's ``service_ns``."""

    def __init__(self, runtime: DriverRuntime) -> None:
        super().__init__(runtime)
        self.batches = (1, 1)
        _, self.work = runtime._make("g", runtime.service_ns)

    def create_execution_context(self, _config=None):
        return DriverContext(self)
