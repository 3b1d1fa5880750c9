"""Prepare one execution context with its buffers, its CUDA stream and, on request, a CUDA graph for each shape."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sweep.backends.tensorrt.buffers import Buffers
from sweep.backends.tensorrt.cuda import Replay
from sweep.backends.tensorrt.stream import WAITS, TensorRTStream
from sweep.errors import SessionError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import tensorrt

    from sweep.backends.tensorrt.cuda import Cuda, Handle, ResourceStack
    from sweep.backends.tensorrt.engine import Engine
    from sweep.backends.tensorrt.library import Library
    from sweep.backends.tensorrt.stream import Step
    from sweep.spec import SessionAxes


class ExecutionContext:
    """Hold an execution context that is ready to run: it has run once and, on request, been captured as a CUDA graph.

    Args:
        engine: creates the library's context.
        cuda: makes the calls.
        resources: releases what is allocated.
        axes: cuda_graph, transfers and wait.
        feeds: value of each input at the full batch.
        handle: the CUDA stream, whose ownership passes to this object.

    Attributes:
        handle: as given.
        context: the library's own object.
        has_graph: its inferences are replays of a CUDA graph.
        buffers: the context's tensors.
        given_bytes: memory for activations that this object allocated and gave to the context, in bytes.
        stream: runs its inferences.

    Raises:
        SessionError: the context cannot be created or run; with the message of CUDA or the library.
        UnsupportedError: it cannot be captured as a CUDA graph, or its tensors cannot be bound.
    """

    def __init__(
        self,
        engine: Engine,
        cuda: Cuda,
        resources: ResourceStack,
        axes: SessionAxes,
        feeds: Mapping[str, np.ndarray],
        handle: Handle,
    ) -> None:
        self._library, self._cuda, self._resources, self._axes = engine.library, cuda, resources, axes
        self.handle: Handle = resources.push(handle, "cudaStreamDestroy")
        self.context: Any = engine.create_context(axes.context_memory)
        if axes.persistent_cache_ratio is not None:
            limit_persistent_cache(engine.library, cuda, self.context, axes.persistent_cache_ratio)
        self.buffers = Buffers(engine.library, cuda, resources, self.context, feeds, self.handle)
        self.given_bytes = 0
        if axes.context_memory == "user_managed":
            self._give_memory(engine.library)
        self._prepared: set[int] = set()
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
        launch = self._eager(samples)
        launch()
        self.buffers.synchronise()
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
        graph = capture(self._library, self._cuda, self.context, self.handle)
        return Replay(self._cuda.rt.cudaGraphLaunch, self._resources.push(graph, "cudaGraphExecDestroy"), self.handle)

    def _eager(self, samples: int | None) -> Step:
        """Return the context's own enqueue, preceded by a change of shape if another size ran before."""
        enqueue, handle = self.context.execute_async_v3, int(self.handle)
        buffers, library, success = self.buffers, self._library, (self._cuda.rt.cudaError_t.cudaSuccess,)

        def launch() -> tuple[Any, ...]:
            if buffers.samples != samples:
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
        self.context = None


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


def capture(library: Library, cuda: Cuda, context: tensorrt.IExecutionContext, stream: Handle) -> Handle:
    """Capture the inference as an executable CUDA graph. It must have run once, so that no set-up remains.

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
