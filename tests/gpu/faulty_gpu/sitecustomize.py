"""On PYTHONPATH, Python runs this at its start: in a worker it does to the GPU what ``SWEEP_TEST_GPU_FAULT`` asks for.

``BATCH:sticky`` launches a kernel that writes to an address that is not there while a point of that batch runs;
``BATCH:memory`` takes all the device memory that is left before that batch's engine is loaded.
"""

from __future__ import annotations

import os
import sys
import threading

POINT_S = 0.3
PTX = b"""
.version 7.0
.target sm_70
.address_size 64
.visible .entry bad() {
  .reg .b64 %at;
  .reg .b32 %value;
  mov.u64 %at, 16;
  mov.u32 %value, 1;
  st.global.u32 [%at], %value;
  ret;
}
\x00"""


def driver():
    """CUDA's driver API with the device's own context current in this thread, as the runtime has it."""
    from cuda.bindings import driver as cuda

    check(cuda.cuInit(0))
    context = check(cuda.cuDevicePrimaryCtxRetain(check(cuda.cuDeviceGet(0))))
    check(cuda.cuCtxSetCurrent(context))
    return cuda


def check(answer):
    error, *values = answer
    if int(error) != 0:
        raise RuntimeError(f"the fault could not be caused: {error.name}")
    return values[0] if values else None


def sticky() -> None:
    cuda = driver()
    kernel = check(cuda.cuModuleGetFunction(check(cuda.cuModuleLoadData(PTX)), b"bad"))
    check(cuda.cuLaunchKernel(kernel, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0))
    sys.stderr.write("a kernel was launched that writes to address 16\n")


def memory() -> None:
    """Takes what is left, in ever smaller pieces."""
    cuda = driver()
    size, taken = 8 << 30, 0
    while size >= 1 << 20:
        error, _ = cuda.cuMemAlloc(size)
        if int(error) == 0:
            taken += size
        else:
            size //= 2
    sys.stderr.write(f"took {taken} bytes of device memory\n")


def install(batch: int, what: str) -> None:
    from sweep.backends.tensorrt.backend import TensorRT
    from sweep.runner.worker import measure

    drive, load = measure._drive, TensorRT.load

    def faulty_drive(session, job, report):
        if what == "sticky" and job.variant.engine.batch == batch:
            threading.Timer(POINT_S, sticky).start()
        return drive(session, job, report)

    def faulty_load(self, engine, info, variant, feeds):
        if what == "memory" and variant.engine.batch == batch:
            memory()
        return load(self, engine, info, variant, feeds)

    measure._drive, TensorRT.load = faulty_drive, faulty_load


if "SWEEP_TEST_GPU_FAULT" in os.environ and "sweep.runner.worker.main" in sys.orig_argv:
    asked_batch, _, asked = os.environ["SWEEP_TEST_GPU_FAULT"].partition(":")
    install(int(asked_batch), asked)
