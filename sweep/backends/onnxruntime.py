"""The embedded default: onnxruntime on the CPU, real inference on any machine.

An engine is the optimised graph that onnxruntime saves, built once per typed ONNX and batch. Streams are
N sessions, each run from its own thread with a fixed number of intra-op threads, its inputs and outputs bound
to buffers made before the clock starts. A symbolic batch stays symbolic in the saved graph (it costs no speed), so that
a batch gathered by the server runs at its true size. CPU speed of a precision says nothing about TensorRT.
"""

from __future__ import annotations

import importlib.metadata
import os
from collections import Counter
from typing import TYPE_CHECKING, Any

from sweep.backends import partial
from sweep.clock import RealClock
from sweep.errors import BuildError, SessionError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy as np

    from sweep.axes import JsonDict, Variant
    from sweep.backends.base import ShapesAt

_FILE = "optimised.onnx"
_WEIGHTS = "weights.bin"
_PROVIDERS = ["CPUExecutionProvider"]
_KERNELS = frozenset({"fp32", "fp16", "int8", "fp8"})  # types that its operators take, whatever they compute in
_EXTERNAL_ABOVE_BYTES = 1 << 30  # a protobuf ends at 2 GiB; larger weights go beside it, as external ones do
_COMPUTE = ("Conv", "MatMul", "Gemm", "Attention")  # op types of the layers that carry the arithmetic
_QUANTISED = ("int8", "fp8")
_UNSOUND = ["ReluQuantRewrite"]  # takes the lowest fp8 for the zero of a Relu: silently wrong outputs
_INTEGER = ("QLinear", "QGemm", "QAttention", "DynamicQuantize")
_QUIET = 3  # log errors only
_EMULATED = {
    "fp16": "holds fp16 weights and computes in fp32 (the accuracy is from a run that rounds every tensor to fp16)",
    "bf16": "runs a graph that rounds every tensor to bf16 and computes in fp32, for it has no bf16 products",
    "int8": "rounds to int8 at each Q/DQ pair and computes in fp32",
    "fp8": "rounds to fp8 at each Q/DQ pair and computes in fp32",
}


