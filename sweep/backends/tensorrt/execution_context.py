"""Prepare one execution context with its buffers, its CUDA stream and, on request, a CUDA graph for each shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sweep.backends.tensorrt.buffers import Buffers
from sweep.backends.tensorrt.cuda import Replay
from sweep.backends.tensorrt.stream import WAITS, TensorRTStream
from sweep.errors import SessionError, UnsupportedError
from sweep.system import Stopwatch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import tensorrt

    from sweep.backends.tensorrt.cuda import Cuda, Handle, ResourceStack
    from sweep.backends.tensorrt.engine import Engine
    from sweep.backends.tensorrt.library import Library
    from sweep.backends.tensorrt.stream import Step
    from sweep.spec import SessionAxes


@dataclass(slots=True)
class Occupancy:
    """Tell which of the shapes that share an execution context it is set to.

    Attributes:
        profile: number of its optimization profile.
        owner: the buffers whose shapes and tensors it has; None before the first.
    """

    profile: int = 0
    owner: Buffers | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Say where a context stands among those of one stream that run several shapes.

    Attributes:
        profile: number of the optimization profile that has the shapes.
        beside: the one that runs other shapes on the same stream; None for the first.
        shares: use the library's context of ``beside`` instead of another one.
    """

    profile: int = 0
    beside: ExecutionContext | None = None
    shares: bool = False


_ALONE = Place()


