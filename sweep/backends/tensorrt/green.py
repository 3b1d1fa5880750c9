"""A CUDA green context: part of the GPU's SMs for this process, without a daemon.

Source: *Green Contexts* of the CUDA driver API
(https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__GREEN__CONTEXTS.html).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sweep.errors import SessionError, UnsupportedError

if TYPE_CHECKING:
    from sweep.backends.tensorrt.cuda import Cuda, Handle


class GreenContext:
    """A green context with exactly the SMs asked for, current in this thread until ``close``.

    Args:
        cuda: makes the calls; the device's primary context exists already.
        sm_count: SMs.

    Raises:
        UnsupportedError: the GPU or the driver has no green contexts, or cannot give that many SMs; the nearest counts.
    """

    def __init__(self, cuda: Cuda, sm_count: int) -> None:
        self._cuda = cuda
        self._made: Any = None
        device = cuda.drive("cuDeviceGet", cuda.call("cudaGetDevice"))
        self._primary = cuda.drive("cuCtxGetCurrent")
        try:
            whole = cuda.drive("cuDeviceGetDevResource", device, _sms(cuda))
            part = _part(cuda, whole, sm_count)
            described = cuda.drive("cuDevResourceGenerateDesc", [part], 1)
            flag = cuda.drv.CUgreenCtxCreate_flags.CU_GREEN_CTX_DEFAULT_STREAM
            self._made = cuda.drive("cuGreenCtxCreate", described, device, int(flag))
            self._context = cuda.drive("cuCtxFromGreenCtx", self._made)
            self.enter()
        except SessionError as error:
            self.close()
            raise UnsupportedError(f"sm_count={sm_count}: no green context could be made: {error}") from error

    def enter(self) -> None:
        """Make it current in the calling thread."""
        self._cuda.drive("cuCtxSetCurrent", self._context)

    def stream(self) -> Handle:
        """A stream on these SMs that does not wait for the default stream."""
        flag = self._cuda.drv.CUstream_flags.CU_STREAM_NON_BLOCKING
        made = self._cuda.drive("cuGreenCtxStreamCreate", self._made, int(flag), 0)
        return self._cuda.rt.cudaStream_t(int(made))

    @property
    def sm_count(self) -> int:
        """SMs of the context as the driver tells them."""
        return int(self._cuda.drive("cuCtxGetDevResource", self._context, _sms(self._cuda)).sm.smCount)

    def close(self) -> None:
        """Give it back, with the primary context current again; nothing the second time."""
        if self._made is not None:
            self._cuda.drive("cuCtxSetCurrent", self._primary)
            self._cuda.drive("cuGreenCtxDestroy", self._made)
            self._made = None


def _sms(cuda: Cuda) -> Any:
    return cuda.drv.CUdevResourceType.CU_DEV_RESOURCE_TYPE_SM


def _part(cuda: Cuda, whole: Any, sm_count: int) -> Any:
    """The resource of exactly ``sm_count`` SMs; the driver alone would round up."""
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
    """The smallest part with ``least`` SMs or more; None if there is none."""
    try:
        parts, _, _ = cuda.drive("cuDevSmResourceSplitByCount", 1, whole, 0, least)
    except SessionError:
        return None
    return parts[0] if parts else None
