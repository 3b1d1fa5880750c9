"""Declare the axes of the session: if one changes, the engine is loaded again, never rebuilt."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from sweep.spec.axis import SPECIAL, TrtexecFlag, axis, flag, plain_text, prefixed
from sweep.spec.base import NOT_IN_KEY
from sweep.spec.checks import above_zero, at_least, between, one_of
from sweep.spec.engine import EngineAxes  # noqa: TC001 - get_type_hints
from sweep.spec.load import LoadAxes  # noqa: TC001 - get_type_hints
from sweep.spec.onnx import OnnxAxes  # noqa: TC001 - get_type_hints
from sweep.spec.sharing import Sharing, parse_sharing

_ALL_PERCENT = 100
_ALLOCATIONS = {"static": "static", "on_profile_change": "profile", "user_managed": "runtime"}
"""Who allocates the scratch memory of a context, and the name of it in trtexec."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """Script the service times of the simulated backend, on a virtual clock.

    Attributes:
        service_us: fixed time of one inference, microseconds.
        sample_us: added time per sample of the batch, microseconds.
        distribution: ``constant`` or ``exponential`` service times around that mean.
        raise_at: stage (build, load, measure) at which a scripted error is raised; None for none.
        sleep_after_us: idle time after which a stream falls asleep, microseconds; None for never.
        wake_us: added time of the inference that wakes it, microseconds.
        switch_us: added time of an inference whose shape is not that of the one before it, microseconds.
        range_us: added time of an inference under ``profiles=range``, microseconds.
        profile_us: added time of an inference whose context switches its profile, microseconds.
        slows: factor on the service times of each network that runs beside this one; None for 1.
        machine: file with a factor on all service times, read when a session is loaded, which simulates a machine
            whose speed changes during a sweep; None for a steady one. Not in the key: a sweep cannot know it.
    """

    service_us: float = axis(
        100.0,
        key="backend.script.service_us",
        help="simulated: fixed time of an inference, us",
        check=above_zero,
    )
    sample_us: float = axis(
        10.0,
        key="backend.script.sample_us",
        help="simulated: added time per sample of the batch, us",
        check=at_least(0),
    )
    distribution: str = axis(
        "constant",
        key="backend.script.distribution",
        help="simulated: distribution of the service times: constant or exponential",
        check=one_of("constant", "exponential", rule="constant or exponential"),
    )
    raise_at: str | None = axis(
        None,
        key="backend.script.raise_at",
        help="simulated: stage that raises an error: build, load or measure",
        check=one_of("build", "load", "measure", rule="build, load or measure"),
    )
    sleep_after_us: float | None = axis(
        None,
        key="backend.script.sleep_after_us",
        help="simulated: idle time after which a stream falls asleep, us (null: never)",
        check=at_least(0),
    )
    wake_us: float | None = axis(
        None,
        key="backend.script.wake_us",
        help="simulated: added time of the inference that wakes a stream, us",
        check=at_least(0),
    )
    switch_us: float | None = axis(
        None,
        key="backend.script.switch_us",
        help="simulated: added time of an inference of another shape than the one before it, us",
        check=at_least(0),
    )
    range_us: float | None = axis(
        None,
        key="backend.script.range_us",
        help="simulated: added time of an inference under profiles=range, us",
        check=at_least(0),
    )
    profile_us: float | None = axis(
        None,
        key="backend.script.profile_us",
        help="simulated: added time of an inference whose context switches its profile (profile_switch=true), us",
        check=at_least(0),
    )
    slows: float | None = axis(
        None,
        key="backend.script.slows",
        help="simulated: factor on the service times of each network beside this one (null: 1)",
        check=above_zero,
    )
    machine: str | None = axis(
        None,
        key="backend.script.machine",
        help="simulated: file with a factor on all service times, read when a session is loaded",
        in_key=False,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """Describe a network that runs beside the one that is measured, on the same device and backend.

    Attributes:
        onnx: its graph.
        engine: its engine.
        session: how it is loaded; its share of the device is that of ``SessionAxes.sharing``.
        load: what drives it while the other is measured: an arrival process at its highest rate, else a closed loop.
        slo: percentile of its latency and the limit in ms, as ``p99_ms:20``; None for none. A judgement, so not in the
            key.
    """

    onnx: OnnxAxes
    engine: EngineAxes
    session: SessionAxes
    load: LoadAxes
    slo: str | None = field(default=None, metadata=NOT_IN_KEY)

    @property
    def rate_ips(self) -> float | None:
        """Return the rate at which it is driven, samples/s; None for a closed loop."""
        return max(self.load.rates_ips, default=None)

    @property
    def name(self) -> str:
        """Return a short name: network, precision, batch and rate, as ``bert_base-fp16-b8@200``."""
        rate = "" if self.rate_ips is None else f"@{plain_text(self.rate_ips)}"
        return f"{self.onnx.model.name}-{self.onnx.precision.name}-b{self.engine.batch}{rate}"


def _neighbours_word(neighbours: tuple[Neighbour, ...]) -> str:
    return f"beside-{'+'.join(neighbour.name for neighbour in neighbours)}"


def _neighbours_overrides(neighbours: tuple[Neighbour, ...] | None) -> dict[str, Any]:
    return {"beside": None if neighbours is None else [dataclasses.asdict(neighbour) for neighbour in neighbours]}


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionAxes:
    """Hold the axes of the session: if one changes, the engine is loaded again, never rebuilt.

    Attributes:
        streams: execution contexts that run concurrently in one process.
        clients: processes that share the device.
        mps: active thread percentage of each client under CUDA MPS; None runs without MPS.
        sm_count: SMs that a process is limited to by a CUDA green context; None for all, or the MPS share.
        cuda_graph: replay each inference as a captured CUDA graph.
        profile_switch: one context a stream switches between the profiles of an engine; None has a context for each.
        wait: how a thread waits for the GPU: block, spin or yield.
        transfers: a request copies its inputs to the GPU and its outputs back; False times compute alone.
        context_memory: static, on_profile_change or user_managed: who allocates the scratch memory of a context, and
            when.
        persistent_cache_ratio: share of the L2 cache that can be set aside which keeps a context's activations.
        weight_streaming_budget_mib: most weights in GPU memory, MiB; the rest is streamed from the host.
        intra_op_threads: CPU threads inside one inference (onnxruntime only).
        sharing: how it shares the device with ``beside``, its own share first; None without neighbours.
        beside: networks that run on the device at the same time; None for none.
        script: service times of the simulated backend; None for every other backend.
    """

    streams: int = axis(
        1,
        key="streams",
        help="execution contexts that run concurrently in one process",
        check=at_least(1, most=4096),
        word=prefixed("s"),
        place=3,
        trtexec=TrtexecFlag(run=lambda streams: () if streams == 1 else (f"--infStreams={streams}", "--threads")),
    )
    clients: int = axis(
        1,
        key="clients",
        help="client processes that share the device",
        check=at_least(1, most=256),
        word=lambda clients: "" if clients == 1 else f"c{clients}",
        place=4,
        trtexec=TrtexecFlag(note="one process; start that many side by side and add up"),
    )
    mps: int | None = axis(
        None,
        key="mps",
        help="CUDA MPS active thread percentage of each client, 1 to 100 (null: run without MPS)",
        check=between(1, _ALL_PERCENT, "a percentage from 1 to 100, or null to run without MPS"),
        word=prefixed("mps"),
        place=5,
        trtexec=SPECIAL,
    )
    sm_count: int | None = axis(
        None,
        key="sm_count",
        help="SMs that a process is limited to by a CUDA green context (null: all, or the share of mps)",
        check=at_least(1),
        word=prefixed("sm"),
        place=6,
        trtexec=TrtexecFlag(note="it uses the whole GPU; a green context is made in the process"),
    )
    cuda_graph: bool = axis(
        default=False,
        key="cuda_graph",
        help="replay each inference as a captured CUDA graph",
        word=lambda captured: "graph" if captured else "",
        place=7,
        trtexec=SPECIAL,
    )
    profile_switch: bool | None = axis(
        None,
        key="profile_switch",
        help="profiles=per_shape: one context a stream switches its profile with the shape, instead of a context each",
        cli_default=False,
        hint=bool,
        word=lambda switches: "switched" if switches else "",
        place=7,
        cell=lambda switches: str(bool(switches)).lower(),
        overrides=lambda switches: {"profile_switch": bool(switches)},
        trtexec=TrtexecFlag(note="it runs one shape, with one profile"),
    )
    wait: str | None = axis(
        None,
        key="backend.wait",
        help="TensorRT: how a thread waits for the GPU: block, spin or yield (null: spin)",
        check=one_of("block", "spin", "yield"),
        word=prefixed("wait-"),
        trtexec=SPECIAL,
    )
    transfers: bool | None = axis(
        None,
        key="transfers",
        help="false leaves the copies to and from the GPU out of each request, and times compute alone (null: true)",
        word=prefixed("transfers-"),
        trtexec=SPECIAL,
    )
    context_memory: str | None = axis(
        None,
        key="backend.context_memory",
        help=(
            "TensorRT: scratch memory of a context: static (for every shape), on_profile_change or user_managed (for "
            "the shapes that run) (null: static)"
        ),
        check=one_of(*_ALLOCATIONS),
        word=prefixed("memory-"),
        trtexec=TrtexecFlag(run=flag("--allocationStrategy", _ALLOCATIONS.get), rtx=False),
    )
    persistent_cache_ratio: float | None = axis(
        None,
        key="backend.persistent_cache_ratio",
        help="TensorRT: share of the L2 cache that can be set aside for a context's activations, 0 to 1 (null: none)",
        check=between(0, 1, "0 to 1"),
        word=prefixed("l2-"),
        trtexec=TrtexecFlag(run=flag("--persistentCacheRatio"), rtx=False),
    )
    weight_streaming_budget_mib: int | None = axis(
        None,
        key="backend.weight_streaming_budget_mib",
        help="TensorRT: most weights in GPU memory, MiB; the rest is streamed from the host at each inference",
        check=at_least(0),
        word=prefixed("weight-budget"),
        trtexec=TrtexecFlag(run=flag("--weightStreamingBudget", "{}M".format)),
    )
    intra_op_threads: int | None = axis(
        None,
        key="backend.intra_op_threads",
        help="onnxruntime: CPU threads inside one inference (null: 1)",
        check=at_least(1),
    )
    sharing: str | None = axis(
        None,
        key="sharing",
        help=(
            "how networks side by side share the device: processes, streams (of one process), mps:75/25 (per cent) or "
            "green:64/32 (SMs)"
        ),
        word=str,
        place=8,
        trtexec=TrtexecFlag(note="it runs one network"),
    )
    beside: tuple[Neighbour, ...] | None = axis(
        None,
        key="beside",
        help="networks that run at the same time, a table of settings each, as in [{model:bert_base,batch:1,rate:200}]",
        hint=Any,
        word=_neighbours_word,
        place=9,
        cell=lambda neighbours: "null" if neighbours is None else _neighbours_word(neighbours).removeprefix("beside-"),
        overrides=_neighbours_overrides,
        trtexec=TrtexecFlag(note="it runs one network"),
    )
    script: Script | None = None

    @property
    def shared(self) -> Sharing | None:
        """Return how the device is shared with the networks beside this one; None where there are none."""
        return None if self.beside is None or self.sharing is None else parse_sharing(self.sharing)

    @property
    def processes(self) -> int:
        """Return the processes that measure: one a client, or one a network side by side unless they share one."""
        shared = self.shared
        if shared is None:
            return self.clients
        return 1 if shared.one_process else 1 + len(self.beside or ())
