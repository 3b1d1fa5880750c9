"""Record the device memory that the library requests, through an ``IGpuAllocator``, so that peaks are seen.

The TensorRT guide advises a custom allocator to track device memory: the free memory that CUDA reports includes every
other process and changes in steps of the driver's.
"""

from __future__ import annotations

import itertools
import threading
import time
from typing import TYPE_CHECKING, Any

from sweep.errors import SessionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.backends.tensorrt.cuda import Cuda
    from sweep.backends.tensorrt.library import Library
    from sweep.spec import JsonDict

PHASES = ("engine", "contexts", "run")
BUILD = "build"  # the one phase of a build
_MOST_STEPS = 256  # of a timeline


class Ledger:
    """Record the allocations of one engine, or of its build, by the phase in which they were requested.

    Sizes are in bytes. A builder may allocate from several threads.

    Args:
        cuda: allocates.
        phases: names of the phases; the first is that of the first allocations.

    Attributes:
        phase: of the next allocations, one of ``phases``.
    """

    def __init__(self, cuda: Cuda, phases: Sequence[str] = PHASES) -> None:
        self._cuda = cuda
        self._phases = tuple(phases)
        self._live: dict[int, tuple[int, str]] = {}
        self._in_use = dict.fromkeys(phases, 0)
        self._at_peak = dict(self._in_use)
        self._calls = dict.fromkeys(phases, 0)
        self._steps: list[tuple[int, int, str]] = []
        self._start_ns = time.perf_counter_ns()
        self._lock = threading.Lock()
        self.phase = phases[0]

    def allocate(self, size: int) -> int:
        """Allocate ``size`` bytes and return their address; 0 tells the library that there is no memory."""
        if size == 0:
            return 0
        try:
            address = self._cuda.malloc(size)
        except SessionError:
            return 0
        with self._lock:
            phase = self.phase
            self._calls[phase] += 1
            self._live[address] = (size, phase)
            self._change(phase, size)
            if sum(self._in_use.values()) > sum(self._at_peak.values()):
                self._at_peak = dict(self._in_use)
        return address

    def free(self, address: int) -> bool:
        """Free ``address`` and return whether that succeeded."""
        if address == 0:
            return True
        with self._lock:
            size, phase = self._live.pop(address, (0, self.phase))
            self._change(phase, -size)
        try:
            self._cuda.call("cudaFree", address)
        except SessionError:
            return False
        return True

    def _change(self, phase: str, size: int) -> None:
        self._in_use[phase] += size
        self._steps.append((time.perf_counter_ns() - self._start_ns, sum(self._in_use.values()), self.phase))
        if len(self._steps) > 2 * _MOST_STEPS:
            self._steps = _thinned(self._steps, _MOST_STEPS)

    @property
    def peak_by_phase(self) -> dict[str, int]:
        """Return the bytes that each phase had in use when all together had the most."""
        return dict(self._at_peak)

    def timeline(self) -> list[list[Any]]:
        """Return the bytes in use over time: at most 256 of [seconds since the start, bytes, phase], peak included."""
        return [[round(at_ns / 1e9, 6), size, phase] for at_ns, size, phase in _thinned(self._steps, _MOST_STEPS)]

    def facts(self) -> JsonDict:
        """Return {engine_bytes, contexts_bytes, run_bytes, peak_bytes, run_allocations, timeline}.

        The first three are in use now, by the phase that requested them: weights, activations and scratch of the
        contexts, and further requests of inferences. ``run_allocations`` counts requests after all contexts had run:
        any of them costs latency.
        """
        return {
            **{f"{phase}_bytes": size for phase, size in self._in_use.items()},
            "peak_bytes": sum(self._at_peak.values()),
            "run_allocations": self._calls[self._phases[-1]],
            "timeline": self.timeline(),
        }

    def build_facts(self) -> JsonDict:
        """Return {peak_bytes, allocations, timeline} of a build, whose scratch it is."""
        return {
            "peak_bytes": sum(self._at_peak.values()),
            "allocations": sum(self._calls.values()),
            "timeline": self.timeline(),
        }


def _thinned(steps: list[tuple[int, int, str]], most: int) -> list[tuple[int, int, str]]:
    """Return at most `most` of the steps: the first, the last, and the largest of each of equal stretches."""
    if len(steps) <= most:
        return steps
    bounds = [round(number * (len(steps) - 2) / (most - 2)) + 1 for number in range(most - 1)]
    inner = [max(steps[low:high], key=lambda step: step[1]) for low, high in itertools.pairwise(bounds)]
    return [steps[0], *inner, steps[-1]]


def by_owner(ledger: Ledger, declared_bytes: int, given_bytes: int, buffers_bytes: int) -> dict[str, int]:
    """Return the device memory at its peak by owner, bytes: {weights, activations, contexts, buffers, run}.

    Args:
        ledger: of the engine.
        declared_bytes: memory that the engine declares for the activations of all contexts.
        given_bytes: memory for activations that `sweep` allocated itself (``context_memory=user_managed``).
        buffers_bytes: memory of inputs and outputs, which `sweep` allocates itself.
    """
    weights, created, run = (ledger.peak_by_phase[phase] for phase in PHASES)
    activations = min(created, max(declared_bytes - given_bytes, 0))
    return {
        "weights": weights,
        "activations": activations + given_bytes,
        "contexts": created - activations,
        "buffers": buffers_bytes,
        "run": run,
    }


def create_allocator(library: Library, ledger: Ledger) -> Any:
    """Create the library's ``IGpuAllocator`` that allocates through ``ledger``; it must outlive its runtime or builder.

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
