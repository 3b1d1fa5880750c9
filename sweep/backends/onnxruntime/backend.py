"""Run typed ONNX with onnxruntime on the CPU: real inference on any machine, and the default without a GPU.

An engine is the optimised graph that onnxruntime saves, built once per typed ONNX and batch. Streams are N sessions,
each run from its own thread with a fixed number of intra-op threads, its inputs and outputs bound to buffers allocated
before the clock starts. A symbolic batch stays symbolic in the saved graph (it costs no speed), so that a batch
gathered by the server runs at its true size. CPU speed of a precision says nothing about TensorRT.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.backends.layer_times import cost_notes, median, subtract_cost
from sweep.backends.onnxruntime import layer_profile, partial_batches, pipeline
from sweep.backends.onnxruntime.graph_inspection import collect_type_evidence, holds_float8, inspect_inputs
from sweep.backends.onnxruntime.session import OnnxRuntimeSession, OnnxRuntimeStream, in_input_types
from sweep.errors import BuildError, SessionError, shorten, without_source_places
from sweep.spec import PER_SHAPE
from sweep.system import Stopwatch, save_onnx
from sweep.system import environment as libraries

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from sweep.backends.base import PipelinePart, ProfileLimits, Session, ShapesAt
    from sweep.spec import JsonDict, Variant

_GRAPH_FILE = "optimised.onnx"
_WEIGHTS_FILE = "weights.bin"
_PROVIDERS = ["CPUExecutionProvider"]
_KERNELS = frozenset({"fp32", "fp16", "int8", "fp8"})  # types that its operators take, whatever they compute in
_EXTERNAL_ABOVE_BYTES = 1 << 30  # a protobuf ends at 2 GiB; larger weights go beside it, as external ones do
_QUANTISED = ("int8", "fp8")
_UNSOUND_OPTIMIZERS = ["ReluQuantRewrite"]  # takes the lowest fp8 for the zero of a Relu: silently wrong outputs
_LOG_ERRORS_ONLY = 3  # log errors only
_EMULATED = {
    "fp16": "holds fp16 weights and computes in fp32 (the accuracy is from a run that rounds every tensor to fp16)",
    "bf16": "runs a graph that rounds every tensor to bf16 and computes in fp32, for it has no bf16 products",
    "int8": "rounds to int8 at each Q/DQ pair and computes in fp32",
    "fp8": "rounds to fp8 at each Q/DQ pair and computes in fp32",
}


class OnnxRuntime:
    """Provide the ``onnxruntime`` backend."""

    name = "onnxruntime"
    honours = frozenset({"batch", "profiles", "streams", "clients", "intra_op_threads", "sharing", "beside"})
    runs_models = True
    on_gpu = False

    def unsupported(self, variant: Variant) -> str | None:
        """Return a reason for tf32, which has no counterpart on a CPU, and for several profiles in one engine."""
        profiles = variant.engine.profiles
        if profiles is not None and profiles.way == PER_SHAPE:
            return (
                "onnxruntime has no optimization profiles (asked: profiles=per_shape); profiles=range is one session "
                "with open dimensions, profiles=per_engine a session for each shape"
            )
        if variant.onnx.precision.dtype != "tf32":
            return None
        return (
            f"onnxruntime's CPU provider does not run precision={variant.onnx.precision.name}, which rounds inside the "
            "GPU's products; it runs fp32, and emulates fp16, bf16, int8, fp8 and their mixes"
        )

    def emulation(self, variant: Variant) -> str | None:
        """Return ``engine`` for bfloat16, ``outputs`` for float16, and None for a file that is taken as it is.

        There are no kernels of bfloat16, and those of float16 compute in float32.
        """
        types = _types(variant)
        if types == ("native",):
            return None  # the file runs as it is, and is its own reference
        if set(types) - _KERNELS:
            return "engine"
        return "outputs" if "fp16" in types else None

    def environment(self, variant: Variant) -> dict[str, str]:
        """Return no variables."""
        del variant
        return {}

    def facts(self) -> JsonDict:
        """Return the version of onnxruntime and its execution provider."""
        return {"onnxruntime": libraries.library_version("onnxruntime"), "provider": _PROVIDERS[0]}

    def build(self, onnx: Path, variant: Variant, shapes: ShapesAt, target: Path) -> JsonDict:
        """Optimise the graph for this CPU and save it, its shapes fixed but for a symbolic batch.

        Raises:
            BuildError: onnxruntime refused the graph; its own message is kept.
        """
        import onnxruntime as ort

        dtype = variant.onnx.precision.dtype
        fp8 = dtype == "fp8" or (dtype == "native" and holds_float8(onnx))
        try:
            dims, external = inspect_inputs(onnx, shapes(variant.engine.batch), variant.engine.batch)
            if variant.engine.profiles is not None:
                dims = {name: size for name, size in dims.items() if name not in _open_dimensions(variant)}
            options = _build_options(ort, 1, dims, spinning=False, fp8=fp8)
            options.optimized_model_filepath = str(target / _GRAPH_FILE)
            if external or onnx.stat().st_size > _EXTERNAL_ABOVE_BYTES:
                options.add_session_config_entry(
                    "session.optimized_model_external_initializers_file_name", _WEIGHTS_FILE
                )
            problem = _save_graph(ort, onnx, options, target / _GRAPH_FILE, _UNSOUND_OPTIMIZERS if fp8 else None)
        except Exception as error:
            raise BuildError(f"onnxruntime refused the graph: {_message(error)}") from error
        unsaved = {"unsaved": problem, "dims": dims, "fp8": fp8} if problem else {}
        return {**collect_type_evidence(target / _GRAPH_FILE), **unsaved}

    def load(
        self, engine: Path, info: JsonDict, variant: Variant, feeds: Mapping[str, np.ndarray]
    ) -> OnnxRuntimeSession:
        """Create one session per stream; each has run twice at every batch size before this returns.

        Raises:
            SessionError: onnxruntime could not load or run the graph; its own message is kept.
        """
        try:
            sessions = [_open(engine, info, variant) for _ in range(variant.session.streams)]
            watch = Stopwatch()
            feeds = in_input_types(sessions[0], feeds)
            parts = (
                []
                if variant.load.batch_wait_ms is None
                else partial_batches.feeds(sessions[0], feeds, variant.engine.batch)
            )
            streams = [OnnxRuntimeStream(session, feeds, parts) for session in sessions]
        except Exception as error:
            raise SessionError(f"onnxruntime could not run the graph: {_message(error)}") from error
        session = OnnxRuntimeSession(streams, _realised(variant, info, len(streams)), partial_batches=bool(parts))
        session.shape_facts["first_run_ms"] = watch.seconds() * 1e3 / len(streams)
        return session

    def load_shapes(
        self, engine: Path, info: JsonDict, variant: Variant, feeds: Sequence[Mapping[str, np.ndarray]]
    ) -> list[Session]:
        """Create one session per stream with open dimensions, and bind buffers of each shape to it.

        Raises:
            SessionError: onnxruntime could not load or run the graph; its own message is kept.
        """
        try:
            sessions = [_open(engine, info, variant) for _ in range(variant.session.streams)]
            served: list[Any] = []  # of sessions
            for own in feeds:
                values, watch = in_input_types(sessions[0], own), Stopwatch()
                streams = [OnnxRuntimeStream(session, values) for session in sessions]
                served.append(
                    OnnxRuntimeSession(streams, _realised(variant, info, len(streams)), partial_batches=False)
                )
                served[-1].shape_facts["first_run_ms"] = watch.seconds() * 1e3 / len(streams)
        except Exception as error:
            raise SessionError(f"onnxruntime could not run the graph: {_message(error)}") from error
        return served

    def load_pipeline(
        self, parts: Sequence[PipelinePart], variant: Variant, externals: Mapping[str, np.ndarray]
    ) -> pipeline.PipelineSession:
        """Create one session of each network per stream; each stream has served two requests before this returns.

        Raises:
            SessionError: onnxruntime could not load or run a stage, which the message names.
        """

        def open_session(part: PipelinePart) -> Any:
            assert part.engine is not None  # noqa: S101 - for mypy: only networks are opened
            return _open(part.engine, part.info, part.variant)

        session = pipeline.load(open_session, parts, variant, externals)
        networks = {
            part.stage.name: _realised(part.variant, part.info, variant.session.streams)
            for part in parts
            if part.engine is not None
        }
        session.realised = {
            "precision": None,
            "cuda_graph": False,
            "contexts": len(session.streams),
            "sm_count": None,
            "clocks_mhz": None,
            "intra_op_threads": _threads(variant),
            "stages": networks,
            "notes": [f"{name}: {note}" for name, facts in networks.items() for note in facts["notes"]],
        }
        return session

    def profile_layers(
        self,
        engine: Path,
        info: JsonDict,
        variant: Variant,
        feeds: Mapping[str, np.ndarray],
        onnx: Path | None,
        limits: ProfileLimits,
    ) -> JsonDict:
        """Time the nodes of the optimised graph on one session, with the threads of a stream of the variant.

        Raises:
            SessionError: onnxruntime could not load or run the graph; its own message is kept.
        """
        import onnx as onnx_library

        try:
            with tempfile.TemporaryDirectory(prefix=f"{layer_profile.PREFIX}-") as name:
                runs, timed_us = layer_profile.profile(lambda: _open(engine, info, variant, Path(name)), feeds, limits)
                saved = Path(name) / _GRAPH_FILE if info.get("unsaved") else engine / _GRAPH_FILE
                optimised = onnx_library.load(saved, load_external_data=False).graph
        except SessionError:
            raise
        except Exception as error:
            raise SessionError(f"onnxruntime could not profile the graph: {_message(error)}") from error
        typed = None if onnx is None else onnx_library.load(onnx, load_external_data=False).graph
        layers, notes = layer_profile.describe_layers(runs, optimised, typed)
        cost_us = subtract_cost(layers, timed_us)
        return {
            "inferences": len(runs),
            "source": "onnxruntime",
            "cuda_graph": False,
            "timed_us": timed_us,
            "profiled_us": median([run.duration_us for run in runs]),
            "layer_cost_us": cost_us,
            "gaps_us": None,
            "layers": layers,
            "notes": [*notes, *cost_notes(cost_us)],
        }

    def mismatch(self, variant: Variant, realised: JsonDict) -> str | None:
        """Compare the contexts, and the types that the optimised graph computes in or rounds to, with the request.

        Returns:
            The first difference in one line; None if there is none.
        """
        if realised["contexts"] != variant.session.streams:
            return f"asked for {variant.session.streams} streams, found {realised['contexts']} contexts"
        requested, counts = variant.onnx.precision.dtype, realised["precision"]
        if requested in _QUANTISED and not counts.get(requested) and not realised["quantised_tensors"]:
            neither = f"neither computes in {requested} nor rounds to it"
            return f"asked for {requested}, but the optimised graph {neither}: {counts}"
        if "bf16" in _types(variant) and not realised["rounded_tensors"]:
            return f"asked for bf16, but the optimised graph does not round to it: {counts}"
        if requested == "fp32" and set(counts) - {"fp32"}:
            return f"asked for fp32, but the optimised graph computes in {counts}"
        return None


def _realised(variant: Variant, info: JsonDict, contexts: int) -> JsonDict:
    """Return the settings that took effect in a session of that many contexts."""
    return {
        "precision": info["precision"],
        "cuda_graph": False,
        "contexts": contexts,
        "sm_count": None,
        "clocks_mhz": None,
        "intra_op_threads": _threads(variant),
        "quantised_tensors": info["quantised_tensors"],
        "rounded_tensors": info["rounded_tensors"],
        "notes": _notes(variant, info),
    }


def _open_dimensions(variant: Variant) -> frozenset[str]:
    """Return the names of the dimensions that the engine leaves open."""
    return frozenset(variant.onnx.model.open_dimensions or ())


def _threads(variant: Variant) -> int:
    return variant.session.intra_op_threads or 1


def _open(engine: Path, info: JsonDict, variant: Variant, profile: Path | None = None) -> Any:
    """Open a session of the engine.

    Args:
        engine: folder that was built.
        info: facts of the build.
        variant: decides its threads.
        profile: folder that takes a profile, and the graph where it is optimised at load; None profiles nothing.
    """
    import onnxruntime as ort

    threads = _threads(variant)
    spinning = threads * variant.session.streams * variant.session.clients <= (os.cpu_count() or 1)
    options, disabled = _load_options(ort, threads, spinning=spinning), None
    if info.get("unsaved"):
        options = _build_options(ort, threads, info["dims"], spinning=spinning, fp8=info["fp8"])
        disabled = _UNSOUND_OPTIMIZERS if info["fp8"] else None
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile / layer_profile.PREFIX)
        if info.get("unsaved"):
            options.optimized_model_filepath = str(profile / _GRAPH_FILE)
    return ort.InferenceSession(str(engine / _GRAPH_FILE), options, providers=_PROVIDERS, disabled_optimizers=disabled)


def _options(ort: Any, *, intra_op_threads: int, spinning: bool) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = intra_op_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _LOG_ERRORS_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spinning else "0")
    return options


def _save_graph(ort: Any, onnx: Path, options: Any, target: Path, disabled: list[str] | None) -> str | None:
    """Save the optimised graph and return None; where it cannot be loaded again, save the graph itself and say why.

    onnxruntime saves graphs that it refuses to load, such as an If of float16 whose branches read one outer tensor:
    each branch then has a cast of the same name.
    """
    ort.InferenceSession(str(onnx), options, providers=_PROVIDERS, disabled_optimizers=disabled)
    try:
        ort.InferenceSession(str(target), _load_options(ort, 1, spinning=False), providers=_PROVIDERS)
    except Exception as error:  # noqa: BLE001 - onnxruntime's errors share no class
        _copy_graph(onnx, target)
        return _message(error)
    return None


def _copy_graph(source: Path, target: Path) -> None:
    """Write a graph, with its weights beside it if they are many, over whatever a failed attempt left."""
    import onnx

    for path in target.parent.iterdir():
        path.unlink()
    model = onnx.load(source)
    large = model.ByteSize() > _EXTERNAL_ABOVE_BYTES
    save_onnx(model, target, _WEIGHTS_FILE if large else None)


def _build_options(ort: Any, threads: int, dims: Mapping[str, int], *, spinning: bool, fp8: bool) -> Any:
    """Return the options of a session that optimises a graph, with its symbolic dimensions fixed."""
    options = _options(ort, intra_op_threads=threads, spinning=spinning)
    if fp8:  # it fuses int8 pairs soundly, and fp8 pairs into operators that have no fp8
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    for name, size in dims.items():
        options.add_free_dimension_override_by_name(name, size)
    return options


def _load_options(ort: Any, threads: int, *, spinning: bool) -> Any:
    """Return the options of a session of a saved graph, which was optimised when it was built."""
    options = _options(ort, intra_op_threads=threads, spinning=spinning)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


def _types(variant: Variant) -> tuple[str, ...]:
    """Return the types that the graph consists of, the narrowest first."""
    precision = variant.onnx.precision
    return (precision.dtype,) if precision.rest is None else (precision.dtype, precision.rest)


def _notes(variant: Variant, info: JsonDict) -> list[str]:
    """Explain what the emulation of each type means for the figures; tell of a graph that is optimised at load."""
    emulated = [name for name in _types(variant) if name in _EMULATED and set(info["precision"]) != {name}]
    problem = info.get("unsaved")
    notes = (
        [f"optimised at each load, for onnxruntime cannot load what it saves: {shorten(problem, 200)}"]
        if problem
        else []
    )
    if not emulated:
        return notes
    explanations = "; ".join(f"for {dtype} it {_EMULATED[dtype]}" for dtype in emulated)
    name = variant.onnx.precision.name
    return [
        *notes,
        f"{name} is emulated on onnxruntime's CPU provider: {explanations}. Its speed says nothing about TensorRT",
    ]


def _message(error: Exception) -> str:
    """Return the library's message on one line."""
    return " ".join(without_source_places(str(error)).split())
