"""Create a CUDA green context: part of the GPU's SMs for this process, without a daemon.

Source: *Green Contexts* of the CUDA driver API
(https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__GREEN__CONTEXTS.html).
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from sweep.errors import SessionError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Sequence

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

    The GPU is split into the smallest groups that it has, and each context gets as many as it needs. (What remains of
    a split cannot be split again: on an H200 its 68 SMs were refused in any other number than 68.)

    Args:
        cuda: makes the calls.
        counts: SMs of each.

    Raises:
        UnsupportedError: the GPU or the driver has no green contexts, or cannot be divided so.
    """
    name = f"sharing=green:{'/'.join(map(str, counts))}"
    try:
        device = cuda.drive("cuDeviceGet", cuda.call("cudaGetDevice"))
        whole = cuda.drive("cuDeviceGetDevResource", device, _sm_resource_type(cuda))
        total = int(whole.sm.smCount)
        smallest = _split(cuda, whole, 1)
        size = total if smallest is None else int(smallest.sm.smCount)
        groups, _, _ = cuda.drive("cuDevSmResourceSplitByCount", total // size, whole, 0, size)
    except SessionError as error:
        raise UnsupportedError(f"{name}: no green contexts could be made: {error}") from error
    if any(count % size for count in counts) or sum(counts) > len(groups) * size:
        raise UnsupportedError(
            f"{name}: this GPU of {total} SMs gives shares in steps of {size}, {len(groups) * size} together"
        )
    contexts, first = [], 0
    for count in counts:
        contexts.append(GreenContext(cuda, count, groups[first : first + count // size]))
        first += count // size
    return tuple(contexts)


class GreenContext:
    """Reserve part of the GPU's SMs for the streams created on it; a stream keeps to them in every thread.

    Args:
        cuda: makes the calls; the device's primary context exists already.
        sm_count: number of SMs.
        groups: groups of SMs of one split that make up the context; None takes the SMs from the whole device.

    Attributes:
        in_use: whether a session of a partition has it.

    Raises:
        UnsupportedError: the GPU or the driver has no green contexts, or cannot give that many SMs.
    """

    def __init__(self, cuda: Cuda, sm_count: int, groups: Sequence[Any] | None = None) -> None:
        self._cuda = cuda
        self.in_use = False
        try:
            device = cuda.drive("cuDeviceGet", cuda.call("cudaGetDevice"))
            if groups is None:
                whole = cuda.drive("cuDeviceGetDevResource", device, _sm_resource_type(cuda))
                groups = [_part(cuda, whole, sm_count)]
            descriptor = cuda.drive("cuDevResourceGenerateDesc", list(groups), len(groups))
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


def _part(cuda: Cuda, whole: Any, sm_count: int) -> Any:
    """Return the resource of exactly ``sm_count`` SMs; the driver alone would round up."""
    total = int(whole.sm.smCount)
    if sm_count == total:
        return whole
    if sm_count < total:
        part = _split(cuda, whole, sm_count)
        if part is not None and int(part.sm.smCount) == sm_count:
            return part
    parts = (_split(cuda, whole, least) for least in range(1, total))
    counts = sorted({total, *(int(part.sm.smCount) for part in parts if part is not None)})
    below, above = [count for count in counts if count < sm_count], [count for count in counts if count > sm_count]
    nearest = " or ".join(map(str, [*below[-1:], *above[:1]]))
    raise UnsupportedError(
        f"sm_count={sm_count}: this GPU of {total} SMs cannot give that many; the nearest: {nearest}"
    )


def _split(cuda: Cuda, whole: Any, least: int) -> Any:
    """Return the smallest part with ``least`` SMs or more; None if there is none."""
    try:
        parts, _, _ = cuda.drive("cuDevSmResourceSplitByCount", 1, whole, 0, least)
    except SessionError:
        return None
    return parts[0] if parts else None
