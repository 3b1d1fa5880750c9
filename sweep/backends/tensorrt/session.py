"""A loaded engine: one execution context a stream, each with its own buffers, CUDA stream and, if asked, graph."""

from __future__ import annotations

import contextlib
import gc
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from sweep.backends.tensorrt import cuda as cuda_module
from sweep.backends.tensorrt.buffers import Buffers
from sweep.backends.tensorrt.cuda import Held
from sweep.backends.tensorrt.engine import Engine
from sweep.backends.tensorrt.stream import WAITS, TensorRTStream
from sweep.errors import SessionError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    import tensorrt

    from sweep.axes import JsonDict, SessionAxes
    from sweep.backends.tensorrt.cuda import Cuda, Handle
    from sweep.backends.tensorrt.library import Library


class TensorRTSession:
    """Execution contexts of one engine, ready to be driven: each has run once before this is made.

    Args:
        library: deserialises the engine.
        plan: the serialised engine.
        axes: streams, cuda_graph, transfers and wait.
        feeds: value of each input.
        name: tells engines apart in what this process remembers of them.

    Raises:
        SessionError: the engine cannot be loaded or run; CUDA's or the library's own words.
        UnsupportedError: it cannot be captured as a CUDA graph, or its tensors cannot be bound.
    """

    virtual = False
    partial_batches = False  # the engine's shapes are static: a batch that is not full runs padded

    def __init__(
        self, library: Library, plan: bytes, axes: SessionAxes, feeds: Mapping[str, np.ndarray], name: str
    ) -> None:
        start = time.perf_counter()
        self._cuda = cuda_module.get()
        self._cuda.call("cudaFree", 0)  # makes the CUDA context, which is no part of the engine's memory
        free = self._cuda.free_memory()
        self._held = Held(self._cuda)
        self._engine: Engine | None = None
        self._buffers: list[Buffers] = []
        self._contexts: list[tensorrt.IExecutionContext] = []
        self.streams: list[TensorRTStream] = []
        self.engine_facts: JsonDict = {}
        self.realised: JsonDict = {}
        try:
            engine = self._engine = Engine(library, plan, name)
            for number in range(axes.streams):
                self._add(engine, axes, feeds)
                if number == 0:
                    self.engine_facts["first_inference_s"] = time.perf_counter() - start
        except BaseException:
            with contextlib.suppress(SessionError):  # what went wrong first is what must be told
                self.close()
            raise
        engine.remember()
        self.engine_facts |= engine.facts()
        self.engine_facts["device_memory_bytes"] = max(free - self._cuda.free_memory(), 0)
        self.realised = self._realised(axes, engine.settings)

    def _add(self, engine: Engine, axes: SessionAxes, feeds: Mapping[str, np.ndarray]) -> None:
        cuda, library = self._cuda, engine.library
        stream = self._held.take(cuda.stream(), "cudaStreamDestroy")
        context = engine.context()
        self._contexts.append(context)
        buffers = Buffers(library, cuda, self._held, context, feeds, stream)
        self._buffers.append(buffers)
        launch = _eager(library, cuda, context, stream)
        launch()
        buffers.synchronise()
        if axes.cuda_graph:
            graph = self._held.take(capture(library, cuda, context, stream), "cudaGraphExecDestroy")
            launch = partial(cuda.rt.cudaGraphLaunch, graph, stream)
        copies = None if axes.transfers is False else buffers.copies()
        self.streams.append(TensorRTStream(cuda, stream, launch, copies, axes.wait or WAITS[0], self._held))

    def _realised(self, axes: SessionAxes, settings: JsonDict) -> JsonDict:
        device = self._cuda.device()
        return {
            "cuda_graph": axes.cuda_graph,  # a capture that fails ends the variant, so it is what was asked
            "contexts": len(self._contexts),
            "sm_count": device["sm_count"],
            "clocks_mhz": None,
            "device": device,
            "transfers": axes.transfers is not False,
            "wait": axes.wait or WAITS[0],
            **settings,
            "notes": [],
        }

    def outputs(self) -> dict[str, np.ndarray]:
        """Outputs of the last inference on the first stream; copied from the device, whatever was timed."""
        return self._buffers[0].fetch()

    def outputs_of(self, number: int) -> dict[str, np.ndarray]:
        """Outputs of the last inference on stream ``number``."""
        return self._buffers[number].fetch()

    def poison(self) -> None:
        """Overwrite all outputs, so that one which is not computed anew shows. For tests."""
        for buffers in self._buffers:
            buffers.poison()

    def close(self) -> None:
        """Give back contexts, engine, memory, events and streams; nothing the second time."""
        for buffers in self._buffers:
            buffers.synchronise()
            buffers.close()
        for stream in self.streams:
            stream.close()
        self._buffers, self.streams = [], []
        self._contexts = []
        self._engine = None
        gc.collect()
        self._held.close()


def _eager(
    library: Library, cuda: Cuda, context: tensorrt.IExecutionContext, stream: Handle
) -> Callable[[], tuple[Any, ...]]:
    enqueue, handle, fine = context.execute_async_v3, int(stream), (cuda.rt.cudaError_t.cudaSuccess,)

    def launch() -> tuple[Any, ...]:
        if not enqueue(handle):
            raise SessionError(f"{library.label} did not enqueue the inference: {library.log.tail()}")
        return fine

    return launch


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
