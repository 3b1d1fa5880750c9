"""Record the device memory that the library requests, through an ``IGpuAllocator``, so that peaks are seen.

The TensorRT guide advises a custom allocator to track device memory: the free memory that CUDA reports includes every
other process and changes in steps of the driver's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sweep.errors import SessionError

if TYPE_CHECKING:
    from sweep.backends.tensorrt.cuda import Cuda
    from sweep.backends.tensorrt.library import Library
    from sweep.spec import JsonDict

PHASES = ("engine", "contexts", "run")


class Ledger:
    """Record the allocations of one engine by the phase in which they were requested. Sizes are in bytes.

    Args:
        cuda: allocates.

    Attributes:
        phase: of the next allocations, one of ``PHASES``.
    """

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._live: dict[int, tuple[int, str]] = {}
        self._total = self._peak = 0
        self._calls = dict.fromkeys(PHASES, 0)
        self.phase = PHASES[0]

    def allocate(self, size: int) -> int:
        """Allocate ``size`` bytes and return their address; 0 tells the library that there is no memory."""
        if size == 0:
            return 0
        try:
            address = self._cuda.malloc(size)
        except SessionError:
            return 0
        self._calls[self.phase] += 1
        self._live[address] = (size, self.phase)
        self._total += size
        self._peak = max(self._peak, self._total)
        return address

    def free(self, address: int) -> bool:
        """Free ``address`` and return whether that succeeded."""
        if address == 0:
            return True
        size, _ = self._live.pop(address, (0, ""))
        self._total -= size
        try:
            self._cuda.call("cudaFree", address)
        except SessionError:
            return False
        return True

    def facts(self) -> JsonDict:
        """Return {engine_bytes, contexts_bytes, run_bytes, peak_bytes, run_allocations}.

        The first three are in use now, by the phase that requested them: weights, activations and scratch of the
        contexts, and further requests of inferences. ``run_allocations`` counts requests after all contexts had run:
        any of them costs latency.
        """
        in_use = {phase: sum(size for size, origin in self._live.values() if origin == phase) for phase in PHASES}
        return {
            **{f"{phase}_bytes": size for phase, size in in_use.items()},
            "peak_bytes": self._peak,
            "run_allocations": self._calls["run"],
        }


def create_allocator(library: Library, ledger: Ledger) -> Any:
    """Create the library's ``IGpuAllocator`` that allocates through ``ledger``; it must outlive its runtime.

    None where the library has no such class. It implements the methods that any version calls, since the library's
    documentation requires all of them.
    """
    if not hasattr(library.trt, "IGpuAllocator"):
        return None

    class RecordingAllocator(library.trt.IGpuAllocator):  # type: ignore[misc, name-defined, unused-ignore]  # known when it runs
        def __init__(self) -> None:
            library.trt.IGpuAllocator.__init__(self)

        def allocate(self, size: int, _alignment: int, _flags: int) -> int:
            return ledger.allocate(size)

        def allocate_async(self, size: int, _alignment: int, _flags: int, _stream: int) -> int:
            return ledger.allocate(size)

        def reallocate(self, _address: int, _alignment: int, _size: int) -> int:
            return 0  # the library then asks for another and copies

        def deallocate(self, memory: int) -> bool:
            return ledger.free(memory)

        def deallocate_async(self, memory: int, _stream: int) -> bool:
            return ledger.free(memory)

    return RecordingAllocator()