class OnnxRuntimeStream:
    """One session with its bound buffers. ``enqueue`` runs to completion, without the GIL.

    Args:
        session: onnxruntime's.
        feeds: value of each input at the full batch.
        parts: the same at each smaller batch, from 1 sample up; none where only the full batch runs.
    """

    max_depth = 1

    def __init__(
        self, session: Any, feeds: Mapping[str, np.ndarray], parts: Sequence[Mapping[str, np.ndarray]] = ()
    ) -> None:
        import onnxruntime as ort

        self.clock = RealClock()
        self._binding = session.io_binding()
        self._run = session.run_with_iobinding
        names = [output.name for output in session.get_outputs()]
        first = session.run(names, dict(feeds))
        for name, value in feeds.items():
            self._binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(value))
        self._outputs = {}
        for name, value in zip(names, first, strict=True):
            self._outputs[name] = ort.OrtValue.ortvalue_from_shape_and_type(list(value.shape), value.dtype)
            self._binding.bind_ortvalue_output(name, self._outputs[name])
        self._fed = (feeds, parts)  # the bindings point into these arrays
        self._parts = [self._binding, *(self._part(session, part) for part in parts)]
        self._run(self._binding)  # last, so that the buffers hold the whole batch

    def _part(self, session: Any, feeds: Mapping[str, np.ndarray]) -> Any:
        """A smaller batch, bound to the front of the full batch's output buffers; it has run once."""
        import onnxruntime as ort

        binding = session.io_binding()
        for name, value in feeds.items():
            binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(value))
        found = session.run(list(self._outputs), dict(feeds))
        for (name, whole), value in zip(self._outputs.items(), found, strict=True):
            if value.dtype != whole.numpy().dtype or value.nbytes > whole.numpy().nbytes:
                raise SessionError(f"output {name} of a smaller batch does not fit that of the full one")
            binding.bind_output(name, "cpu", 0, value.dtype, list(value.shape), whole.data_ptr())
        session.run_with_iobinding(binding)
        return binding

    def enqueue(self, samples: int | None = None) -> None:
        """Run one inference on the bound buffers.

        Args:
            samples: how many of them; None for the batch.
        """
        self._run(self._parts[samples or 0])

    def wait(self) -> None:
        """Nothing is in flight once ``enqueue`` has returned."""

    def outputs(self) -> dict[str, np.ndarray]:
        """Copies of the bound outputs."""
        return {name: value.numpy().copy() for name, value in self._outputs.items()}

    def infer(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs of one inference with other inputs, which stay bound."""
        import onnxruntime as ort

        self._fed = (feeds, self._fed[1])
        for name, value in feeds.items():
            self._binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(value))
        self._run(self._binding)
        return self.outputs()


class OnnxRuntimeSession:
    """N onnxruntime sessions of one optimised graph."""

    virtual = False

    def __init__(self, streams: Sequence[OnnxRuntimeStream], realised: JsonDict, *, partial_batches: bool) -> None:
        self.streams = streams
        self.partial_batches = partial_batches
        self.realised = realised
        self.engine_facts: JsonDict = {}

    def prepare(self, sizes: Sequence[int]) -> None:
        """Every size up to the batch is ready as it is."""

    def outputs(self) -> dict[str, np.ndarray]:
        """Outputs of the last inference on the first stream."""
        return self.outputs_of(0)

    def outputs_of(self, number: int) -> dict[str, np.ndarray]:
        """Outputs of the last inference on stream ``number``."""
        return self.streams[number].outputs()

    def infer(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs of one inference with other inputs, on the first stream."""
        return self.streams[0].infer(feeds)

    def close(self) -> None:
        """Let go of the sessions and their buffers."""
        self.streams = []


class OnnxRuntime:
    """The ``onnxruntime`` backend."""

    name = "onnxruntime"
    honours = frozenset({"batch", "streams", "clients", "intra_op_threads"})
    runs_models = True
    on_gpu = False

    def unsupported(self, variant: Variant) -> str | None:
        """A precision that a CPU has nothing like."""
        if variant.onnx.precision.dtype != "tf32":
            return None
        return (
            f"onnxruntime's CPU provider does not run precision={variant.onnx.precision.name}, which rounds inside the "
            "GPU's products; it runs fp32, and emulates fp16, bf16, int8, fp8 and their mixes"
        )

    def emulation(self, variant: Variant) -> str | None:
        """No bfloat16 kernels, and float16 ones that compute in float32 throughout."""
        types = _types(variant)
        if set(types) - _KERNELS:
            return "engine"
        return "outputs" if "fp16" in types else None

    def environment(self, variant: Variant) -> dict[str, str]:
        """It needs none."""
        del variant
        return {}

    def facts(self) -> JsonDict:
        """Version of onnxruntime and the provider that runs."""
        return {"onnxruntime": importlib.metadata.version("onnxruntime"), "provider": _PROVIDERS[0]}

    def build(self, onnx: Path, variant: Variant, shapes: ShapesAt, target: Path) -> JsonDict:
        """Optimise the graph for this CPU and save it, its shapes fixed but for a symbolic batch.

        Raises:
            BuildError: onnxruntime refused the graph; its own message is kept.
        """
        import onnxruntime as ort

        fp8 = variant.onnx.precision.dtype == "fp8"
        options = _options(ort, intra_op_threads=1, spinning=False)
        if fp8:  # it fuses int8 pairs soundly, and fp8 pairs into operators that have no fp8
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.optimized_model_filepath = str(target / _FILE)
        try:
            dims, external = _header(onnx, shapes(variant.engine.batch), variant.engine.batch)
            if external or onnx.stat().st_size > _EXTERNAL_ABOVE_BYTES:
                options.add_session_config_entry("session.optimized_model_external_initializers_file_name", _WEIGHTS)
            for name, size in dims.items():
                options.add_free_dimension_override_by_name(name, size)
            ort.InferenceSession(
                str(onnx), options, providers=_PROVIDERS, disabled_optimizers=_UNSOUND if fp8 else None
            )
        except Exception as error:
            raise BuildError(f"onnxruntime refused the graph: {_line(error)}") from error
        return _evidence(target / _FILE)

    def load(
        self, engine: Path, info: JsonDict, variant: Variant, feeds: Mapping[str, np.ndarray]
    ) -> OnnxRuntimeSession:
        """One session a stream; each has run twice before this returns, at every batch that it will be given.

        Raises:
            SessionError: onnxruntime could not load or run the graph; its own message is kept.
        """
        import onnxruntime as ort

        threads = variant.session.intra_op_threads or 1
        spinning = threads * variant.session.streams * variant.session.clients <= (os.cpu_count() or 1)
        options = _options(ort, intra_op_threads=threads, spinning=spinning)
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # it was optimised at build
        try:
            sessions = [
                ort.InferenceSession(str(engine / _FILE), options, providers=_PROVIDERS)
                for _ in range(variant.session.streams)
            ]
            parts = (
                [] if variant.load.batch_wait_ms is None else partial.feeds(sessions[0], feeds, variant.engine.batch)
            )
            streams = [OnnxRuntimeStream(session, feeds, parts) for session in sessions]
        except Exception as error:
            raise SessionError(f"onnxruntime could not run the graph: {_line(error)}") from error
        realised = {
            "precision": info["precision"],
            "cuda_graph": False,
            "contexts": len(streams),
            "sm_count": None,
            "clocks_mhz": None,
            "intra_op_threads": threads,
            "quantised_tensors": info["quantised_tensors"],
            "rounded_tensors": info["rounded_tensors"],
            "notes": _notes(variant, info),
        }
        return OnnxRuntimeSession(streams, realised, partial_batches=bool(parts))

    def mismatch(self, variant: Variant, realised: JsonDict) -> str | None:
        """Contexts, and the types that the optimised graph computes in, or rounds to where a type is emulated."""
        if realised["contexts"] != variant.session.streams:
            return f"asked for {variant.session.streams} streams, found {realised['contexts']} contexts"
        asked, ran = variant.onnx.precision.dtype, realised["precision"]
        if asked in _QUANTISED and not ran.get(asked) and not realised["quantised_tensors"]:
            return f"asked for {asked}, but the optimised graph neither computes in {asked} nor rounds to it: {ran}"
        if "bf16" in _types(variant) and not realised["rounded_tensors"]:
            return f"asked for bf16, but the optimised graph does not round to it: {ran}"
        if asked == "fp32" and set(ran) - {"fp32"}:
            return f"asked for fp32, but the optimised graph computes in {ran}"
        return None


def _options(ort: Any, *, intra_op_threads: int, spinning: bool) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = intra_op_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _QUIET
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spinning else "0")
    return options