class ExecutionContext:
    """Hold an execution context that is ready to run: it has run once and, on request, been captured as a CUDA graph.

    Several of these may share the context of the library, each at shapes of its own; one of them runs at a time, and
    sets profile, shapes and tensors where another ran before.

    Args:
        engine: creates the library's context.
        cuda: makes the calls.
        resources: releases what is allocated.
        axes: cuda_graph, transfers and wait.
        feeds: value of each input at the full batch.
        handle: the CUDA stream, whose ownership passes to this object unless another is beside it, or `owns_stream` is
            False.
        place: its profile, and the one beside it; by default it runs alone, under the first profile.
        shared: device address of each tensor that lies in memory of others; the other tensors get memory of their own.
        owns_stream: the stream is released with the resources.

    Attributes:
        handle: as given.
        context: the library's own object.
        has_graph: its inferences are replays of a CUDA graph.
        buffers: the context's tensors.
        profile: that of ``place``.
        occupancy: which of the shapes that share the library's context it is set to.
        first_run_ms: time of the first inference on the host's clock, the change of the context to its shapes included.
        graphs: CUDA graphs that were captured, and their memory (``GraphMemory`` in the record).
        given_bytes: memory for activations that this object allocated and gave to the context, in bytes.
        stream: runs its inferences.

    Raises:
        SessionError: the context cannot be created or run; with the message of CUDA or the library.
        UnsupportedError: it cannot be captured as a CUDA graph, or its tensors cannot be bound.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - what a context is made of, of which nothing follows from another
        self,
        engine: Engine,
        cuda: Cuda,
        resources: ResourceStack,
        axes: SessionAxes,
        feeds: Mapping[str, np.ndarray],
        handle: Handle,
        place: Place = _ALONE,
        *,
        shared: Mapping[str, int] | None = None,
        owns_stream: bool = True,
    ) -> None:
        self._library, self._cuda, self._resources, self._axes = engine.library, cuda, resources, axes
        beside = place.beside
        if beside is None and owns_stream:
            resources.push(handle, "cudaStreamDestroy")
        self.handle: Handle = handle if beside is None else beside.handle
        self.profile = place.profile
        self.graphs: dict[str, int] = dict.fromkeys(("count", "nodes", "memory_bytes", "pool_bytes"), 0)
        self.context: Any
        self.occupancy: Occupancy
        if beside is not None and place.shares:
            self.context, self.occupancy = beside.context, beside.occupancy
        else:
            self.context, self.occupancy = engine.create_context(axes.context_memory), Occupancy()
            if axes.persistent_cache_ratio is not None:
                limit_persistent_cache(engine.library, cuda, self.context, axes.persistent_cache_ratio)
        _set_profile(engine.library, self.context, self.occupancy, self.profile, self.handle)
        self.buffers = Buffers(engine.library, cuda, resources, self.context, feeds, self.handle, place.profile, shared)
        self.given_bytes = 0
        if axes.context_memory == "user_managed":
            self._give_memory(engine.library)
        self.occupancy.owner = self.buffers
        self._prepared: set[int] = set()
        self.first_run_ms: float | None = None
        self.has_graph: bool = axes.cuda_graph
        copies = None if axes.transfers is False else self.buffers.copies()
        self._whole_batch = self._launch(None)
        self.stream = TensorRTStream(cuda, self.handle, self._whole_batch, copies, axes.wait or WAITS[0], resources)

    def _give_memory(self, library: Library) -> None:
        """Allocate as much scratch memory as the shapes need that are bound, and give it to the context.

        Raises:
            SessionError: the library cannot tell how much, or CUDA has no memory left.
        """
        library.log.clear()
        size = int(self.context.update_device_memory_size_for_shapes())
        if size < 0:
            raise SessionError(f"context_memory=user_managed: {library.log.tail()}")
        address = self._resources.push(self._cuda.malloc(size), "cudaFree")
        self._resources.device_bytes += size
        self.given_bytes = size
        self.context.set_device_memory(address, size)

    def prepare(self, sizes: Sequence[int]) -> None:
        """Make the stream accept batches of ``sizes`` too: run each once, and capture it if CUDA graphs are requested.

        A size below the minimum of the engine's profile runs padded to that minimum.

        Raises:
            SessionError: the engine's profile does not accept a size, or it cannot be run.
            UnsupportedError: a size cannot be captured.
        """
        if not self.buffers.takes_fewer:
            raise SessionError(f"the engine takes whole batches only; {', '.join(map(str, sizes))} were asked for")
        for samples in sizes:
            if samples not in self._prepared:
                padded_samples = max(samples, self.buffers.fewest)
                self.buffers.resize(padded_samples)
                copies = None if self._axes.transfers is False else self.buffers.copies()
                self.stream.add(samples, self._launch(padded_samples), copies)
                self._prepared.add(samples)
        self.buffers.resize(None)

    def infer(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the outputs, by name, of one inference with other inputs, which stay on the device."""
        self.buffers.feed(feeds)
        self.stream.enqueue()
        self.stream.wait()
        return self.buffers.fetch()

    def take_turns(self, batches: Sequence[Mapping[str, np.ndarray]]) -> int:
        """Copy these inputs in turn to the device, one batch an inference, and return how many; none is in flight.

        The first alone stays on the device where copies are no part of a request.
        """
        self.buffers.resize(None)
        self.buffers.feed(batches[0])
        if self._axes.transfers is False:
            return 1
        copies = self.buffers.copies() if len(batches) == 1 else self.buffers.turns(batches)
        self.stream.add(None, self._whole_batch, copies)
        return len(batches)

    def _launch(self, samples: int | None) -> Step:
        """Return the call that enqueues the inference at the current shapes, after it has run once."""
        launch, watch = self._eager(samples), Stopwatch()
        launch()
        self.buffers.synchronise()
        if self.first_run_ms is None:
            self.first_run_ms = watch.seconds() * 1e3
        return self._replay() if self._axes.cuda_graph else launch

    @property
    def launch(self) -> Step:
        """Return the call that enqueues an inference of the whole batch, as the stream does."""
        return self._whole_batch

    @property
    def eager(self) -> Step:
        """Return the call that enqueues an inference of the whole batch without a CUDA graph."""
        return self._eager(None)

    def recapture(self) -> Step:
        """Capture the inference of the whole batch again, and return the call that replays it."""
        return self._replay()

    def capture_graph(self) -> Handle:
        """Capture the inference of the whole batch and return the graph, which the caller destroys.

        Raises:
            UnsupportedError: the capture failed.
        """
        return capture_graph(self._library, self._cuda, self.context, self.handle)

    def _replay(self) -> Step:
        self._cuda.call("cudaDeviceSynchronize")
        free, pool = self._cuda.free_memory(), self._cuda.graph_pool_bytes()
        graph, nodes = capture(self._library, self._cuda, self.context, self.handle)
        self._cuda.call("cudaGraphUpload", graph, self.handle)
        self.buffers.synchronise()
        self.graphs["count"] += 1
        self.graphs["nodes"] += nodes
        self.graphs["memory_bytes"] += max(free - self._cuda.free_memory(), 0)
        self.graphs["pool_bytes"] += max(self._cuda.graph_pool_bytes() - pool, 0)
        return Replay(self._cuda.rt.cudaGraphLaunch, self._resources.push(graph, "cudaGraphExecDestroy"), self.handle)

    def _eager(self, samples: int | None) -> Step:
        """Return the context's own enqueue, preceded by a change of shape if another size ran before."""
        enqueue, handle = self.context.execute_async_v3, int(self.handle)
        buffers, library, success = self.buffers, self._library, (self._cuda.rt.cudaError_t.cudaSuccess,)
        occupancy, context, profile, stream = self.occupancy, self.context, self.profile, self.handle

        def launch() -> tuple[Any, ...]:
            if occupancy.owner is not buffers:  # nothing here refers to ``self``, which would outlive a failure
                _set_profile(library, context, occupancy, profile, stream)
                buffers.resize(samples)
                buffers.bind()
                occupancy.owner = buffers
            elif buffers.samples != samples:
                buffers.resize(samples)
            if not enqueue(handle):
                raise SessionError(f"{library.label} did not enqueue the inference: {library.log.tail()}")
            return success

        return launch

    def close(self) -> None:
        """Wait for the inferences in flight, then release buffers and context."""
        self.buffers.synchronise()
        self.buffers.close()
        self.stream.close()
        self.context, self._whole_batch = None, _refuse_closed


