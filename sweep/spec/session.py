"""Axes of the session: change one of these and the engine is loaded again, never rebuilt."""

from __future__ import annotations

from dataclasses import dataclass, field

from sweep.spec.base import NOT_IN_KEY


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionAxes:
    """Change one of these and the engine is loaded again, never rebuilt.

    Attributes:
        streams: execution contexts that run side by side in one process.
        clients: processes that share the device.
        mps: active thread percentage of each client under CUDA MPS; None runs without MPS.
        sm_count: SMs that the process keeps to by a CUDA green context; None uses the whole GPU, or the MPS share.
        cuda_graph: replay each inference as a captured CUDA graph.
        transfers: a request copies its inputs to the GPU and its outputs back; False times compute alone.
        wait: how a thread waits for the GPU: block, spin or yield.
        weight_streaming_budget_mib: most weights on the GPU, MiB; the rest is streamed from the host at each inference.
        intra_op_threads: CPU threads inside one inference (onnxruntime only).
        script: scripted behaviour of the simulated backend; None for every other.
    """

    streams: int = 1
    clients: int = 1
    mps: int | None = None
    sm_count: int | None = None
    cuda_graph: bool = False
    transfers: bool | None = None
    wait: str | None = None
    weight_streaming_budget_mib: int | None = None
    intra_op_threads: int | None = None
    script: Script | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """Scripted service times of the simulated backend, on a virtual clock.

    Attributes:
        service_us: fixed cost of one inference, microseconds.
        sample_us: added cost of each sample in the batch, microseconds.
        distribution: ``constant`` or ``exponential`` service times around that mean.
        raise_at: stage (build, load, measure) at which a scripted error is raised; None for none.
        sleep_after_us: idle time after which a stream falls asleep; None never does.
        wake_us: added cost of the inference that wakes it.
        machine: file that holds a factor on all service times, read when a session is loaded: a machine whose
            speed changes in the middle of a sweep. None for a steady one. Not in the key: a sweep cannot see it.
    """

    service_us: float = 100.0
    sample_us: float = 10.0
    distribution: str = "constant"
    raise_at: str | None = None
    sleep_after_us: float | None = None
    wake_us: float | None = None
    machine: str | None = field(default=None, metadata=NOT_IN_KEY)
