"""One execution context with its buffers, its CUDA stream and, if asked, a CUDA graph for each shape."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from sweep.backends.tensorrt.buffers import Buffers
from sweep.backends.tensorrt.stream import WAITS, TensorRTStream
from sweep.errors import SessionError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import tensorrt

    from sweep.backends.tensorrt.cuda import Cuda, Handle, Held
    from sweep.backends.tensorrt.engine import Engine
    from sweep.backends.tensorrt.library import Library
    from sweep.backends.tensorrt.stream import Step
    from sweep.spec import SessionAxes


class Lane:
    """Ready to be driven: it has run once, and been captured if that is asked, before this is made.

    Args:
        engine: makes the context.
        cuda: makes the calls.
        held: gives back what is taken.
        axes: cuda_graph, transfers and wait.
        feeds: value of each input at the whole batch.
        handle: the CUDA stream, which becomes the lane's own.

    Attributes:
        handle: as given.
        buffers: the context's tensors.
        stream: drives it.

    Raises:
        SessionError: it cannot be made or run; CUDA's or the library's own words.
        UnsupportedError: it cannot be captured as a CUDA graph, or its tensors cannot be bound.
    """

    def __init__(
        self,
        engine: Engine,
        cuda: Cuda,
        held: Held,
        axes: SessionAxes,
        feeds: Mapping[str, np.ndarray],
        handle: Handle,
    ) -> None:
        self._library, self._cuda, self._held, self._axes = engine.library, cuda, held, axes
        self.handle: Handle = held.take(handle, "cudaStreamDestroy")
        self._context: Any = engine.context()
        self.buffers = Buffers(engine.library, cuda, held, self._context, feeds, self.handle)
        self._prepared: set[int] = set()
        copies = None if axes.transfers is False else self.buffers.copies()
        self.stream = TensorRTStream(cuda, self.handle, self._launch(None), copies, axes.wait or WAITS[0], held)

    def prepare(self, sizes: Sequence[int]) -> None:
        """Make the stream take batches of these sizes too: run each once and capture it anew where graphs are asked.

        A size below the least that the engine's profile takes runs at that least, padded.

        Raises:
            SessionError: the engine's profile does not take one, or it cannot be run.
            UnsupportedError: one cannot be captured.
        """
        if not self.buffers.takes_fewer:
            raise SessionError(f"the engine takes whole batches only; {', '.join(map(str, sizes))} were asked for")
        for samples in sizes:
            if samples not in self._prepared:
                ran = max(samples, self.buffers.fewest)
                self.buffers.resize(ran)
                copies = None if self._axes.transfers is False else self.buffers.copies()
                self.stream.add(samples, self._launch(ran), copies)
                self._prepared.add(samples)
        self.buffers.resize(None)

    def _launch(self, samples: int | None) -> Step:
        """The call that enqueues the inference at the shapes that are set; it has run once when this returns."""
        launch = self._eager(samples)
        launch()
        self.buffers.synchronise()
        if not self._axes.cuda_graph:
            return launch
        graph = capture(self._library, self._cuda, self._context, self.handle)
        return partial(self._cuda.rt.cudaGraphLaunch, self._held.take(graph, "cudaGraphExecDestroy"), self.handle)

    def _eager(self, samples: int | None) -> Step:
        """The context's own enqueue, after a change of shape where another size ran before."""
        enqueue, handle = self._context.execute_async_v3, int(self.handle)
        buffers, library, fine = self.buffers, self._library, (self._cuda.rt.cudaError_t.cudaSuccess,)

        def launch() -> tuple[Any, ...]:
            if buffers.samples != samples:
                buffers.resize(samples)
            if not enqueue(handle):
                raise SessionError(f"{library.label} did not enqueue the inference: {library.log.tail()}")
            return fine

        return launch

    def close(self) -> None:
        """Wait for what is in flight, and let go of buffers and context."""
        self.buffers.synchronise()
        self.buffers.close()
        self.stream.close()
        self._context = None


def capture(library: Library, cuda: Cuda, context: tensorrt.IExecutionContext, stream: Handle) -> Handle:
    """The inference as an executable CUDA graph. It must have run once, so that nothing is left to be set up.

    TensorRT-RTX has ``is_stream_capturable``; 1.6 says no of streams that it then captures well, so the capture
    itself is the test.

    Raises:
        UnsupportedError: it cannot be captured; never a silent run without the graph.
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
        made = cuda.instantiate(graph)
    except SessionError as error:
        raise UnsupportedError(f"cuda_graph=true: the capture failed: {error}; {library.log.tail()}") from error
    if not enqueued:
        cuda.rt.cudaGraphExecDestroy(made)
        raise UnsupportedError(f"cuda_graph=true: the capture failed: {library.log.tail()}")
    return made