def _set_profile(
    library: Library, context: tensorrt.IExecutionContext, occupancy: Occupancy, profile: int, stream: Handle
) -> None:
    """Switch a context to a profile, on a stream, unless it has it.

    Raises:
        SessionError: the library does not take the profile; with its own last messages.
    """
    if occupancy.profile == profile:
        return
    library.log.clear()
    if not context.set_optimization_profile_async(profile, int(stream)):
        raise SessionError(f"{library.label} did not take profile {profile}: {library.log.tail()}")
    occupancy.profile = profile


def _refuse_closed() -> tuple[Any, ...]:
    """Stand in for the calls of a closed context, which would keep the library's object alive."""
    raise SessionError("the session is closed")


def limit_persistent_cache(library: Library, cuda: Cuda, context: tensorrt.IExecutionContext, ratio: float) -> None:
    """Let a context keep activations in a share of the L2 cache that can be set aside.

    Args:
        library: created the context.
        cuda: tells how much of the cache of the GPU can be set aside.
        context: changed in place.
        ratio: share of that, 0 to 1.

    Raises:
        UnsupportedError: the library or the GPU cannot.
    """
    if not hasattr(context, "persistent_cache_limit"):
        raise UnsupportedError(f"{library.label} does not have persistent_cache_ratio")
    properties = cuda.call("cudaGetDeviceProperties", cuda.call("cudaGetDevice"))
    most = int(properties.persistingL2CacheMaxSize)
    if not most and ratio:
        raise UnsupportedError(f"persistent_cache_ratio={ratio:g}: this GPU sets no part of its L2 cache aside")
    limit = int(ratio * most)
    context.persistent_cache_limit = limit
    if int(context.persistent_cache_limit) != limit:
        raise UnsupportedError(f"{library.label} does not take persistent_cache_ratio={ratio:g}")


def capture(library: Library, cuda: Cuda, context: tensorrt.IExecutionContext, stream: Handle) -> tuple[Handle, int]:
    """Capture the inference as an executable CUDA graph, and count its nodes.

    It must have run once, so that no set-up remains.

    TensorRT-RTX has ``is_stream_capturable``; 1.6 denies it for streams that it then captures well, so the capture
    itself is the test.

    Raises:
        UnsupportedError: the capture failed; the inference never runs silently without the graph.

    Source:
        *CUDA Graphs* of the TensorRT developer guide.
    """
    graph = capture_graph(library, cuda, context, stream)
    try:
        return cuda.instantiate(graph)
    except SessionError as error:
        raise _refused(library, str(error)) from error


def capture_graph(library: Library, cuda: Cuda, context: tensorrt.IExecutionContext, stream: Handle) -> Handle:
    """Capture the inference as a CUDA graph, which the caller instantiates or destroys.

    Raises:
        UnsupportedError: the capture failed.
    """
    library.log.clear()
    handle = int(stream)
    try:
        cuda.begin_capture(stream)
        try:
            enqueued = context.execute_async_v3(handle)
        finally:
            error, graph = cuda.rt.cudaStreamEndCapture(stream)
        if error != cuda.rt.cudaError_t.cudaSuccess:
            cuda.fail("cudaStreamEndCapture", error)
    except SessionError as error:
        raise _refused(library, str(error)) from error
    if not enqueued:
        cuda.rt.cudaGraphDestroy(graph)
        raise _refused(library)
    return graph


def _refused(library: Library, reason: str = "") -> UnsupportedError:
    text = "; ".join(filter(None, (reason, library.log.tail())))
    return UnsupportedError(f"cuda_graph=true: the capture failed: {text}")
