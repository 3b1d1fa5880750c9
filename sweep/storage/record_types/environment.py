"""Type the machine, its drift and the error that ended a variant."""

from __future__ import annotations

from typing import NotRequired, TypedDict

from sweep.spec import outcome
from sweep.storage.record_types.values import Bytes, Count, Rate


class Facts(TypedDict, total=False):
    """List the facts that must be equal for a comparison; a backend adds the versions of its libraries.

    Attributes:
        gpu: name of the GPU.
        gpu_uuid: UUID of the GPU where several were there.
        compute_capability: of the GPU.
        driver: version of the GPU's driver.
        cuda: version of CUDA that the driver supports.
        application_clock_mhz: SM clock that the GPU was set to; None where the driver does not say.
        power_limit_w: power that the GPU was limited to; None where the driver does not say.
        cuda_bindings: version of CUDA's Python bindings.
        tensorrt: TensorRT or TensorRT-RTX with its version.
        onnxruntime: version of onnxruntime.
        simulated: version of the simulated backend.
        cpu: name of the CPU.
        cores: logical cores.
        memory_bytes: memory of the host, bytes.
        host: name of the host.
        os: operating system.
        python: version of Python.
        numpy: version of numpy.
        onnx: version of onnx.
        sweep: version of this package.
        git: revision of the source; None outside a checkout.
    """

    gpu: str | None
    gpu_uuid: str | None
    compute_capability: str | None
    driver: str | None
    cuda: str | None
    application_clock_mhz: Count | None
    power_limit_w: Count | None
    cuda_bindings: str | None
    tensorrt: str | None
    onnxruntime: str | None
    simulated: str | None
    cpu: str | None
    cores: Count | None
    memory_bytes: Bytes | None
    host: str | None
    os: str | None
    python: str | None
    numpy: str | None
    onnx: str | None
    sweep: str | None
    git: str | None


class Drift(TypedDict):
    """Report whether the speed of the machine stayed the same while the variant was measured.

    Attributes:
        verdict: the outcome.
        reason: by how much the sentinel was off, if it drifted.
        sentinel_key: key of the sentinel's variant.
        stretches: number of the sentinel run before each pass of the variant; None for a pass without one.
        before: the sentinel's samples/s before the worst of these passes.
        after: and after it; None while that run is missing.
    """

    verdict: outcome.DriftVerdict
    reason: str | None
    sentinel_key: NotRequired[str]
    stretches: NotRequired[list[Count | None]]
    before: NotRequired[Rate]
    after: NotRequired[Rate | None]


class ErrorInfo(TypedDict):
    """Explain why a variant did not end ``ok``.

    Attributes:
        stage: stage of the pipeline that failed.
        kind: name of the error's class.
        message: one line: what was requested, what it met, what to do.
        stderr_tail: last lines that the worker printed.
        gate: the gate that an ``invalid`` variant does not keep, a field of ``Gates`` or ``Limits`` of ``sweep.spec``;
            None where no gate is at fault.
    """

    stage: str
    kind: NotRequired[str]
    message: str
    stderr_tail: NotRequired[list[str]]
    gate: NotRequired[str | None]
