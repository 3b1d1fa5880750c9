"""Create a CUDA green context: part of the GPU's SMs for this process, without a daemon.

Source: *Green Contexts* of the CUDA driver API
(https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__GREEN__CONTEXTS.html).
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from sweep.errors import SessionError, UnsupportedError

if TYPE_CHECKING:
    from sweep.backends.tensorrt.cuda import Cuda, Handle


@functools.cache
def get_green_context(cuda: Cuda, sm_count: int) -> GreenContext:
    """Return the green context of exactly ``sm_count`` SMs: created once per process, and never destroyed.

    On an H200 (driver 580.159), after a green context in which an engine had run was destroyed, CUDA failed with
    CUDA_ERROR_CONTEXT_IS_DESTROYED in the next one, and in the primary context.

    Raises:
        UnsupportedError: the GPU or the driver has no green contexts, or cannot give that many SMs; the nearest counts.
    """
    return GreenContext(cuda, sm_count)


@functools.cache
def get_partition(cuda: Cuda, counts: tuple[int, ...]) -> tuple[GreenContext, ...]:
    """Return green contexts of `counts` SMs that have no SM in common: created once per process, never destroyed.

    Args:
        cuda: makes the calls.
        counts: SMs of each, the largest first.

    Raises:
        UnsupportedError: the GPU or the driver has no green contexts, or cannot be divided so.
    """
    contexts: list[GreenContext] = []
    left = None
    for count in counts:
        contexts.append(GreenContext(cuda, count, left))
        left = contexts[-1].left
    return tuple(contexts)


class GreenContext:
    """Reserve part of the GPU's SMs for the streams created on it; a stream keeps to them in every thread.

    Args:
        cuda: makes the calls; the device's primary context exists already.
        sm_count: number of SMs.
        whole: SMs to take them from, as the driver describes them; None takes those of the device.

    Attributes:
        left: SMs of `whole` that remain.
        in_use: whether a session of a partition has it.

    Raises:
        UnsupportedError: the GPU or the driver has no green contexts, or cannot give that many SMs.
    """

    def __init__(self, cuda: Cuda, sm_count: int, whole: Any = None) -> None:
        self._cuda = cuda
        self.in_use = False
        try:
            device = cuda.drive("cuDeviceGet", cuda.call("cudaGetDevice"))
            if whole is None:
                whole = cuda.drive("cuDeviceGetDevResource", device, _sm_resource_type(cuda))
            part, self.left = _part(cuda, whole, sm_count)
            descriptor = cuda.drive("cuDevResourceGenerateDesc", [part], 1)
            flag = cuda.drv.CUgreenCtxCreate_flags.CU_GREEN_CTX_DEFAULT_STREAM
            self._green = cuda.drive("cuGreenCtxCreate", descriptor, device, int(flag))
            self._context = cuda.drive("cuCtxFromGreenCtx", self._green)
            self._primary = cuda.drive("cuDevicePrimaryCtxRetain", device)
        except SessionError as error:
            raise UnsupportedError(f"sm_count={sm_count}: no green context could be made: {error}") from error

    def enter(self) -> None:
        """Make it current in this thread, so that the streams which a library creates for itself lie in it too."""
        self._cuda.drive("cuCtxSetCurrent", self._context)

    def leave(self) -> None:
        """Make the whole GPU's context current again."""
        self._cuda.drive("cuCtxSetCurrent", self._primary)

    def stream(self) -> Handle:
        """Create a stream on these SMs that does not wait for the default stream."""
        flag = self._cuda.drv.CUstream_flags.CU_STREAM_NON_BLOCKING
        stream = self._cuda.drive("cuGreenCtxStreamCreate", self._green, int(flag), 0)
        return self._cuda.rt.cudaStream_t(int(stream))

    @property
    def sm_count(self) -> int:
        """Return the number of SMs of the context, from the driver."""
        return int(self._cuda.drive("cuCtxGetDevResource", self._context, _sm_resource_type(self._cuda)).sm.smCount)


def _sm_resource_type(cuda: Cuda) -> Any:
    return cuda.drv.CUdevResourceType.CU_DEV_RESOURCE_TYPE_SM


def _part(cuda: Cuda, whole: Any, sm_count: int) -> tuple[Any, Any]:
    """Return the resource of exactly ``sm_count`` SMs, and what remains; the driver alone would round up."""
    total = int(whole.sm.smCount)
    if sm_count == total:
        return whole, None
    if sm_count < total:
        part, left = _split(cuda, whole, sm_count)
        if part is not None and int(part.sm.smCount) == sm_count:
            return part, left
    parts = (_split(cuda, whole, least)[0] for least in range(1, total))
    counts = sorted({total, *(int(part.sm.smCount) for part in parts if part is not None)})
    below, above = [count for count in counts if count < sm_count], [count for count in counts if count > sm_count]
    nearest = " or ".join(map(str, [*below[-1:], *above[:1]]))
    raise UnsupportedError(
        f"sm_count={sm_count}: this GPU of {total} SMs cannot give that many; the nearest: {nearest}"
    )


def _split(cuda: Cuda, whole: Any, least: int) -> tuple[Any, Any]:
    """Return the smallest part with ``least`` SMs or more, and what remains; None for both if there is none."""
    try:
        parts, _, left = cuda.drive("cuDevSmResourceSplitByCount", 1, whole, 0, least)
    except SessionError:
        return None, None
    return (parts[0], left) if parts else (None, None)
