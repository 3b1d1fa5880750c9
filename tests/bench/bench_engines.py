"""The engines of the bench, from 5 us to some ms of GPU time, built and loaded by the product's own backend."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from c_loop import BenchError
from onnx import TensorProto, helper, numpy_helper

from sweep import models
from sweep.backends import registry
from sweep.backends.tensorrt import library
from sweep.runner.worker import artifacts
from sweep.spec import EngineAxes, ModelRef, OnnxAxes, Precision, SessionAxes, Variant
from sweep.storage.cache import Cache

_OPSET = 20
_IR_VERSION = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """One engine.

    Attributes:
        name: what the table shows.
        about_us: GPU time that it was made for; the table shows the measured one.
        model: a network of the zoo; None for a perceptron written here.
        layers: of the perceptron.
        batch: samples an inference.
    """

    name: str
    about_us: float
    model: str | None = None
    layers: int = 0
    batch: int = 1


SPECS = {
    spec.name: spec
    for spec in (
        Spec(name="mlp1", about_us=5, layers=1, batch=8),
        Spec(name="mlp4", about_us=20, layers=4, batch=8),
        Spec(name="mlp350", about_us=350, layers=10, batch=8192),
        Spec(name="mlp1500", about_us=1500, layers=44, batch=8192),
        Spec(name="resnet50_b1", about_us=400, model="resnet50", batch=1),
        Spec(name="resnet50_b32", about_us=1500, model="resnet50", batch=32),
        Spec(name="resnet50_b128", about_us=6000, model="resnet50", batch=128),
    )
}


def perceptron(layers: int, width: int, batch: int) -> onnx.ModelProto:
    """``layers`` fully connected layers with ReLU between them: x [batch,width] -> y [batch,width], float32."""
    rng = np.random.default_rng(layers)
    nodes, weights, tensor = [], [], "x"
    for number in range(layers):
        last = number == layers - 1
        scale = np.float32((2 / width) ** 0.5)
        values = rng.standard_normal((width, width), dtype=np.float32) * scale
        weights += [
            numpy_helper.from_array(values, f"w{number}"),
            numpy_helper.from_array(np.zeros(width, np.float32), f"b{number}"),
        ]
        out = "y" if last else f"sum{number}"
        nodes.append(helper.make_node("Gemm", [tensor, f"w{number}", f"b{number}"], [out], name=f"gemm{number}"))
        if not last:
            tensor = f"relu{number}"
            nodes.append(helper.make_node("Relu", [out], [tensor], name=tensor))
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, width])] for name in "xy"]
    graph = helper.make_graph(nodes, "perceptron", *ends, initializer=weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)


def pick_backend():
    """The backend that SWEEP_GPU_BACKEND names, or the first that can run here.

    Raises:
        BenchError: none can; the reasons.
    """
    names = [os.environ["SWEEP_GPU_BACKEND"]] if "SWEEP_GPU_BACKEND" in os.environ else list(library.NAMES)
    found = {name: registry.get(name) for name in names}
    reasons = {name: backend.missing() for name, backend in found.items()}
    for name, reason in reasons.items():
        if reason is None:
            return found[name]
    raise BenchError("; ".join(f"{name}: {reason}" for name, reason in reasons.items()))


class Rig:
    """Builds and loads what the bench drives.

    Args:
        backend: the product's backend.
        folder: where engines go.
        width: of the perceptrons.
    """

    def __init__(self, backend, folder: Path, width: int = 1024) -> None:
        self._backend = backend
        self._folder = folder
        self._cache = Cache(folder / "cache")
        self._width = width

    def facts(self) -> dict[str, object]:
        """Library, GPU and driver."""
        return self._backend.facts()

    def session(self, spec: Spec, *, streams: int, graph: bool = True, wait: str | None = None):
        """A session that times compute alone; the engine is built the first time that it is asked for."""
        axes = SessionAxes(streams=streams, cuda_graph=graph, transfers=False, wait=wait)
        variant = self._variant(spec, axes)
        typed = artifacts.make_onnx(variant, self._cache).typed
        entry = artifacts.build_engine(variant, self._backend, typed, self._cache)
        # the typed file's own inputs: without keep_io they are float16
        given = variant.onnx.model if spec.model else ModelRef(name=spec.name, path=str(typed))
        feeds = models.draw(models.signature(given), spec.batch, 0)
        return self._backend.load(entry.path, entry.info, variant, feeds)

    def _variant(self, spec: Spec, axes: SessionAxes) -> Variant:
        model = self._model(spec)
        # without keep_io the perceptron is its products alone, with no casts around them
        precision = Precision(name="fp16", dtype="fp16", keep_io=spec.model is not None)
        engine = EngineAxes(batch=spec.batch)
        return Variant(
            backend=self._backend.name, onnx=OnnxAxes(model=model, precision=precision), engine=engine, session=axes
        )

    def _model(self, spec: Spec) -> ModelRef:
        if spec.model:
            return ModelRef(name=spec.model, revision=models.zoo.entry(spec.model).revision)
        path = self._folder / f"{spec.name}.onnx"
        if not path.exists():
            onnx.save(perceptron(spec.layers, self._width, spec.batch), path)
        return ModelRef(name=spec.name, path=str(path), digest=models.file_digest(path))
