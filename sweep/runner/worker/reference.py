"""Compute the float32 reference outputs and score of a network with onnxruntime."""

from __future__ import annotations

import contextlib
import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from sweep import spec
from sweep.backends import NUMERIC_TYPES
from sweep.errors import ModelError
from sweep.models import SAMPLES_ADVICE
from sweep.runner.worker import scoring
from sweep.runner.worker.artifact_keys import file_content
from sweep.system import array_files, environment, one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from sweep.models import evaluation
    from sweep.runner.worker.compared_inputs import ComparedInputs
    from sweep.spec import JsonDict, Variant
    from sweep.storage.cache import Cache

    Infer = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]


def run(onnx: Path, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Run a graph on onnxruntime's CPU provider; Q/DQ pairs as they stand, since it fuses fp8 ones wrongly."""
    return runner(onnx)(feeds)


def runner(onnx: Path, *, optimize: bool = True, fuse_pairs: bool = False) -> Infer:
    """Return a function that runs one graph as ``run`` does, for several inputs.

    Args:
        onnx: the graph.
        optimize: let nodes be fused.
        fuse_pairs: fuse int8 Q/DQ pairs into integer kernels too.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.disable_quant_qdq", "0" if fuse_pairs else "1")
    with _as_model_error(onnx):
        session = ort.InferenceSession(
            str(onnx), options, providers=["CPUExecutionProvider"], disabled_optimizers=["ReluQuantRewrite"]
        )
    # Strings, sequences and maps are not compared, and types that numpy lacks cannot be fetched.
    names = [item.name for item in session.get_outputs() if item.type in NUMERIC_TYPES]
    halves = {item.name for item in session.get_inputs() if item.type == "tensor(float16)"}  # keep_io=false

    def infer(feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        feeds = {name: value.astype(np.float16) if name in halves else value for name, value in feeds.items()}
        with _as_model_error(onnx):
            return dict(zip(names, session.run(names, dict(feeds)), strict=True)) if names else {}

    return infer


@contextlib.contextmanager
def _as_model_error(onnx: Path) -> Iterator[None]:
    """Turn what onnxruntime raises into one line with its cause; its errors share no class."""
    try:
        yield
    except Exception as error:
        raise ModelError(
            f"onnxruntime cannot run {onnx.name}, with which outputs are compared: {one_line(error)}; "
            f"bring real inputs ({SAMPLES_ADVICE}) or their range (model.inputs.NAME.low and high), or check the file"
        ) from error


REFERENCE_FILE = "outputs.npz"
_MOST_OUTPUT_BYTES = 256 << 20
_SCORED_TOGETHER = 32


def reference_outputs(
    variant: Variant, source: Path, feeds: Mapping[str, np.ndarray], cache: Cache
) -> dict[str, np.ndarray]:
    """Compute the outputs of the fp32 graph for these inputs (``evaluation.feeds``), once for all engines."""

    def build(folder: Path) -> JsonDict:
        np.savez(folder / REFERENCE_FILE, **run(source, feeds))  # type: ignore[arg-type]  # allow_pickle is none
        return {}

    key = spec.digest("reference", *inputs_identity(variant, source, feeds))
    about = {"model": variant.onnx.model.name, "precision": "fp32", "batch": variant.engine.batch}
    path = cache.get("references", key, build, about).path / REFERENCE_FILE
    return array_files.read_arrays(path, follow=False)


def compared_outputs(
    variant: Variant, source: Path, inputs: ComparedInputs, cache: Cache
) -> tuple[ComparedInputs, dict[str, np.ndarray]]:
    """Compute the outputs of the fp32 graph for several batches, once for all engines.

    Returns:
        The batches that can be compared, and their outputs: the first one alone if the sizes of outputs depend on the
        data, and fewer if the outputs of all take more than 256 MiB.
    """
    if len(inputs.batches) == 1:
        return inputs, inputs.join([reference_outputs(variant, source, inputs.batches[0], cache)])

    def build(folder: Path) -> JsonDict:
        infer, outputs = runner(source), list[dict[str, np.ndarray]]()
        for feeds in inputs.batches:
            outputs.append(infer(feeds))
            sizes = [{name: value.shape for name, value in outputs[number].items()} for number in (0, -1)]
            if sizes[0] != sizes[1]:
                del outputs[1:]
                break
            if (len(outputs) + 1) * sum(value.nbytes for value in outputs[0].values()) > _MOST_OUTPUT_BYTES:
                break
        joined = inputs.first(len(outputs)).join(outputs)
        np.savez(folder / REFERENCE_FILE, **joined)  # type: ignore[arg-type]  # allow_pickle is none
        return {"batches": len(outputs)}

    key = spec.digest("compared", *inputs_identity(variant, source, *inputs.batches), inputs.counts)
    about = {"model": variant.onnx.model.name, "precision": "fp32", "batch": variant.engine.batch}
    entry = cache.get("references", key, build, about)
    path = entry.path / REFERENCE_FILE
    return inputs.first(entry.info["batches"]), array_files.read_arrays(path, follow=False)


def inputs_identity(variant: Variant, source: Path, *batches: Mapping[str, np.ndarray]) -> tuple[Any, ...]:
    """Return what decides the outputs of a file on onnxruntime: its content, the inputs, and the library's version."""
    model = variant.onnx.model
    input_parts: tuple[Any, ...] = (model.inputs, variant.engine.batch, variant.load.seed)
    input_parts += tuple(map(str, model.shape or ()))  # the graph may leave these sizes open, and be one for several
    samples_or_labels = variant.load.labels is not None or variant.load.samples is not None
    if samples_or_labels or variant.engine.plan is not None:  # whose inputs may have rounded the values
        input_parts += tuple(
            hashlib.sha256(np.ascontiguousarray(feeds[name]).data).hexdigest()
            for feeds in batches
            for name in sorted(feeds)
        )
    return file_content(source), *input_parts, environment.library_version("onnxruntime")


def reference_score(
    variant: Variant, source: Path, evaluation_set: evaluation.EvaluationSet, cache: Cache, tell: Callable[[int], None]
) -> float:
    """Compute the top-1 of the fp32 graph on labelled samples, once for all batches and precisions."""

    def build(_: Path) -> JsonDict:
        return {"score": scoring.score(evaluation_set, _SCORED_TOGETHER, runner(source), tell)}

    key = spec.digest(
        "score", file_content(source), evaluation_set.identity, environment.library_version("onnxruntime")
    )
    score: float = cache.get("references", key, build, {"model": variant.onnx.model.name}).info["score"]
    return score
