"""Count the SMs that this process reaches, with a kernel, independently of what the driver reports of a share.

The kernel is PTX text that the driver compiles when it is loaded, so that no compiler is needed. Each of its blocks
records the number of the SM that it runs on (``%smid``) and stays there for a moment, so that the next block goes
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
from sweep.system import child_process, environment_without_mps

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
_TIMEOUT_S = 60.0
_QUERY_SCRIPT = """
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


def count_reached_sms(cuda: Cuda, streams: Sequence[Handle], expected: int, *, graph: bool) -> int:
    """Count the distinct SMs on which blocks of a kernel on these streams ran.

    Args:
        cuda: makes the calls.
        streams: CUDA streams of the session, all of them idle.
        expected: number of SMs that should be reached; while fewer were seen, the kernel runs a few times more.
        graph: launch it as a CUDA graph, as the session does its inferences.

    Raises:
        SessionError: the kernel could not be loaded or run.
    """
    module = cuda.drive("cuModuleLoadData", _PTX)
    memory = 0
    try:
        kernel = cuda.drive("cuModuleGetFunction", module, b"reached")
        memory = cuda.malloc(_SLOTS * 4)
        reached_sms = np.zeros(_SLOTS, np.uint32)
        for number in range(_ROUNDS * len(streams)):
            if number >= len(streams) and np.count_nonzero(reached_sms) >= expected:
                break
            reached_sms |= _round(cuda, kernel, memory, streams[number % len(streams)], expected, graph=graph)
        return int(np.count_nonzero(reached_sms))
    finally:
        cuda.rt.cudaFree(memory)
        cuda.drv.cuModuleUnload(module)


def _round(cuda: Cuda, kernel: Any, memory: int, stream: Handle, expected: int, *, graph: bool) -> np.ndarray:
    """Launch the kernel once; return an array of shape (slots,) with 1 for each SM reached."""
    reached_sms = np.zeros(_SLOTS, np.uint32)
    cuda.call("cudaMemsetAsync", memory, 0, reached_sms.nbytes, stream)
    if graph:
        cuda.begin_capture(stream)
        try:
            _launch(cuda, kernel, memory, stream, expected)
        finally:
            error, captured = cuda.rt.cudaStreamEndCapture(stream)
        if error != cuda.rt.cudaError_t.cudaSuccess:
            cuda.fail("cudaStreamEndCapture", error)
        executable, _ = cuda.instantiate(captured)
        cuda.call("cudaGraphLaunch", executable, stream)
        cuda.call("cudaStreamSynchronize", stream)
        cuda.call("cudaGraphExecDestroy", executable)
    else:
        _launch(cuda, kernel, memory, stream, expected)
    cuda.copy(reached_sms.ctypes.data, memory, reached_sms.nbytes, "DeviceToHost", stream)
    cuda.call("cudaStreamSynchronize", stream)
    return reached_sms


def _launch(cuda: Cuda, kernel: Any, memory: int, stream: Handle, expected: int) -> None:
    values = (memory, _SLOTS, _CYCLES), _TYPES
    grid, block = (expected * _BLOCKS_PER_SM, 1, 1), (_THREADS, 1, 1)
    cuda.drive("cuLaunchKernel", kernel, *grid, *block, 0, cuda.drv.CUstream(int(stream)), values, 0)


def under_mps(cuda: Cuda) -> bool:
    """Return whether this process shares the GPU through an MPS server."""
    attribute = cuda.drv.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_MPS_ENABLED
    device = cuda.drive("cuDeviceGet", cuda.call("cudaGetDevice"))
    return bool(cuda.drive("cuDeviceGetAttribute", attribute, device))


@functools.cache
def whole_gpu_sm_count() -> int | None:
    """Return the SMs of the GPU, as a process outside MPS sees them; None if unknown. Cached for the process."""
    command = [sys.executable, "-c", _QUERY_SCRIPT]
    try:
        answer = subprocess.run(
            command,
            capture_output=True,
            text=True,
            env=environment_without_mps(os.environ),
            timeout=_TIMEOUT_S,
            check=True,
            preexec_fn=child_process.DIE_WITH_PARENT,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return int(answer) if answer.strip().isdecimal() else None


def process_sm_count() -> int:
    """Return the SMs that the driver reports to this process: those of its MPS share, where it has one."""
    return int(cuda_module.get().device()["sm_count"])


def mismatch(variant: Variant, realised: JsonDict) -> str | None:
    """Return how the session's SMs differ from the request, in one line; None if they do not."""
    requested, given, reached = variant.session.sm_count, realised["sm_count"], realised["sm_reached"]
    difference = _mps_mismatch(variant, realised)
    if difference is None and requested not in {None, given}:
        difference = f"asked for sm_count={requested}, but {given} SMs were given"
    if difference is None and reached != given:
        difference = f"{given} SMs were given, but a kernel found {reached}"
    return difference


def _mps_mismatch(variant: Variant, realised: JsonDict) -> str | None:
    requested, build_share = variant.session.mps, variant.engine.mps_build
    given, total, build_count = realised["sm_count"], realised["sm_total"], realised["build_sm_count"]
    if requested is None and realised["under_mps"]:
        return f"no MPS was asked for, but the process ran under an MPS daemon, with {given} SMs"
    if requested is not None and not realised["under_mps"]:
        return f"asked for mps={requested}, but the process ran without MPS, with {given} SMs"
    if requested is not None and not _is_share(requested, given, total):
        return f"asked for mps={requested}, but {given} of {total} SMs were given"
    if build_share is not None and not _is_share(build_share, build_count, total):
        return f"asked for mps_build={build_share}, but the engine was built with {build_count} of {total} SMs"
    return None


def _is_share(per_cent: int, count: int | None, total: int | None) -> bool:
    """Return whether ``count`` is that share of ``total`` SMs, within the granularity of MPS."""
    if count is None or total is None:
        return False
    return abs(count - total * per_cent / 100) < _GRANULARITY
