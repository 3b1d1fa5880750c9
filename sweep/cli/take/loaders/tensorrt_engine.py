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
        self._device: dict[str, tuple[int, int]] = {}  # address and bytes of each tensor
        names = [engine.get_tensor_name(number) for number in range(engine.num_io_tensors)]
        self._types = {name: np.dtype(trt.nptype(engine.get_tensor_dtype(name))) for name in names}
        is_input = {name: engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT for name in names}
        self._outputs = [name for name in names if not is_input[name]]
        self.batches: tuple[int, float] | None = None
        self.inputs = {name: (self._types[name], self._shape(name)) for name in names if is_input[name]}

    def _shape(self, name: str) -> list[int | None]:
        """Return the shape of an input: None for a range of batches, and the optimum of any other size."""
        least, best, most = (tuple(shape) for shape in self._engine.get_tensor_profile_shape(name, 0))
        sizes: list[int | None] = list(best)
        if sizes and least[0] != most[0]:
            sizes[0], self.batches = None, (least[0], most[0])
        return sizes

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
            if not context.set_input_shape(name, value.shape):
                raise ValueError(f"the engine does not take {name} of shape {list(value.shape)}")
            address = self._address(name, value.nbytes)
            context.set_tensor_address(name, address)
            upload = cudart.cudaMemcpyKind.cudaMemcpyHostToDevice
            call("cudaMemcpyAsync", address, value.ctypes.data, value.nbytes, upload, stream)
        outputs = {name: np.empty(tuple(context.get_tensor_shape(name)), self._types[name]) for name in self._outputs}
        for name, value in outputs.items():
            context.set_tensor_address(name, self._address(name, value.nbytes))
        if not context.execute_async_v3(int(stream)):
            raise RuntimeError(f"{LIBRARY} did not run the inference; its reason stands above")
        for name, value in outputs.items():
            download = cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost
            call("cudaMemcpyAsync", value.ctypes.data, self._device[name][0], value.nbytes, download, stream)
        call("cudaStreamSynchronize", stream)
        return outputs


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
