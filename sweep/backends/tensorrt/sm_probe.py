"""How many SMs this process reaches: a kernel finds out, whatever the driver says of a share.

The kernel is PTX text that the driver compiles when it is loaded, so that no compiler is needed. Each of its blocks
writes down the number of the SM that it runs on (``%smid``) and stays there for a moment, so that the next block goes
elsewhere.
"""

from __future__ import annotations

import ctypes
import functools
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from sweep.backends.tensorrt import cuda as cuda_module
from sweep.system.mps import without

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.backends.tensorrt.cuda import Cuda, Handle
    from sweep.spec import JsonDict, Variant

_SLOTS = 4096  # numbers of SMs need not be contiguous; no GPU has as many
_BLOCKS_PER_SM = 8
_THREADS = 32
_CYCLES = 100_000  # that a block stays: 50 us at 2 GHz
_ROUNDS = 5  # another process may hold an SM meanwhile
_GRANULARITY = 2  # MPS gives whole TPCs, of two SMs since Volta
_PATIENCE_S = 60.0
_ASK = """
from cuda.bindings import driver as d
d.cuInit(0)
print(d.cuDeviceGetAttribute(d.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, d.cuDeviceGet(0)[1])[1])
"""
_TYPES = (ctypes.c_void_p, ctypes.c_uint, ctypes.c_ulonglong)  # of the kernel's parameters
_PTX = b"""
.version 6.0
.target sm_50
.address_size 64
.visible .entry reached(.param .u64 seen, .param .u32 slots, .param .u64 cycles)
{
  .reg .pred %p<3>;
  .reg .b32 %r<5>;
  .reg .b64 %rd<9>;
  ld.param.u64 %rd1, [seen];
  ld.param.u32 %r2, [slots];
  ld.param.u64 %rd4, [cycles];
  cvta.to.global.u64 %rd1, %rd1;
  mov.u32 %r1, %smid;
  setp.ge.u32 %p1, %r1, %r2;
  @%p1 bra STAY;
  mul.wide.u32 %rd2, %r1, 4;
  add.s64 %rd3, %rd1, %rd2;
  mov.u32 %r4, 1;
  st.global.u32 [%rd3], %r4;
STAY:
  mov.u64 %rd5, %clock64;
AGAIN:
  mov.u64 %rd6, %clock64;
  sub.u64 %rd7, %rd6, %rd5;
  setp.lt.u64 %p2, %rd7, %rd4;
  @%p2 bra AGAIN;
  ret;
}
\0"""


def reached(cuda: Cuda, streams: Sequence[Handle], expected: int, *, graph: bool) -> int:
    """Distinct SMs on which blocks of a kernel on these streams ran.

    Args:
        cuda: makes the calls.
        streams: CUDA streams of the session, all of them idle.
        expected: SMs that are thought to be there; while fewer were seen, the kernel runs a few times more.
        graph: launch it as a CUDA graph, as the session does its inferences.

    Raises:
        SessionError: the kernel could not be loaded or run.
    """
    module = cuda.drive("cuModuleLoadData", _PTX)
    memory = 0
    try:
        kernel = cuda.drive("cuModuleGetFunction", module, b"reached")
        memory = cuda.malloc(_SLOTS * 4)
        found = np.zeros(_SLOTS, np.uint32)
        for number in range(_ROUNDS * len(streams)):
            if number >= len(streams) and np.count_nonzero(found) >= expected:
                break
            found |= _round(cuda, kernel, memory, streams[number % len(streams)], expected, graph=graph)
        return int(np.count_nonzero(found))
    finally:
        cuda.rt.cudaFree(memory)
        cuda.drv.cuModuleUnload(module)


def _round(cuda: Cuda, kernel: Any, memory: int, stream: Handle, expected: int, *, graph: bool) -> np.ndarray:
    """1 for each SM that one launch reached."""
    seen = np.zeros(_SLOTS, np.uint32)
    cuda.call("cudaMemsetAsync", memory, 0, seen.nbytes, stream)
    if graph:
        cuda.begin_capture(stream)
        try:
            _launch(cuda, kernel, memory, stream, expected)
        finally:
            error, captured = cuda.rt.cudaStreamEndCapture(stream)
        if error != cuda.rt.cudaError_t.cudaSuccess:
            cuda.fail("cudaStreamEndCapture", error)
        made = cuda.instantiate(captured)
        cuda.call("cudaGraphLaunch", made, stream)
        cuda.call("cudaStreamSynchronize", stream)
        cuda.call("cudaGraphExecDestroy", made)
    else:
        _launch(cuda, kernel, memory, stream, expected)
    cuda.copy(seen.ctypes.data, memory, seen.nbytes, "DeviceToHost", stream)
    cuda.call("cudaStreamSynchronize", stream)
    return seen


def _launch(cuda: Cuda, kernel: Any, memory: int, stream: Handle, expected: int) -> None:
    values = (memory, _SLOTS, _CYCLES), _TYPES
    grid, block = (expected * _BLOCKS_PER_SM, 1, 1), (_THREADS, 1, 1)
    cuda.drive("cuLaunchKernel", kernel, *grid, *block, 0, cuda.drv.CUstream(int(stream)), values, 0)


def under_mps(cuda: Cuda) -> bool:
    """Whether this process shares the GPU through an MPS server."""
    attribute = cuda.drv.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_MPS_ENABLED
    device = cuda.drive("cuDeviceGet", cuda.call("cudaGetDevice"))
    return bool(cuda.drive("cuDeviceGetAttribute", attribute, device))


@functools.cache
def of_whole_gpu() -> int | None:
    """SMs of the GPU, as a process outside MPS sees them; None if none could tell. Asked once a process."""
    command = [sys.executable, "-c", _ASK]
    try:
        told = subprocess.run(
            command, capture_output=True, text=True, env=without(os.environ), timeout=_PATIENCE_S, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return int(told) if told.strip().isdecimal() else None


def of_this_process() -> int:
    """SMs that the driver tells this process of: those of its MPS share, where it has one."""
    return int(cuda_module.get().device()["sm_count"])


def mismatch(variant: Variant, realised: JsonDict) -> str | None:
    """How the SMs that the session had are not those that were asked for, in one line; None if they are."""
    asked, seen, found = variant.session.sm_count, realised["sm_count"], realised["sm_reached"]
    wrong = _mps_mismatch(variant, realised)
    if wrong is None and asked not in {None, seen}:
        wrong = f"asked for sm_count={asked}, but {seen} SMs were given"
    if wrong is None and found != seen:
        wrong = f"{seen} SMs were given, but a kernel found {found}"
    return wrong


def _mps_mismatch(variant: Variant, realised: JsonDict) -> str | None:
    asked, built = variant.session.mps, variant.engine.mps_build
    seen, total, then = realised["sm_count"], realised["sm_total"], realised["build_sm_count"]
    if asked is None and realised["under_mps"]:
        return f"no MPS was asked for, but the process ran under an MPS daemon, with {seen} SMs"
    if asked is not None and not realised["under_mps"]:
        return f"asked for mps={asked}, but the process ran without MPS, with {seen} SMs"
    if asked is not None and not _is_share(asked, seen, total):
        return f"asked for mps={asked}, but {seen} of {total} SMs were given"
    if built is not None and not _is_share(built, then, total):
        return f"asked for mps_build={built}, but the engine was built with {then} of {total} SMs"
    return None


def _is_share(per_cent: int, count: int | None, total: int | None) -> bool:
    """Whether ``count`` is that share of ``total`` SMs, as near as MPS can give it."""
    if count is None or total is None:
        return False
    return abs(count - total * per_cent / 100) < _GRANULARITY