def _types(variant: Variant) -> tuple[str, ...]:
    """The types that the graph is made of, the narrowest first."""
    precision = variant.onnx.precision
    return (precision.dtype,) if precision.rest is None else (precision.dtype, precision.rest)


def _notes(variant: Variant, info: JsonDict) -> list[str]:
    """What the emulation of each type means for the figures; nothing where the types are real."""
    emulated = [name for name in _types(variant) if name in _EMULATED and set(info["precision"]) != {name}]
    if not emulated:
        return []
    said = "; ".join(f"for {name} it {_EMULATED[name]}" for name in emulated)
    asked = variant.onnx.precision.name
    return [f"{asked} is emulated on onnxruntime's CPU provider: {said}. Its speed says nothing about TensorRT"]


def _line(error: Exception) -> str:
    """The library's message on one line."""
    return " ".join(str(error).split())


def _header(path: Path, shapes: Mapping[str, tuple[int, ...]], batch: int) -> tuple[dict[str, int], bool]:
    """Symbolic dimension -> size, from the concrete input shapes; and whether weights lie in other files.

    A symbol that stands first in an input and has the batch's size is the batch: it is left symbolic.
    """
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    dims = {
        dim.dim_param: size
        for value in graph.input
        if value.name in shapes
        for dim, size in zip(value.type.tensor_type.shape.dim, shapes[value.name], strict=True)
        if dim.dim_param
    }
    for value in graph.input:
        first = next((dim.dim_param for dim in value.type.tensor_type.shape.dim), "")
        if dims.get(first) == batch:
            del dims[first]
    return dims, any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in graph.initializer)


def _evidence(path: Path) -> JsonDict:
    """What the optimised graph computes in.

    Returns:
        {precision: {type: compute layers}, quantised_tensors: tensors that are dequantised, rounded_tensors: tensors
        that are cast to bfloat16}; compute layers are convolutions and matrix products.
    """
    import onnx

    names: dict[int, str] = {
        onnx.TensorProto.FLOAT: "fp32",
        onnx.TensorProto.FLOAT16: "fp16",
        onnx.TensorProto.DOUBLE: "fp64",
    }
    graph = onnx.load(path, load_external_data=False).graph
    types = {value.name: value.type.tensor_type.elem_type for value in graph.input}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    counts: Counter[str] = Counter()
    for node in _nodes(graph):
        to = next((item.i for item in node.attribute if item.name == "to"), None)
        floats = [types[name] for name in node.input if types.get(name) in names]
        types |= dict.fromkeys(node.output, to if to is not None else next(iter(floats), onnx.TensorProto.FLOAT))
        if any(word in node.op_type for word in _COMPUTE):
            integer = node.op_type.startswith(_INTEGER) or "Integer" in node.op_type
            counts["int8" if integer else names[next(iter(floats), onnx.TensorProto.FLOAT)]] += 1
    quantised = sum(node.op_type == "DequantizeLinear" for node in _nodes(graph))
    rounded = sum(
        node.op_type == "Cast" and any(item.i == onnx.TensorProto.BFLOAT16 for item in node.attribute)
        for node in _nodes(graph)
    )
    return {"precision": dict(counts), "quantised_tensors": quantised, "rounded_tensors": rounded}


def _nodes(graph: Any) -> Iterator[Any]:
    """Nodes of the graph and, before each, those of its branches and loop bodies."""
    for node in graph.node:
        for item in node.attribute:
            if item.HasField("g"):
                yield from _nodes(item.g)
        yield node
