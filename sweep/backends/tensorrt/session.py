"""Load an engine with one execution context per stream.

Each context has its own buffers, CUDA stream and, on request, CUDA graphs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
from typing import TYPE_CHECKING

from sweep.backends.tensorrt import cuda as cuda_module
from sweep.backends.tensorrt import engine_inspector, green_context, layer_profile, runtime_cache, sm_probe
from sweep.backends.tensorrt.cuda import ResourceStack
from sweep.backends.tensorrt.engine import Engine
from sweep.backends.tensorrt.execution_context import ExecutionContext, Place
from sweep.backends.tensorrt.gpu_allocator import Ledger, by_owner
from sweep.backends.tensorrt.stream import WAITS
from sweep.errors import SessionError
from sweep.system import Stopwatch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np

    from sweep.backends.base import ProfileLimits
    from sweep.backends.tensorrt.cuda import Handle
    from sweep.backends.tensorrt.library import Library
    from sweep.backends.tensorrt.stream import TensorRTStream
    from sweep.spec import JsonDict, SessionAxes


class TensorRTSession:
    """Hold the execution contexts of one engine, ready to run: each has run once.

    Args:
        library: deserialises the engine.
        plan: the serialised engine.
        axes: streams, sm_count, cuda_graph, transfers, wait and weight_streaming_budget_mib.
        feeds: value of each input.
        entry: the engine's folder in the cache, beside which compiled kernels are stored; None stores none.
        profile: number of the optimization profile that has the shapes of ``feeds``.

    Attributes:
        partial_batches: a stream accepts fewer samples than ``feeds`` has, once ``prepare`` has run for that size.

    Raises:
        SessionError: the engine cannot be loaded or run; with the message of CUDA or the library.
        UnsupportedError: it cannot be captured as a CUDA graph, its tensors cannot be bound, or the GPU cannot give
            ``sm_count`` SMs.
    """

    virtual = False
    partial_batches = False

    def __init__(
        self,
        library: Library,
        plan: bytes,
        axes: SessionAxes,
        feeds: Mapping[str, np.ndarray],
        entry: Path | None,
        profile: int = 0,
    ) -> None:
        watch = Stopwatch()
        self._axes = axes
        self._place = Place(profile=profile)
        self._cuda = cuda_module.get()
        self._cuda.call("cudaFree", 0)  # makes the CUDA context, which is no part of the engine's memory
        self._green = _green_context(self._cuda, axes)
        free = self._cuda.free_memory()
        self._device = self._cuda.device()
        self._sm_count: int = self._device["sm_count"] if self._green is None else self._green.sm_count
        self._resources = ResourceStack(self._cuda)
        self._ledger = Ledger(self._cuda)
        self._contexts: list[ExecutionContext] = []
        self._engine: Engine | None = None
        self.engine_facts: JsonDict = {}
        self.realised: JsonDict = {}
        try:
            if self._green is not None:
                self._green.enter()
            kernels = None if entry is None else runtime_cache.path(entry, self._sm_count)
            self._engine = engine = Engine(library, plan, ledger=self._ledger, kernels=kernels)
            self._open(engine, axes, feeds, watch)
            self.engine_facts |= engine.facts()
            if engine.profiles > 1:
                self.engine_facts["profiles"] = engine.profiles
            if axes.cuda_graph:
                self.engine_facts["graphs"] = sum_graphs(self._contexts)
            self.engine_facts["device_memory_bytes"] = max(free - self._cuda.free_memory(), 0)
            self.realised = self._realised(axes, engine.settings)
            if self._green is not None and axes.beside is not None:
                self._green.leave()  # the network that is loaded next enters its own
        except BaseException:
            with contextlib.suppress(SessionError):  # what went wrong first is what must be told
                self.close()
            raise
        self.partial_batches = self._contexts[0].buffers.takes_fewer

    def _open(self, engine: Engine, axes: SessionAxes, feeds: Mapping[str, np.ndarray], watch: Stopwatch) -> None:
        if axes.weight_streaming_budget_mib is not None:
            engine.stream_weights(axes.weight_streaming_budget_mib)
        self._ledger.phase = "contexts"
        for number in range(axes.streams):
            stream = self._new_stream()
            self._contexts.append(
                ExecutionContext(engine, self._cuda, self._resources, axes, feeds, stream, self._place)
            )
            if number == 0:
                self.engine_facts["first_inference_s"] = watch.seconds()
        engine.save_runtime_cache()
        self._ledger.phase = "run"

    def _new_stream(self) -> Handle:
        return self._cuda.stream() if self._green is None else self._green.stream()

    def _realised(self, axes: SessionAxes, settings: JsonDict) -> JsonDict:
        return {
            "cuda_graph": axes.cuda_graph,  # a capture that fails ends the variant, so it is what was asked
            "contexts": self._context_count(),
            "sm_count": self._sm_count,
            **self._probe_sms(axes),
            "clocks_mhz": None,
            "device": self._device,
            "transfers": axes.transfers is not False,
            "wait": axes.wait or WAITS[0],
            "driven_by": "one thread" if (axes.wait or WAITS[0]) == "spin" else "a thread a stream",
            **settings,
            "notes": [],
        }

    def _context_count(self) -> int:
        """Return the number of the library's contexts, of which several shapes may share one."""
        return len({id(context.context) for context in self._contexts})

    def _probe_sms(self, axes: SessionAxes) -> JsonDict:
        """Measure {sm_reached, sm_total, under_mps}.

        ``sm_reached`` counts the SMs that a kernel on the session's streams ran on, ``sm_total`` those of the GPU.
        """
        under_mps = sm_probe.under_mps(self._cuda)
        return {
            "sm_reached": sm_probe.count_reached_sms(
                self._cuda,
                [context.handle for context in self._contexts[: axes.streams]],
                self._sm_count,
                graph=axes.cuda_graph,
            ),
            "sm_total": sm_probe.whole_gpu_sm_count() if under_mps else self._device["sm_count"],
            "under_mps": under_mps,
        }

    def profile_layers(self, limits: ProfileLimits) -> tuple[JsonDict, dict[str, JsonDict]]:
        """Time the layers of the engine on its first context, and on a further one that the library's profiler watches.

        Returns:
            As ``layer_profile.profile`` does.

        Raises:
            SessionError: no layer can be timed.
        """
        if self._engine is None:
            raise SessionError("the session is closed")
        stream = self._new_stream()
        first = self._contexts[0]
        axes = dataclasses.replace(self._axes, cuda_graph=False)
        values = first.buffers.values()
        spare = ExecutionContext(self._engine, self._cuda, self._resources, axes, values, stream, self._place)
        self._contexts.append(spare)  # closed with the others
        return layer_profile.profile(self._engine.library, self._cuda, first, spare, limits)

    @property
    def listing(self) -> JsonDict:
        """Return what the library's inspector tells of the layers of the loaded engine."""
        if self._engine is None:
            raise SessionError("the session is closed")
        return engine_inspector.inspect_engine(self._engine.library, self._engine.engine)

    @property
    def shape_facts(self) -> JsonDict:
        """Return {first_run_ms, context_memory_bytes, graphs} of the shape that this runs, as far as they are known."""
        return self._facts_of(self._contexts[: self._axes.streams])

    def _facts_of(self, contexts: Sequence[ExecutionContext]) -> JsonDict:
        facts: JsonDict = {"first_run_ms": contexts[0].first_run_ms}
        if self._engine is not None:
            facts["context_memory_bytes"] = self._engine.context_memory_bytes(contexts[0].profile)
        if self._axes.cuda_graph:
            facts["graphs"] = sum_graphs(contexts)
        return facts

    @property
    def streams(self) -> Sequence[TensorRTStream]:
        """Return the contexts' streams."""
        return [context.stream for context in self._contexts]

    def prepare(self, sizes: Sequence[int]) -> None:
        """Make every stream accept batches of ``sizes`` too.

        Raises:
            SessionError: the engine's profile does not accept a size, or it cannot be run.
            UnsupportedError: a size cannot be captured as a CUDA graph.
        """
        self._ledger.phase = "contexts"
        for context in self._contexts:
            context.prepare(sizes)
        self._ledger.phase = "run"

    def outputs(self) -> dict[str, np.ndarray]:
        """Return the outputs, by name, of the last inference on the first stream.

        They are copied from the device even if copies are not timed.
        """
        return self.outputs_of(0)

    def infer(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the outputs of one inference with other inputs, on the first stream; the inputs stay on the device."""
        return self._contexts[0].infer(feeds)

    def take_turns(self, batches: Sequence[Mapping[str, np.ndarray]]) -> int:
        """Feed these inputs in turn, on every stream; the first alone where copies are no part of a request."""
        return min(context.take_turns(batches) for context in self._contexts)

    def outputs_of(self, number: int) -> dict[str, np.ndarray]:
        """Return the outputs, by name, of the last inference on stream ``number``."""
        return self._contexts[number].buffers.fetch()

    def start_profiler(self) -> None:
        """Tell an attached profiler to record from here."""
        self._cuda.start_profiler()

    def stop_profiler(self) -> None:
        """Wait for the GPU, then tell an attached profiler to stop."""
        self._cuda.stop_profiler()

    def poison(self) -> None:
        """Overwrite all outputs, so that one which is not recomputed shows. For tests."""
        for context in self._contexts:
            context.buffers.poison()

    def close(self) -> None:
        """Release contexts, engine, memory, events and streams; a second call does nothing."""
        if self._contexts:
            buffers = self._resources.device_bytes
            declared = (self.engine_facts.get("context_memory_bytes") or 0) * self._context_count()
            given = sum(context.given_bytes for context in self._contexts)
            self.engine_facts["memory"] = {
                **self._ledger.facts(),
                "buffers_bytes": buffers,
                "peak_by_owner": by_owner(self._ledger, declared, given, buffers - given),
            }
        for context in self._contexts:
            context.close()
        self._contexts = []
        self._engine = None
        gc.collect()
        self._resources.close()
        if self._green is not None:
            self._green.leave()
            self._green.in_use = False


def sum_graphs(contexts: Sequence[ExecutionContext]) -> dict[str, int]:
    """Return the CUDA graphs of all contexts together, as ``ExecutionContext.graphs`` has them."""
    return {name: sum(context.graphs[name] for context in contexts) for name in contexts[0].graphs}


def _green_context(cuda: cuda_module.Cuda, axes: SessionAxes) -> green_context.GreenContext | None:
    """Return the green context of a session: one of several without a common SM where networks run side by side."""
    if axes.sm_count is None:
        return None
    shared = axes.shared
    if shared is None:
        return green_context.get_green_context(cuda, axes.sm_count)
    counts = tuple(sorted(shared.shares, reverse=True))
    contexts = green_context.get_partition(cuda, counts)
    free = [context for context in contexts if context.sm_count == axes.sm_count and not context.in_use]
    free[0].in_use = True
    return free[0]
