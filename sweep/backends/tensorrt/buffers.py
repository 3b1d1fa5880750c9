"""Allocate device and page-locked host memory for one execution context and bind it to the tensors."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from sweep.backends.tensorrt import cuda as cuda_module
from sweep.backends.tensorrt import io_layout
from sweep.errors import SessionError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import tensorrt

    from sweep.backends.tensorrt.cuda import Cuda, Handle, ResourceStack
    from sweep.backends.tensorrt.io_layout import IoLayout
    from sweep.backends.tensorrt.library import Library
    from sweep.backends.tensorrt.stream import Copies, Step

_POISON = 0xFF  # an all-ones float is a NaN


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Buffer:
    """Hold the memory of one tensor of one context.

    Attributes:
        name: as in the graph.
        device: address in device memory.
        host: address in page-locked host memory.
        array: that host memory, with the dtype of the tensor and the shape of its memory.
        shape: shape of the tensor.
        layout: how the tensor lies in the memory; None where its elements lie one after another.
    """

    name: str
    device: int
    host: int
    array: np.ndarray
    shape: tuple[int, ...]
    layout: IoLayout | None = None

    def pack(self, value: np.ndarray) -> np.ndarray:
        """Return a value of the tensor as it lies in memory."""
        return value if self.layout is None else self.layout.pack(value)

    def value(self) -> np.ndarray:
        """Return the tensor in an array of its own."""
        if self.layout is None:
            return self.array.copy()
        return np.ascontiguousarray(self.layout.unpack(self.array, self.shape))

    def nbytes(self, shape: tuple[int, ...]) -> int:
        """Return the size of the memory of the tensor at another shape, in bytes."""
        memory = shape if self.layout is None else self.layout.packed_shape(shape)
        return int(np.prod(memory, dtype=np.int64)) * self.array.itemsize


class Buffers:
    """Allocate and bind the tensors of one context. The inputs are on the device once this returns.

    Args:
        library: the library of ``context``.
        cuda: allocates and copies.
        resources: releases the memory.
        context: gets the shapes of ``feeds`` and the addresses of all tensors.
        feeds: value of each input.
        stream: CUDA stream on which the copies run.
        profile: number of the optimization profile that the context has.
        shared: device address of each tensor that lies in memory of others; None for none.

    Raises:
        SessionError: an input does not fit the engine, or CUDA has no memory left.
        UnsupportedError: an output's shape depends on the data, or its type has no numpy counterpart.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - what buffers are made of, of which nothing follows from another
        self,
        library: Library,
        cuda: Cuda,
        resources: ResourceStack,
        context: tensorrt.IExecutionContext,
        feeds: Mapping[str, np.ndarray],
        stream: Handle,
        profile: int = 0,
        shared: Mapping[str, int] | None = None,
    ) -> None:
        self._cuda, self._resources, self._stream = cuda, resources, stream
        self._context: Any = context
        self._shared = shared or {}
        engine = context.engine
        names = [engine.get_tensor_name(number) for number in range(engine.num_io_tensors)]
        kind = library.trt.TensorIOMode.INPUT
        inputs = [name for name in names if engine.get_tensor_mode(name) == kind]
        if set(inputs) != set(feeds):
            raise SessionError(f"the engine's inputs are {', '.join(inputs)}; values were given for {', '.join(feeds)}")
        types = {name: _numpy_type(library, name, engine.get_tensor_dtype(name)) for name in names}
        for name in inputs:
            _bind_shape(context, name, feeds[name], types[name])
        self.inputs = [self._buffer(context, name, feeds[name].shape, types[name]) for name in inputs]
        self.outputs = [
            self._buffer(context, name, _output_shape(context, name), types[name])
            for name in names
            if name not in feeds
        ]
        self.feed(feeds)
        self._full = {buffer.name: buffer.shape for buffer in (*self.inputs, *self.outputs)}
        self._batch_ranges = batch_ranges(engine, inputs, profile)
        self.samples: int | None = None

    @property
    def takes_fewer(self) -> bool:
        """Return whether the engine accepts fewer samples than the inputs have."""
        return any(least < self._full[name][0] for name, (least, _) in self._batch_ranges.items())

    @property
    def fewest(self) -> int:
        """Return the fewest samples that the engine accepts."""
        return max((least for least, _ in self._batch_ranges.values()), default=1)

    def resize(self, samples: int | None) -> None:
        """Set the context's input shapes to the first ``samples`` samples; None sets the full shapes.

        Raises:
            SessionError: the engine's profile does not accept that many samples.
        """
        for buffer in self.inputs:
            full = self._full[buffer.name]
            if samples is not None and (buffer.name in self._batch_ranges) and not 0 < samples <= full[0]:
                raise SessionError(f"input {buffer.name} holds {full[0]} samples; {samples} were asked for")
            shape = full if samples is None or buffer.name not in self._batch_ranges else (samples, *full[1:])
            if not self._context.set_input_shape(buffer.name, shape):
                raise SessionError(f"the engine does not take {buffer.name} of shape {shape}")
        self.samples = samples

    def bind(self) -> None:
        """Set the addresses of all tensors, where those of other shapes were set in the same context.

        Raises:
            SessionError: the library does not take one.
        """
        for buffer in (*self.inputs, *self.outputs):
            if not self._context.set_tensor_address(buffer.name, buffer.device):
                raise SessionError(f"tensor {buffer.name} could not be bound to device memory")

    def _buffer(
        self, context: tensorrt.IExecutionContext, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> Buffer:
        layout = _layout(context.engine, name, shape)
        memory = shape if layout is None else layout.packed_shape(shape)
        size = int(np.prod(memory, dtype=np.int64)) * dtype.itemsize
        device = self._shared.get(name)
        if device is None:
            device = self._resources.push(self._cuda.malloc(size), "cudaFree")
            self._resources.device_bytes += size
        host = self._resources.push(self._cuda.pinned(size), "cudaFreeHost")
        if not context.set_tensor_address(name, device):
            raise SessionError(f"tensor {name} could not be bound to device memory")
        array = cuda_module.view(host, memory, dtype)
        return Buffer(name=name, device=device, host=host, array=array, shape=shape, layout=layout)

    def _copy(self, buffer: Buffer, *, upload: bool) -> None:
        ends = (buffer.device, buffer.host) if upload else (buffer.host, buffer.device)
        kind = "HostToDevice" if upload else "DeviceToHost"
        self._cuda.copy(*ends, buffer.array.nbytes, kind, self._stream)

    def copies(self) -> Copies:
        """Return the calls that copy the inputs to the device and the outputs back, for a stream to bind.

        Each call copies as many bytes as the shapes of the last ``resize`` have.
        """
        copy = self._cuda.rt.cudaMemcpyAsync
        up, down = self._cuda.kind("HostToDevice"), self._cuda.kind("DeviceToHost")
        return (
            [
                cuda_module.Copy(copy, item.device, item.host, self._nbytes(item), up, self._stream)
                for item in self.inputs
            ],
            [
                cuda_module.Copy(copy, item.host, item.device, self._nbytes(item), down, self._stream)
                for item in self.outputs
            ],
        )

    def turns(self, batches: Sequence[Mapping[str, np.ndarray]]) -> Copies:
        """Return the calls of ``copies`` at the full shapes, of which those to the device take these inputs in turn.

        Each input of each batch gets page-locked memory of its own, which the session keeps until it is closed.
        """
        copy, up = self._cuda.rt.cudaMemcpyAsync, self._cuda.kind("HostToDevice")
        _, downloads = self.copies()
        uploads = []
        for buffer in self.inputs:
            size, calls = buffer.array.nbytes, []
            for feeds in batches:
                host = self._resources.push(self._cuda.pinned(size), "cudaFreeHost")
                memory = cuda_module.view(host, buffer.array.shape, buffer.array.dtype)
                np.copyto(memory, buffer.pack(feeds[buffer.name]))
                calls.append(partial(copy, buffer.device, host, size, up, self._stream))
            uploads.append(_in_turn(calls))
        return uploads, downloads

    def _nbytes(self, buffer: Buffer) -> int:
        return buffer.nbytes(tuple(self._context.get_tensor_shape(buffer.name)))

    def values(self) -> dict[str, np.ndarray]:
        """Return a copy of the value of each input at the full shapes."""
        return {buffer.name: buffer.array.copy() for buffer in self.inputs}

    def feed(self, feeds: Mapping[str, np.ndarray]) -> None:
        """Copy values of the bound shapes into the inputs, on the host and on the device."""
        for buffer in self.inputs:
            np.copyto(buffer.array, buffer.pack(feeds[buffer.name]))
            self._copy(buffer, upload=True)
        self.synchronise()

    def fetch(self) -> dict[str, np.ndarray]:
        """Copy the outputs from the device and return them, by name, in arrays of their own."""
        for buffer in self.outputs:
            self._copy(buffer, upload=False)
        self.synchronise()
        return {buffer.name: buffer.value() for buffer in self.outputs}

    def poison(self) -> None:
        """Overwrite the outputs, on the device and on the host, with 0xFF: one that is not recomputed then shows."""
        for buffer in self.outputs:
            self._cuda.call("cudaMemsetAsync", buffer.device, _POISON, buffer.array.nbytes, self._stream)
            cuda_module.fill(buffer.host, _POISON, buffer.array.nbytes)
        self.synchronise()

    def synchronise(self) -> None:
        """Block until all work enqueued on the stream is complete."""
        self._cuda.call("cudaStreamSynchronize", self._stream)

    def close(self) -> None:
        """Drop the context, and the views of the host memory before it is released."""
        self._context = None
        self.inputs = []
        self.outputs = []


def _in_turn(calls: Sequence[Step]) -> Step:
    """Combine the calls into one that makes the next of them each time, and the first after the last."""
    turn = itertools.cycle(calls)

    def call() -> tuple[Any, ...]:
        return next(turn)()

    return call


def batch_ranges(engine: tensorrt.ICudaEngine, inputs: Sequence[str], profile: int = 0) -> dict[str, tuple[int, int]]:
    """Return the fewest and most samples of each input whose first dimension is a range in the engine's profile.

    Empty if any other dimension is a range: the first samples would then not be contiguous.

    Source:
        *Working with Dynamic Shapes* of the TensorRT developer guide.
    """
    ranges = {}
    for name in inputs:
        least, _, most = (tuple(shape) for shape in engine.get_tensor_profile_shape(name, profile))
        if least[1:] != most[1:]:
            return {}
        if least != most:
            ranges[name] = (least[0], most[0])
    return ranges


def _layout(engine: tensorrt.ICudaEngine, name: str, shape: tuple[int, ...]) -> IoLayout | None:
    """Return how a tensor lies in memory.

    Raises:
        UnsupportedError: in a way that is not known here.
    """
    tensor_format = engine.get_tensor_format(name)
    try:
        layout = io_layout.parse(tensor_format.name)
    except ValueError as error:
        raise UnsupportedError(f"tensor {name} lies in memory as {tensor_format.name}, which is not known") from error
    if layout is not None and len(shape) != io_layout.DIMENSIONS:
        raise UnsupportedError(f"tensor {name} lies as {tensor_format.name} and has {len(shape)} dimensions, not four")
    return layout


def _numpy_type(library: Library, name: str, dtype: Any) -> np.dtype[Any]:
    try:
        numpy_type: np.dtype[Any] = np.dtype(library.trt.nptype(dtype))
    except TypeError as error:
        raise UnsupportedError(f"tensor {name} is {dtype.name}, which numpy does not have; keep_io=true") from error
    return numpy_type


def _bind_shape(context: tensorrt.IExecutionContext, name: str, value: np.ndarray, dtype: np.dtype[Any]) -> None:
    halved = (value.dtype.name, dtype.name) == ("float32", "float16")  # without keep_io, samples are copied as float16
    if value.dtype != dtype and not halved:
        raise SessionError(f"input {name} is {dtype} in the engine, {value.dtype} was given")
    if not context.set_input_shape(name, value.shape):
        raise SessionError(f"the engine does not take {name} of shape {value.shape}")


def _output_shape(context: tensorrt.IExecutionContext, name: str) -> tuple[int, ...]:
    shape = tuple(context.get_tensor_shape(name))
    if any(size < 0 for size in shape):
        raise UnsupportedError(f"the shape of output {name} depends on the data ({shape})")
    return shape
