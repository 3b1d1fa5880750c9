"""Load the engine in this folder with onnxruntime, on one thread or as many as it was measured with.

This file is in the public domain (CC0 1.0, https://creativecommons.org/publicdomain/zero/1.0/): use it as you like.
"""

from __future__ import annotations

import math
import platform
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

TYPES = {name: name for name in ("float16", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")}
TYPES |= {"float": "float32", "double": "float64", "bool": "bool"}


def facts() -> dict[str, str | None]:
    """Return what an engine of onnxruntime is bound to, as this machine has it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {"onnxruntime": ort.__version__, "cpu": names[0] if names else platform.processor() or None}


class Engine:
    """Hold a session.

    Args:
        folder: the folder that was taken.
        manifest: content of its manifest.json.

    Attributes:
        inputs: (dtype, shape) of each input, by name; None stands for the batch.
        batches: fewest and most samples of an inference; None where only the batch that was measured runs.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        load = manifest["engine"]["load"]
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = load["intra_op_threads"]
        options.inter_op_num_threads = 1
        disabled = None
        if load["optimise"]:  # this graph could not be saved in the form that ran, so each load optimises it again
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
            for name, size in load["dims"].items():
                options.add_free_dimension_override_by_name(name, size)
            if load["fp8"]:
                options.add_session_config_entry("session.disable_quant_qdq", "1")
                disabled = ["ReluQuantRewrite"]
        else:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        path = str(folder / manifest["engine"]["file"])
        self._session = ort.InferenceSession(
            path, options, providers=["CPUExecutionProvider"], disabled_optimizers=disabled
        )
        self.inputs: dict[str, tuple[Any, list[int | None]]] = {}
        for item in self._session.get_inputs():
            dtype = TYPES.get(item.type.removeprefix("tensor(").removesuffix(")"))
            if dtype is None:
                raise ValueError(f"input {item.name} is {item.type}, for which this example has no numpy type")
            shape = [size if isinstance(size, int) else None for size in item.shape]
            self.inputs[item.name] = (np.dtype(dtype), shape)
        is_open = any(None in shape for _, shape in self.inputs.values())
        self.batches: tuple[int, float] | None = (1, math.inf) if is_open else None

    def infer(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Return the outputs of one inference, by name; those that are no arrays are left out."""
        values = self._session.run(None, inputs)
        names = [item.name for item in self._session.get_outputs()]
        return {
            name: value
            for name, value in zip(names, values, strict=True)
            if isinstance(value, np.ndarray) and value.dtype.kind != "O"
        }
