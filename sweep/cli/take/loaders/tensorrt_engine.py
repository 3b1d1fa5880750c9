"""Load the engine in this folder with TensorRT or TensorRT-RTX and cuda-python (12.6 or later).

One execution context, one CUDA stream, plain copies: what a server adds, such as page-locked memory, CUDA graphs and
several streams, stands in README.md where the figures were measured with it.

This file is in the public domain (CC0 1.0, https://creativecommons.org/publicdomain/zero/1.0/): use it as you like.
"""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from cuda.bindings import runtime as cudart

MIB = 1 << 20
LIBRARY = json.loads((Path(__file__).resolve().parent / "manifest.json").read_text())["engine"]["library"]
trt = importlib.import_module(LIBRARY)


def call(name: str, *arguments: Any) -> Any:
    """Call a function of CUDA's runtime and return its value; a RuntimeError says why it failed."""
    error, *values = getattr(cudart, name)(*arguments)
    if error != cudart.cudaError_t.cudaSuccess:
        raise RuntimeError(f"{name}: {cudart.cudaGetErrorString(error)[1].decode()}")
    return values[0] if len(values) == 1 else values


def facts() -> dict[str, str | None]:
    """Return what an engine is bound to, as this machine has it."""
    properties = call("cudaGetDeviceProperties", call("cudaGetDevice"))
    name = properties.name
    try:
        text = Path("/proc/driver/nvidia/version").read_text()
    except OSError:
        text = ""
    driver = re.search(r"NVRM version:.*?\s(\d+\.\d+(?:\.\d+)?)\s", text)
    return {
        "tensorrt": f"{LIBRARY} {trt.__version__}",
        "gpu": (name.decode() if isinstance(name, bytes) else str(name)).rstrip("\x00"),
        "compute_capability": f"{properties.major}.{properties.minor}",
        "driver": driver[1] if driver else None,
    }


class Engine:
    """Hold an engine with one execution context.

    Args:
        folder: the folder that was taken.
        manifest: content of its manifest.json.

    Attributes:
        inputs: (dtype, shape) of each input, by name; None stands for the batch.
        batches: fewest and most samples of an inference; None where only the batch that was measured runs.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        load = manifest["engine"]["load"]
        self._logger = trt.Logger(trt.Logger.ERROR)
        if hasattr(trt, "init_libnvinfer_plugins"):
            trt.init_libnvinfer_plugins(self._logger, "")
        for name in load["plugins"]:
            trt.get_plugin_registry().load_library(str(folder / name))
        self._runtime = trt.Runtime(self._logger)
        if load["version_compatible"] and hasattr(self._runtime, "engine_host_code_allowed"):
            self._runtime.engine_host_code_allowed = True  # the engine brings code of its own runtime
        engine = self._runtime.deserialize_cuda_engine((folder / manifest["engine"]["file"]).read_bytes())
        if engine is None:
            raise RuntimeError(f"{LIBRARY} {trt.__version__} does not load this engine; its reason stands above")
        if load["weight_streaming_budget_mib"] is not None:
            most = int(engine.streamable_weights_size)
            engine.weight_streaming_budget_v2 = min(load["weight_streaming_budget_mib"] * MIB, most)
        self._engine, self._context = engine, new_context(engine)
        self._stream = call("cudaStreamCreateWithFlags", cudart.cudaStreamNonBlocking)
        self._profile = 0
        self._device: dict[str, tuple[int, int]] = {}  # address and bytes of each tensor
        names = [engine.get_tensor_name(number) for number in range(engine.num_io_tensors)]
        self._layouts = {name: layout(engine, name) for name in names}
        self._types = {name: np.dtype(trt.nptype(engine.get_tensor_dtype(name))) for name in names}
        is_input = {name: engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT for name in names}
        self._outputs = [name for name in names if not is_input[name]]
        self.batches: tuple[int, float] | None = None
        self.inputs = {name: (self._types[name], self._shape(name)) for name in names if is_input[name]}

    def _shape(self, name: str) -> list[int | None]:
        """Return the shape of an input in the last profile: None for a range of batches, else the optimum of a size."""
        last = self._engine.num_optimization_profiles - 1
        least, best, most = (tuple(shape) for shape in self._engine.get_tensor_profile_shape(name, last))
        sizes: list[int | None] = list(best)
        if sizes and least[0] != most[0]:
            sizes[0], self.batches = None, (least[0], most[0])
        return sizes

    def _switch_profile(self, arrays: dict[str, Any]) -> None:
        """Let the context have the first profile that takes these shapes, unless its own does, or none."""
        takes = [
            number
            for number in range(self._engine.num_optimization_profiles)
            if all(self._takes(number, name, value.shape) for name, value in arrays.items())
        ]
        if takes and self._profile not in takes:
            if not self._context.set_optimization_profile_async(takes[0], int(self._stream)):
                raise RuntimeError(f"{LIBRARY} did not take profile {takes[0]}; its reason stands above")
            self._profile = takes[0]

    def _takes(self, profile: int, name: str, shape: tuple[int, ...]) -> bool:
        least, _, most = (tuple(limit) for limit in self._engine.get_tensor_profile_shape(name, profile))
        return len(shape) == len(least) and all(
            low <= size <= high for low, size, high in zip(least, shape, most, strict=True)
        )

    def _address(self, name: str, size: int) -> int:
        """Return device memory of at least this many bytes for a tensor, which stays until the process ends."""
        address, room = self._device.get(name, (0, -1))
        if room < size:
            if address:
                call("cudaFree", address)
            address = int(call("cudaMalloc", max(size, 1)))
            self._device[name] = (address, size)
        return address

    def infer(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Return the outputs of one inference, by name."""
        context, stream = self._context, self._stream
        arrays = {name: np.ascontiguousarray(value) for name, value in inputs.items()}
        for name, value in arrays.items():
            if value.dtype != self._types[name]:
                raise ValueError(f"input {name} is {self._types[name]} in the engine, {value.dtype} was given")
        self._switch_profile(arrays)
        for name, value in arrays.items():
            if not context.set_input_shape(name, value.shape):
                raise ValueError(f"the engine does not take {name} of shape {list(value.shape)}")
        arrays = {name: packed(value, self._layouts[name]) for name, value in arrays.items()}
        for name, value in arrays.items():
            address = self._address(name, value.nbytes)
            context.set_tensor_address(name, address)
            upload = cudart.cudaMemcpyKind.cudaMemcpyHostToDevice
            call("cudaMemcpyAsync", address, value.ctypes.data, value.nbytes, upload, stream)
        shapes = {name: tuple(context.get_tensor_shape(name)) for name in self._outputs}
        outputs = {name: packed(np.empty(shapes[name], self._types[name]), self._layouts[name]) for name in shapes}
        for name, value in outputs.items():
            context.set_tensor_address(name, self._address(name, value.nbytes))
        if not context.execute_async_v3(int(stream)):
            raise RuntimeError(f"{LIBRARY} did not run the inference; its reason stands above")
        for name, value in outputs.items():
            download = cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost
            call("cudaMemcpyAsync", value.ctypes.data, self._device[name][0], value.nbytes, download, stream)
        call("cudaStreamSynchronize", stream)
        return {name: unpacked(value, self._layouts[name], shapes[name]) for name, value in outputs.items()}


