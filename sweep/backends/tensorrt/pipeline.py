"""Run the stages of a pipeline on the GPU: the outputs of an engine are the inputs of the next, in device memory.

Each tensor of the pipeline has one buffer on the device. A network whose batch is the number of rows is bound to these
buffers, before its CUDA graph is captured, so that nothing is copied between two engines; any other runs over
the rows in slices, copied on the device. A host step copies what it reads to the host, and waits for it. CUDA events at
the borders of the stages tell the time of each.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from sweep.backends.clock import RealClock
from sweep.backends.host_steps import HOST_STEPS, Call
from sweep.backends.pipeline_rows import drawn_rows, in_turn, slices
from sweep.backends.stream_outputs import StreamOutputs
from sweep.backends.tensorrt import cuda as cuda_module
from sweep.backends.tensorrt import green_context, runtime_cache, sm_probe
from sweep.backends.tensorrt.cuda import ResourceStack
from sweep.backends.tensorrt.engine import Engine
from sweep.backends.tensorrt.execution_context import ExecutionContext
from sweep.backends.tensorrt.stream import WAITS
from sweep.errors import SessionError, UnsupportedError
from sweep.system import Stopwatch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from sweep.backends.base import PipelinePart
    from sweep.backends.tensorrt.buffers import Buffer
    from sweep.backends.tensorrt.cuda import Cuda, Handle
    from sweep.backends.tensorrt.library import Library
    from sweep.spec import JsonDict, Link, Pipeline, Variant

    Step = Callable[[int, int], None]  # run of the loop, rows to draw

_now = time.perf_counter_ns


@dataclass(slots=True, kw_only=True, eq=False)
class Tensor:
    """Hold one tensor of a pipeline, for one stream.

    Attributes:
        name: of the tensor.
        device: address in device memory.
        shape: at the most rows.
        dtype: of its elements.
        host: page-locked host memory of the same size, as an array; None until a copy needs it.
        rows: rows that it has now.
    """

    name: str
    device: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    host: np.ndarray | None = None
    rows: int = 0

    @property
    def nbytes(self) -> int:
        """Return the size of all rows, in bytes."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    @property
    def row_bytes(self) -> int:
        """Return the size of one row, in bytes."""
        return self.nbytes // max(self.shape[0], 1) if self.shape else self.nbytes

    def size(self) -> int:
        """Return the size of the rows that it has now, in bytes."""
        return self.row_bytes * self.rows if self.shape else self.nbytes


