"""Device memory as the library asks for it: a recording ``IGpuAllocator``, so that peaks are seen.

The TensorRT guide advises an allocator of one's own to track device memory: the free memory that CUDA tells counts
every other process and moves in steps of its driver's.
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
    """Allocations of one engine, by the phase in which they were made. Sizes in bytes.

    Args:
        cuda: allocates.

    Attributes:
        phase: of what is allocated next, one of ``PHASES``.
    """

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._live: dict[int, tuple[int, str]] = {}
        self._total = self._peak = 0
        self._calls = dict.fromkeys(PHASES, 0)
        self.phase = PHASES[0]

    def take(self, size: int) -> int:
        """The address of ``size`` bytes; 0, which tells the library that there are none."""
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

    def give(self, address: int) -> bool:
        """Free ``address``; whether that was done."""
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
        """{engine_bytes, contexts_bytes, run_bytes, peak_bytes, run_allocations}.

        The first three are held now, by the phase that asked for them: weights, activations and scratch of the
        contexts, and what inferences asked for besides. ``run_allocations`` counts requests once all contexts had
        run: more than none of them costs latency.
        """
        held = {phase: sum(size for size, made in self._live.values() if made == phase) for phase in PHASES}
        return {
            **{f"{phase}_bytes": size for phase, size in held.items()},
            "peak_bytes": self._peak,
            "run_allocations": self._calls["run"],
        }


def recorder(library: Library, ledger: Ledger) -> Any:
    """An ``IGpuAllocator`` of that library which allocates through ``ledger``; it must outlive its runtime.

    None where the library has no such class. All methods that any version calls are there: the library's own
    documentation says that none may be left out.
    """
    if not hasattr(library.trt, "IGpuAllocator"):
        return None

    class Recorder(library.trt.IGpuAllocator):  # type: ignore[misc, name-defined, unused-ignore]  # known when it runs
        def __init__(self) -> None:
            library.trt.IGpuAllocator.__init__(self)

        def allocate(self, size: int, _alignment: int, _flags: int) -> int:
            return ledger.take(size)

        def allocate_async(self, size: int, _alignment: int, _flags: int, _stream: int) -> int:
            return ledger.take(size)

        def reallocate(self, _address: int, _alignment: int, _size: int) -> int:
            return 0  # the library then asks for another and copies

        def deallocate(self, memory: int) -> bool:
            return ledger.give(memory)

        def deallocate_async(self, memory: int, _stream: int) -> bool:
            return ledger.give(memory)

    return Recorder()