def layout(engine: Any, name: str) -> tuple[bool, int] | None:
    """Return how a tensor lies in memory: (channels last, channels of a vector); None for one after another."""
    match = re.fullmatch(r"(CHW|HWC)(\d*)", engine.get_tensor_format(name).name)
    return (match[1] == "HWC", int(match[2] or 1)) if match else None


def packed(value: Any, how: tuple[bool, int] | None) -> Any:
    """Return a tensor of samples, channels, height and width as it lies in memory."""
    if how is None:
        return value
    (samples, channels, height, width), (channels_last, vector) = value.shape, how
    groups = -(-channels // vector)
    padded = np.zeros((samples, groups * vector, height, width), value.dtype)
    padded[:, :channels] = value
    if channels_last:
        return np.ascontiguousarray(padded.transpose(0, 2, 3, 1))
    return np.ascontiguousarray(padded.reshape(samples, groups, vector, height, width).transpose(0, 1, 3, 4, 2))


def unpacked(value: Any, how: tuple[bool, int] | None, shape: tuple[int, ...]) -> Any:
    """Return what lies in memory as a tensor of this shape."""
    if how is None:
        return value
    if how[0]:
        channels_first = value.transpose(0, 3, 1, 2)
    else:
        samples, groups, height, width, vector = value.shape
        channels_first = value.transpose(0, 1, 4, 2, 3).reshape(samples, groups * vector, height, width)
    return np.ascontiguousarray(channels_first[:, : shape[1]])


def new_context(engine: Any) -> Any:
    """Return an execution context; TensorRT-RTX compiles its kernels here, before the first inference."""
    context = None
    strategies = getattr(trt, "DynamicShapesKernelSpecializationStrategy", None)
    if strategies is None:
        context = engine.create_execution_context()
    else:
        config = engine.create_runtime_config()
        config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
        context = engine.create_execution_context(config)
    if context is None:
        raise RuntimeError(f"{LIBRARY} made no execution context; its reason stands above")
    return context