class PipelineStream:
    """Enqueue all stages of a request; ``wait`` blocks until the last is complete.

    Args:
        session: the session, whose engines, CUDA and resources this uses.
        parts: one of each stage.
        variant: its pipeline, batch, seed and session axes.
        externals: value of each tensor that comes from outside.
        handles: CUDA stream of each stage; the first entry is for copies and host steps.
        number: of the stream.

    Raises:
        SessionError: a stage cannot be loaded or run; the message names it.
    """

    max_depth = 1

    def __init__(
        self,
        session: TensorRTPipelineSession,
        parts: Sequence[PipelinePart],
        variant: Variant,
        externals: Mapping[str, np.ndarray],
        handles: Sequence[Handle],
        number: int,
    ) -> None:
        assert variant.pipeline is not None  # noqa: S101 - for mypy: only variants with one come here
        self.clock = RealClock()
        self._pipeline: Pipeline = variant.pipeline
        self._parts, self._batch, self._axes = parts, variant.engine.batch, variant.session
        self._cuda, self._resources, self._session = session.cuda, session.resources, session
        self.main, self._handles = handles[0], handles[1:]
        self._values: dict[str, np.ndarray] = {}
        self._enqueue_ms = 0.0
        self._order = list(self._pipeline.runs())
        self._drawn = drawn_rows(self._pipeline, variant.load.seed, number)
        self._draws = in_turn(self._drawn)
        self._tensors: dict[str, Tensor] = {}
        self.contexts: list[ExecutionContext] = []
        self._copies = variant.session.transfers is not False
        blocking = (variant.session.wait or WAITS[0]) == "block"
        self._starts, self._ends = (
            [self._resources.push(self._cuda.event(blocking=False), "cudaEventDestroy") for _ in self._order]
            for _ in range(2)
        )
        self._first, self._fed, self._last = (
            self._resources.push(self._cuda.event(blocking=blocking), "cudaEventDestroy") for _ in range(3)
        )
        self._times: list[list[float]] = []
        for name, value in externals.items():
            self._tensors[name] = self._allocate(name, value.shape, value.dtype)
        self._steps = self._prepare(parts)
        written = {link.tensor for part in parts for link in part.stage.outputs}
        self._uploaded = [name for name in externals if self._copies or name in written]
        self.feed(externals)
        self.enqueue()
        self.wait()
        self._draws = in_turn(self._drawn)
        self._times.clear()

    def _allocate(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Tensor:
        tensor = Tensor(name=name, device=0, shape=tuple(shape), dtype=np.dtype(dtype), rows=shape[0] if shape else 0)
        tensor.device = self._resources.push(self._cuda.malloc(tensor.nbytes), "cudaFree")
        self._resources.device_bytes += tensor.nbytes
        return tensor

    def _mirror(self, tensor: Tensor) -> np.ndarray:
        """Return the page-locked host memory of a tensor."""
        if tensor.host is None:
            address = self._resources.push(self._cuda.pinned(tensor.nbytes), "cudaFreeHost")
            tensor.host = cuda_module.view(address, tensor.shape, tensor.dtype)
            tensor.host[...] = 0
        return tensor.host

    def _prepare(self, parts: Sequence[PipelinePart]) -> list[Step]:
        """Load each stage in the order of its first run, and return the calls that enqueue them, by their numbers."""
        steps: dict[int, Step] = {}
        for stage in dict.fromkeys(stage for stage, _ in self._order):
            part = parts[stage]
            try:
                steps[stage] = self._host_step(stage) if part.engine is None else self._network_step(stage)
            except (SessionError, UnsupportedError) as error:
                raise type(error)(f"stage {part.stage.name}: {error}") from error
            except Exception as error:
                raise SessionError(f"stage {part.stage.name}: {' '.join(str(error).split())}") from error
        return [steps[stage] for stage in range(len(parts))]

    def _network_step(self, stage: int) -> Step:
        """Bind a network to the buffers of its tensors, and return the call that enqueues it for all rows."""
        part = self._parts[stage]
        batch, rows, handle = part.variant.engine.batch, self._common_rows(part), self._handles[stage]
        for link in part.stage.inputs:
            self._check_fit(link.port, part.feeds[link.port], link.tensor, by_row=link.port in part.row_inputs)
        whole = rows is None or rows == batch
        shared, engine = self._shared(part, whole=whole), self._session.engines[stage]
        assert engine is not None  # noqa: S101 - for mypy: a network has one
        context = ExecutionContext(
            engine,
            self._cuda,
            self._resources,
            part.variant.session,
            part.feeds,
            handle,
            shared=shared,
            owns_stream=False,
        )
        self.contexts.append(context)
        buffers = {buffer.name: buffer for buffer in (*context.buffers.inputs, *context.buffers.outputs)}
        before = [
            (self._tensors[link.tensor], buffers[link.port]) for link in part.stage.inputs if link.port not in shared
        ]
        after = self._written(part, buffers, None if whole else rows)
        launch, copy = context.launch, partial(self._cuda.copy, kind="DeviceToDevice", stream=handle)

        def run(_number: int, _drawn: int) -> None:
            _checked(self._cuda, launch())
            for tensor, buffer in after:
                copy(tensor.device, buffer.device, tensor.nbytes)

        def run_slices(_number: int, _drawn: int) -> None:
            count = before[0][0].rows
            for start in slices(count, batch):
                size = min(batch, count - start)
                for tensor, buffer in before:
                    copy(buffer.device, tensor.device + start * tensor.row_bytes, size * tensor.row_bytes)
                _checked(self._cuda, launch())
                for tensor, buffer in after:
                    copy(tensor.device + start * tensor.row_bytes, buffer.device, size * tensor.row_bytes)
            for tensor, _ in after:
                tensor.rows = count

        return run if whole else run_slices

    def _shared(self, part: PipelinePart, *, whole: bool) -> dict[str, int]:
        """Return the address of each tensor that a network reads and writes in place.

        Rows that it takes in slices are copied. So is what it writes and reads: a kernel may write before it has read
        everything.
        """
        read = {link.tensor for link in part.stage.inputs}
        links = [link for link in part.stage.inputs if whole or link.port not in part.row_inputs]
        if whole:
            links += [link for link in part.stage.outputs if link.tensor in self._tensors and link.tensor not in read]
        return {link.port: self._tensors[link.tensor].device for link in links}

    def _written(
        self, part: PipelinePart, buffers: Mapping[str, Buffer], rows: int | None
    ) -> list[tuple[Tensor, Buffer]]:
        """Note the tensors that a network writes, and return those that its own buffers have to be copied to.

        Args:
            part: the stage.
            buffers: of the network, by port.
            rows: rows of its inputs, where it takes them in slices; None where it takes them at once.
        """
        copied = []
        for link in part.stage.outputs:
            buffer = buffers[link.port]
            by_row = rows is not None and bool(buffer.shape) and buffer.shape[0] == part.variant.engine.batch
            shape = (rows, *buffer.shape[1:]) if by_row and rows is not None else buffer.shape
            if link.tensor not in self._tensors and by_row:
                self._tensors[link.tensor] = self._allocate(link.tensor, shape, buffer.array.dtype)
            tensor = self._tensors.setdefault(
                link.tensor,
                Tensor(
                    name=link.tensor,
                    device=buffer.device,
                    shape=shape,
                    dtype=buffer.array.dtype,
                    rows=shape[0] if shape else 0,
                ),
            )
            _check_same(link, tensor, shape, buffer.array.dtype)
            if tensor.device != buffer.device:
                copied.append((tensor, buffer))
        return copied

    def _common_rows(self, part: PipelinePart) -> int | None:
        """Return the most rows of a network's inputs; None where none of them has a batch."""
        rows = {
            link.port: self._tensors[link.tensor].shape[0] for link in part.stage.inputs if link.port in part.row_inputs
        }
        if len(set(rows.values())) > 1:
            texts = ", ".join(f"{port} has {count}" for port, count in rows.items())
            raise SessionError(f"its inputs have different numbers of rows: {texts}; map tensors of one number")
        return next(iter(rows.values()), None)

    def _check_fit(self, port: str, wanted: np.ndarray, name: str, *, by_row: bool) -> None:
        """Refuse a tensor whose shape or type an input does not take."""
        given = self._tensors[name]
        shapes = [shape[int(by_row) :] for shape in (wanted.shape, given.shape)]
        if shapes[0] != shapes[1]:
            texts = [_text(("rows", *shape) if by_row else shape) for shape in shapes]
            raise SessionError(f"input {port} is {texts[0]}, and tensor {name} is {texts[1]}; map a tensor that fits")
        if given.dtype != wanted.dtype:
            raise SessionError(
                f"input {port} is {wanted.dtype}, and tensor {name} is {given.dtype}; map a tensor that fits, or keep "
                "inputs and outputs in float32 (precision.keep_io=true)"
            )

    def _host_step(self, stage: int) -> Step:
        part = self._parts[stage]
        step, count, batch = HOST_STEPS[str(part.stage.host)], part.stage.count, self._batch
        call = Call(run=0, count=count, batch=batch, rows=part.stage.most_rows)
        inputs = [(link.port, self._tensors[link.tensor]) for link in part.stage.inputs]
        first = step.run({port: self._mirror(tensor) for port, tensor in inputs}, call)
        outputs = []
        for link in part.stage.outputs:
            value = first[link.port]
            known = self._tensors.get(link.tensor)
            if known is None:
                known = self._tensors[link.tensor] = self._allocate(link.tensor, value.shape, value.dtype)
            _check_same(link, known, value.shape, value.dtype)
            outputs.append((link.port, known))
        if not inputs:
            return self._constant_step(part, [tensor for _, tensor in outputs])
        cuda, main = self._cuda, self.main

        def run(number: int, drawn: int) -> None:
            for _, tensor in inputs:
                cuda.copy(_address(self._mirror(tensor)), tensor.device, tensor.size(), "DeviceToHost", main)
            cuda.call("cudaStreamSynchronize", main)
            arrays = {
                port: self._mirror(tensor)[: tensor.rows] if tensor.shape else self._mirror(tensor)
                for port, tensor in inputs
            }
            values = step.run(arrays, Call(run=number, count=count, batch=batch, rows=drawn or None))
            for port, tensor in outputs:
                value, mirror = values[port], self._mirror(tensor)
                if tensor.shape:
                    mirror[: len(value)] = value
                    tensor.rows = len(value)
                else:
                    mirror[...] = value
                cuda.copy(tensor.device, _address(mirror), tensor.size(), "HostToDevice", main)

        return run

    def _constant_step(self, part: PipelinePart, tensors: Sequence[Tensor]) -> Step:
        """Compute the outputs of a step without inputs for each run of its loop; return the call that copies them."""
        step, count = HOST_STEPS[str(part.stage.host)], part.stage.count
        runs: list[list[tuple[Tensor, int]]] = []
        for number in range(count):
            values = step.run({}, Call(run=number, count=count, batch=self._batch))
            row = []
            for link, tensor in zip(part.stage.outputs, tensors, strict=True):
                address = self._resources.push(self._cuda.pinned(tensor.nbytes), "cudaFreeHost")
                np.copyto(cuda_module.view(address, tensor.shape, tensor.dtype), values[link.port])
                row.append((tensor, address))
            runs.append(row)

        def run(number: int, _drawn: int) -> None:
            for tensor, address in runs[number]:
                self._cuda.copy(tensor.device, address, tensor.nbytes, "HostToDevice", self.main)

        return run

    def enqueue(self, samples: int | None = None) -> None:
        """Start one request; returns once everything is enqueued, which waits for what a host step reads.

        Raises:
            SessionError: CUDA, TensorRT or a host step failed; the message names the stage.
        """
        del samples
        cuda, main = self._cuda, self.main
        start_ns = _now()
        cuda.call("cudaEventRecord", self._first, main)
        for name in self._uploaded:
            tensor = self._tensors[name]
            tensor.rows = tensor.shape[0] if tensor.shape else 0
            cuda.copy(tensor.device, _address(self._values[name]), tensor.nbytes, "HostToDevice", main)
        cuda.call("cudaEventRecord", self._fed, main)
        drawn = {stage: next(draws) for stage, draws in self._draws.items()}
        before, last = self._fed, main
        for place, (stage, number) in enumerate(self._order):
            handle = self._handles[stage] if self._parts[stage].engine is not None else main
            try:
                if handle is not last:
                    cuda.call("cudaStreamWaitEvent", handle, before, 0)
                if self._pipeline.overlap:  # others may be in the stage: its time begins once it is free
                    cuda.call("cudaEventRecord", self._starts[place], handle)
                self._steps[stage](number, drawn.get(stage, 0))
                cuda.call("cudaEventRecord", self._ends[place], handle)
            except Exception as error:
                raise SessionError(f"stage {self._parts[stage].stage.name}: {' '.join(str(error).split())}") from error
            before, last = self._ends[place], handle
        if last is not main:
            cuda.call("cudaStreamWaitEvent", main, before, 0)
        if self._copies:
            for name in self._pipeline.outputs:
                self._fetch(self._tensors[name])
        cuda.call("cudaEventRecord", self._last, main)
        self._enqueue_ms = (_now() - start_ns) / 1e6

    def _fetch(self, tensor: Tensor) -> None:
        self._cuda.copy(_address(self._mirror(tensor)), tensor.device, tensor.size(), "DeviceToHost", self.main)

    def wait(self) -> None:
        """Block until the request is complete, and read its times.

        Raises:
            SessionError: it failed on the GPU.
        """
        if self._axes.wait == "yield":
            while self._cuda.rt.cudaEventQuery(self._last)[0] == self._cuda.not_ready:
                time.sleep(0)
        self._cuda.call("cudaEventSynchronize", self._last)
        self._times.append(self._read())

    def _read(self) -> list[float]:
        """Return the times of the request that is complete, ms: copies, all stages, copies, host, then each stage."""
        elapsed = partial(self._cuda.call, "cudaEventElapsedTime")
        each = [0.0] * len(self._parts)
        borders = [self._fed, *self._ends]
        for place, (stage, _) in enumerate(self._order):
            start = self._starts[place] if self._pipeline.overlap else borders[place]
            each[stage] += elapsed(start, self._ends[place])
        copies = (elapsed(self._first, self._fed), elapsed(self._ends[-1], self._last))
        up, down = copies if self._copies else (float("nan"), float("nan"))
        return [up, elapsed(self._fed, self._ends[-1]), down, self._enqueue_ms, *each]

    def take_parts_ms(self) -> NDArray[np.float32]:
        """Return and discard the times of each request since the last call: four parts, then each stage, ms."""
        times, self._times = self._times, []
        return np.array(times, dtype=np.float32).reshape(-1, 4 + len(self._parts))

    def feed(self, externals: Mapping[str, np.ndarray]) -> None:
        """Put values into the tensors that come from outside, on the host and on the device; none is in flight."""
        if not self._values:
            for name in externals:
                tensor = self._tensors[name]
                address = self._resources.push(self._cuda.pinned(tensor.nbytes), "cudaFreeHost")
                self._values[name] = cuda_module.view(address, tensor.shape, tensor.dtype)
        for name, value in externals.items():
            np.copyto(self._values[name], value)
            tensor = self._tensors[name]
            self._cuda.copy(tensor.device, _address(self._values[name]), tensor.nbytes, "HostToDevice", self.main)
        self.synchronise()

    def outputs(self) -> dict[str, np.ndarray]:
        """Return the outputs of the last request, by name, copied from the device."""
        tensors = [self._tensors[name] for name in self._pipeline.outputs]
        for tensor in tensors:
            self._fetch(tensor)
        self.synchronise()
        return {
            tensor.name: (self._mirror(tensor)[: tensor.rows] if tensor.shape else self._mirror(tensor)).copy()
            for tensor in tensors
        }

    def infer(self, externals: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the outputs of one request with other tensors from outside, and the rows of the first request."""
        self.feed(externals)
        self._draws = in_turn(self._drawn)
        self.enqueue()
        self.wait()
        self._times.pop()
        return self.outputs()

    def poison(self) -> None:
        """Overwrite all tensors on the device, so that one which is not recomputed shows. For tests."""
        for tensor in self._tensors.values():
            self._cuda.call("cudaMemsetAsync", tensor.device, 0xFF, tensor.nbytes, self.main)
        self.synchronise()

    def synchronise(self) -> None:
        """Block until the work on all CUDA streams of this stream is complete."""
        for handle in (self.main, *self._handles):
            self._cuda.call("cudaStreamSynchronize", handle)

    def close(self) -> None:
        """Drop contexts and views before the memory is released."""
        with contextlib.suppress(SessionError):
            self.synchronise()
        for context in self.contexts:
            context.close()
        self.contexts, self._steps = [], []
        self._values = {}
        self._tensors = {}


class TensorRTPipelineSession(StreamOutputs):
    """Hold the engines of a pipeline and its streams, ready to run: each has served one request.

    Args:
        library: deserialises the engines.
        plans: serialised engine of each stage; None for a host step.
        parts: one of each stage.
        variant: its pipeline and its session axes.
        externals: value of each tensor that comes from outside.

    Attributes:
        cuda: makes the calls.
        resources: releases what is allocated.
        engines: of each stage; None for a host step.

    Raises:
        SessionError: a stage cannot be loaded or run; the message names it.
        UnsupportedError: a stage cannot be captured as a CUDA graph, or a layout of its own was requested.
    """

    virtual = False
    partial_batches = False

    def __init__(
        self,
        library: Library,
        plans: Sequence[bytes | None],
        parts: Sequence[PipelinePart],
        variant: Variant,
        externals: Mapping[str, np.ndarray],
    ) -> None:
        assert variant.pipeline is not None  # noqa: S101 - for mypy: only variants with one come here
        if variant.engine.io_format not in (None, "linear"):
            raise UnsupportedError("backend.io_format: the stages of a pipeline hand their tensors on as linear ones")
        watch, axes = Stopwatch(), variant.session
        self.cuda: Cuda = cuda_module.get()
        self.cuda.call("cudaFree", 0)  # makes the CUDA context, which is no part of the engines' memory
        self._green = None if axes.sm_count is None else green_context.get_green_context(self.cuda, axes.sm_count)
        free, self._device = self.cuda.free_memory(), self.cuda.device()
        self._sm_count: int = self._device["sm_count"] if self._green is None else self._green.sm_count
        self.resources = ResourceStack(self.cuda)
        self.engines: list[Engine | None] = []
        self.streams: list[PipelineStream] = []
        self.engine_facts: JsonDict = {}
        self.realised: JsonDict = {}
        try:
            if self._green is not None:
                self._green.enter()
            for plan, part in zip(plans, parts, strict=True):
                self.engines.append(None if plan is None else self._engine(library, plan, part))
            shared = [self._handles(part.stage.streams or 1) for part in parts] if variant.pipeline.overlap else None
            for number in range(axes.streams):
                main = self._handle()
                own = [main] * len(parts) if shared is None else [each[number % len(each)] for each in shared]
                self.streams.append(PipelineStream(self, parts, variant, externals, [main, *own], number))
                if number == 0:
                    self.engine_facts["first_inference_s"] = watch.seconds()
            for engine in self.engines:
                if engine is not None:
                    engine.save_runtime_cache()
            self.engine_facts["device_memory_bytes"] = max(free - self.cuda.free_memory(), 0)
            weights = [engine.facts()["weights_bytes"] for engine in self.engines if engine is not None]
            self.engine_facts["weights_bytes"] = None if None in weights else sum(weights)
            self.realised = self._realised(parts, variant)
        except BaseException:
            with contextlib.suppress(SessionError):  # what went wrong first is what must be told
                self.close()
            raise

    def _engine(self, library: Library, plan: bytes, part: PipelinePart) -> Engine:
        kernels = None if part.engine is None else runtime_cache.path(part.engine, self._sm_count)
        try:
            engine = Engine(library, plan, kernels=kernels)
        except SessionError as error:
            raise SessionError(f"stage {part.stage.name}: {error}") from error
        if part.variant.session.weight_streaming_budget_mib is not None:
            engine.stream_weights(part.variant.session.weight_streaming_budget_mib)
        return engine

    def _handle(self) -> Handle:
        handle = self.cuda.stream() if self._green is None else self._green.stream()
        return self.resources.push(handle, "cudaStreamDestroy")

    def _handles(self, count: int) -> list[Handle]:
        return [self._handle() for _ in range(count)]

    def _realised(self, parts: Sequence[PipelinePart], variant: Variant) -> JsonDict:
        axes = variant.session
        under_mps = sm_probe.under_mps(self.cuda)
        mains = [stream.main for stream in self.streams]
        common = {
            "contexts": len(self.streams),
            "sm_count": self._sm_count,
            "sm_reached": sm_probe.count_reached_sms(self.cuda, mains, self._sm_count, graph=False),
            "sm_total": sm_probe.whole_gpu_sm_count() if under_mps else self._device["sm_count"],
            "under_mps": under_mps,
            "build_sm_count": None,
            "clocks_mhz": None,
            "device": self._device,
            "transfers": axes.transfers is not False,
            "wait": axes.wait or WAITS[0],
            "driven_by": "a thread a stream",
        }
        stages = {
            part.stage.name: {
                **common,
                "cuda_graph": part.variant.session.cuda_graph,
                **engine.settings,
                **{key: part.info[key] for key in ("precision", "evidence", "tf32")},
                "build_sm_count": part.info.get("build_sm_count"),
                "notes": [],
            }
            for part, engine in zip(parts, self.engines, strict=True)
            if engine is not None
        }
        counts: dict[str, int] = {}
        for name, layers in itertools.chain.from_iterable(
            (facts["precision"] or {}).items() for facts in stages.values()
        ):
            counts[name] = counts.get(name, 0) + layers
        return {**common, "cuda_graph": axes.cuda_graph, "precision": counts, "stages": stages, "notes": []}

    def prepare(self, sizes: Sequence[int]) -> None:
        """Do nothing: only whole batches run."""

    def start_profiler(self) -> None:
        """Tell an attached profiler to record from here."""
        self.cuda.start_profiler()

    def stop_profiler(self) -> None:
        """Wait for the GPU, then tell an attached profiler to stop."""
        self.cuda.stop_profiler()

    def close(self) -> None:
        """Release contexts, engines, memory, events and streams; a second call does nothing."""
        for stream in self.streams:
            stream.close()
        self.streams = []
        self.engines = []
        gc.collect()
        self.resources.close()
        if self._green is not None:
            self._green.leave()


def _address(array: np.ndarray) -> int:
    return int(array.ctypes.data)


def _text(shape: tuple[Any, ...]) -> str:
    return "x".join(map(str, shape)) or "a scalar"


def _check_same(link: Link, tensor: Tensor, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Refuse an output whose tensor another stage writes in another shape or type.

    Raises:
        SessionError: it differs.
    """
    if (tensor.shape, tensor.dtype) != (shape, dtype):
        raise SessionError(
            f"output {link.port} is {dtype} of {_text(shape)}, and tensor {link.tensor} is {tensor.dtype} of "
            f"{_text(tensor.shape)}; give the output a name of its own"
        )


def _checked(cuda: Cuda, answer: tuple[Any, ...]) -> None:
    if answer[0] != cuda.rt.cudaError_t.cudaSuccess:
        cuda.fail("enqueue", answer[0])
