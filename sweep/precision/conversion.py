"""Convert a file: refuse what cannot carry the label, convert, write, and verify what was written."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sweep.errors import ConversionError, UnsupportedError
from sweep.precision import (
    activation_ranges,
    cast,
    compute_types,
    histograms,
    kept_nodes,
    modelopt,
    onnx_graph,
    overflow_guard,
    qdq_rules,
    quantize,
    rounding_guard,
)
from sweep.precision.canonical_form import MIN_OPSET, canonicalize, drop_unread_initializers
from sweep.precision.onnx_tools import as_conversion_error
from sweep.system import subgraphs

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from onnx import ModelProto

    from sweep.spec import Precision

_FP32_DTYPES = ("fp32", "tf32")
NATIVE = "native"
"""Name the dtype of a file that is used as it is, whatever its types."""

_CONVERTED_DTYPES = ("fp16", "bf16", "int8", "fp8")


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """Describe the result of a conversion.

    Attributes:
        path: the typed ONNX file; weights too large for it lie beside it in ``<name>.data``.
        compute_types: number of compute nodes by compute type, see ``count_compute_types``.
        notes: what a reader of the label should know, such as ``1 node kept in fp32: fc``.
        guarded_nodes: names of the nodes that the range guard kept in fp32.
        samples: number of samples that the ranges were computed from; 0 where there are no ranges.
    """

    path: Path
    compute_types: dict[str, int]
    notes: tuple[str, ...]
    guarded_nodes: tuple[str, ...] = ()
    samples: int = 0


@dataclass(slots=True, kw_only=True)
class Ranges:
    """Keep the ranges of one file, recipe and calibration data between conversions that keep different nodes.

    Attributes:
        largest: the largest magnitude by tensor.
        clipped: the magnitude at which the recipe's method clips, by tensor.
    """

    largest: dict[str, float] = field(default_factory=dict)
    clipped: dict[str, float] = field(default_factory=dict)


def passes_through(precision: Precision) -> bool:
    """Tell whether a precision uses the file unchanged, as fp32, tf32 and native do.

    Args:
        precision: the recipe.

    Returns:
        True where there is nothing to convert.
    """
    return precision.dtype in (*_FP32_DTYPES, NATIVE)


def convert(
    source: Path,
    precision: Precision,
    calibration: Sequence[Mapping[str, np.ndarray]],
    target: Path,
    name: str | None = None,
    ranges: Ranges | None = None,
) -> Conversion:
    """Write the graph of a source file with a precision in its types.

    The same source, precision and calibration give the same bytes. ``target`` appears while it is written and is
    removed again on failure: the caller provides atomicity. The two files of a large model keep their names when they
    are moved.

    Args:
        source: the fp32 ONNX file.
        precision: the recipe; not one that ``passes_through``.
        calibration: for int8, fp8 and the range guard, batches of every input by name; other recipes ignore it.
        target: the file to write, in an existing folder.
        name: what errors and notes call the source, which may be a copy in a cache; None for its own name.
        ranges: of earlier conversions of this file with this data, which are added to; None computes all of them.

    Returns:
        The path, compute types and notes of the typed file.

    Raises:
        UnsupportedError: this version has no converter for the dtype.
        ConversionError: ``source`` is not fp32, or the result is not what the label claims.
    """
    name = name or source.name
    if precision.tool == "none":
        return _pass_typed_file(source, precision, target, name)
    _check_request(precision)
    context = f"{name} as {precision.name}"
    counts = compute_types.count_compute_types(source)
    if _has_precision(counts, precision):
        return _copy_typed_file(source, precision, counts, target, name)
    _check_source(context, counts)
    if precision.dtype in compute_types.QUANTIZED_DTYPES:  # without products nothing is quantized: tell before it runs
        model = onnx_graph.infer_types(onnx_graph.load(source, weights=False))
        compute_types.check_evidence(model, precision, name)
    try:
        with as_conversion_error(
            context, "check the file with onnx.checker and that each input is fed, or leave this precision out"
        ):
            model, notes, guarded_nodes = (
                modelopt.convert_with_modelopt(source, precision, calibration, context)
                if precision.tool == "modelopt"
                else _convert_builtin(onnx_graph.load(source), precision, calibration, context, ranges or Ranges())
            )
            onnx_graph.save(model, target)
        counts = _verify(source, target, precision, name)
        sample_count = sum(
            max((len(value) for value in batch.values() if value.ndim), default=1) for batch in calibration
        )
        return Conversion(
            path=target, compute_types=counts, notes=notes, guarded_nodes=guarded_nodes, samples=sample_count
        )
    except BaseException:
        onnx_graph.remove(target)
        raise


def _check_request(precision: Precision) -> None:
    if passes_through(precision):
        raise ConversionError(
            f"precision {precision.name} is the fp32 graph itself: use that file, nothing is converted"
        )
    if precision.dtype not in _CONVERTED_DTYPES:
        raise UnsupportedError(
            f"precision {precision.name} ({precision.dtype}) is not converted by this version: "
            f"take {', '.join((*_FP32_DTYPES, *_CONVERTED_DTYPES))}"
        )
    if precision.dtype in compute_types.QUANTIZED_DTYPES and precision.tool is None:
        quantize.check_quantize_ops(precision)


def _has_precision(counts: Mapping[str, int], precision: Precision) -> bool:
    """Tell whether a user's file already has the precision; a quantized file may keep layers in float."""
    return bool(counts[precision.dtype]) and (precision.dtype in compute_types.QUANTIZED_DTYPES or not counts["fp32"])


def _check_source(context: str, counts: Mapping[str, int]) -> None:
    others = {name: count for name, count in counts.items() if count and name not in {"fp32", "unknown"}}
    if others:
        raise ConversionError(
            f"{context}: the file already computes in {compute_types.format_counts(counts)}: "
            "give the float32 export of the model, or take the file as it is: precision=native"
        )


def _convert_builtin(
    model: ModelProto,
    precision: Precision,
    calibration: Sequence[Mapping[str, np.ndarray]],
    context: str,
    ranges: Ranges,
) -> tuple[ModelProto, tuple[str, ...], tuple[str, ...]]:
    """Insert the Q/DQ pairs in float32, then cast the rest to 16 bits; return notes and guarded nodes."""
    quantizes = precision.dtype in compute_types.QUANTIZED_DTYPES
    rest = precision.rest if quantizes else precision.dtype
    model = canonicalize_for(model, precision)
    kept = kept_nodes.matching_nodes(model, precision.keep or (), context)
    guards = bool(precision.guard) and rest == "fp16"
    folded: tuple[str, ...] = ()
    if guards:
        folded = overflow_guard.fold_variances(model.graph)
        drop_unread_initializers(model.graph)
    if precision.guard:
        model = onnx_graph.infer_types(model)
    placements = quantize.qdq_placements(model.graph, precision.quantize_ops, kept) if quantizes else []
    stored = {tensor.name for tensor in model.graph.initializer}
    activations = sorted({place.tensor for place in placements} - stored)
    measured = activation_ranges.float_tensors(model) if guards else activations
    largest = _collect_ranges(model, precision, calibration, measured, ranges) if quantizes or guards else {}
    quantized = {place.tensor for place in placements if place.tensor in stored}
    guarded_nodes = overflow_guard.overflowing_nodes(model, largest, quantized) if guards else ()
    guarded_nodes = tuple(name for name in guarded_nodes if name not in kept)
    if quantizes and precision.calibration_method is not None:
        largest = _clip_ranges(model, precision, calibration, {name: largest[name] for name in activations}, ranges)
    notes = quantize.insert_qdq_pairs(model, precision, largest, kept) if quantizes else ()
    notes = (*kept_nodes.keep_notes(kept), *notes)
    if rest is None:
        return model, notes, ()
    # Without wide products, those that the rest's type does not exist for are wide all the same.
    wide = quantize.wide_product_nodes(model.graph, None if precision.wide else compute_types.fp32_ops(precision))
    if precision.wide and (precision.dtype, rest) == ("int8", "bf16"):
        wide |= quantize.fp32_softmax_nodes(model.graph)
    guard_notes = overflow_guard.guard_notes(guarded_nodes, folded)
    fp32_nodes = {*kept, *guarded_nodes, *wide}
    if guards or rest == "bf16":
        destroyed, rounding_notes = _destroyed_nodes(model, precision, rest, calibration, fp32_nodes)
        guarded_nodes, guard_notes = (*guarded_nodes, *destroyed), (*guard_notes, *rounding_notes)
    model, cast_notes = cast.cast_model(
        model, rest, keep_io=precision.keep_io, fp32_nodes={*fp32_nodes, *guarded_nodes}
    )
    return model, (*notes, *guard_notes, *cast_notes), guarded_nodes


def _destroyed_nodes(
    model: ModelProto,
    precision: Precision,
    rest: str,
    calibration: Sequence[Mapping[str, np.ndarray]],
    fp32_nodes: Collection[str],
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the nodes that the rounding guard keeps beside `fp32_nodes`, and its notes.

    bfloat16 keeps the form that is known by its graph without being told. What calibration data shows is looked for
    where the recipe guards and does not quantize, since the error of quantization hides that of rounding.
    """
    variances = tuple(name for name in rounding_guard.variance_nodes(model.graph) if name not in fp32_nodes)
    loss = None
    if precision.guard and precision.dtype == rest:
        activation_ranges.check_calibration_batches(precision, calibration)
        loss = rounding_guard.rounding_loss(model, rest, calibration, {*fp32_nodes, *variances})
    return (*variances, *(loss.nodes if loss else ())), rounding_guard.rounding_notes(rest, variances, loss)


def canonicalize_for(model: ModelProto, precision: Precision) -> ModelProto:
    """Bring an fp32 graph into the form in which every conversion to a precision starts.

    Args:
        model: an fp32 graph with its weights loaded. It is modified.
        precision: the recipe.

    Returns:
        The same function in canonical form, see ``canonicalize``.
    """
    rest = precision.rest if precision.dtype in compute_types.QUANTIZED_DTYPES else precision.dtype
    return canonicalize(model, precision.quantize_ops, _min_opset(precision.dtype, rest))


def _collect_ranges(
    model: ModelProto,
    precision: Precision,
    calibration: Sequence[Mapping[str, np.ndarray]],
    names: Sequence[str],
    ranges: Ranges,
) -> dict[str, float]:
    activation_ranges.check_calibration_batches(precision, calibration)
    missing = [name for name in names if name not in ranges.largest]
    ranges.largest |= activation_ranges.largest_magnitudes(model, missing, calibration)
    return {name: ranges.largest[name] for name in names}


def _clip_ranges(
    model: ModelProto,
    precision: Precision,
    calibration: Sequence[Mapping[str, np.ndarray]],
    largest: Mapping[str, float],
    ranges: Ranges,
) -> dict[str, float]:
    """Clip the ranges by the recipe's method; the guard has used the unclipped ones."""
    percentile = (
        histograms.DEFAULT_PERCENTILE if precision.calibration_percentile is None else precision.calibration_percentile
    )
    missing = {name: value for name, value in largest.items() if name not in ranges.clipped}
    ranges.clipped |= histograms.clipping_thresholds(
        model, missing, calibration, str(precision.calibration_method), percentile
    )
    return {name: ranges.clipped[name] for name in largest}


def _min_opset(dtype: str, rest: str | None) -> int:
    """Return the least opset in which every operator has the type; float8 came with opset 19."""
    return max(cast.OPSET.get(rest or "", MIN_OPSET), cast.OPSET["fp16"] if dtype == "fp8" else MIN_OPSET)


def _verify(source: Path, target: Path, precision: Precision, source_name: str) -> dict[str, int]:
    """Validate the written file against ONNX, TensorRT's Q/DQ rules and the label, and count its compute types."""
    context, error = f"{source_name} as {precision.name}", onnx_graph.validation_error(target)
    model = onnx_graph.load(target)
    if error:
        earlier = onnx_graph.validation_error(source)
        if earlier:
            raise ConversionError(
                f"{context}: the file itself is not valid here: {earlier}; export it with an opset and operators that "
                "the installed onnx and onnxruntime read"
            )
        raise ConversionError(f"{context}: the converted graph{_control_flow(model)} is not valid: {error}; {_ADVICE}")
    if precision.dtype in compute_types.QUANTIZED_DTYPES:
        violations = qdq_rules.find_violations(model, precision.dtype, per_channel=precision.per_channel)
        if violations:
            raise ConversionError(f"{context}: {violations[0]} ({len(violations)} such faults); {_ADVICE}")
    model = onnx_graph.infer_types(model)
    counts = compute_types.count_model_types(model)
    compute_types.check_evidence(model, precision, source_name)
    advice = _MODELOPT_ADVICE if precision.tool == "modelopt" else _KEEP_ADVICE if precision.keep else None
    if not advice and counts["fp32"] and not counts[precision.dtype] and compute_types.fp32_ops(precision):
        unknown = ", ".join(compute_types.fp32_ops(precision))
        advice = f"TensorRT has no {precision.rest or precision.dtype} for {unknown}; leave this precision out"
    label_counts = compute_types.count_label_types(model, precision)
    compute_types.check_counts(label_counts, precision, f"the graph converted for {context}", advice)
    compute_types.check_rest(model, precision, f"the graph converted for {context}")
    return counts


_MODELOPT_ADVICE = (
    "modelopt leaves products of one row or fewer than 16 channels alone; precision.tool=builtin takes them"
)
_KEEP_ADVICE = "keep fewer nodes in fp32 (precision.keep), or give a float32 export of Conv, Gemm and MatMul"
_ADVICE = "simplify the export (no control flow, static ranks), or leave this precision out"


def _control_flow(model: ModelProto) -> str:
    """Word the control flow in a model, which converters handle worst: `` (with If, Loop)``."""
    ops = sorted({node.op_type for node, _ in onnx_graph.typed_nodes(model.graph) if any(subgraphs(node))})
    return f" (with {', '.join(ops)})" if ops else ""


def _pass_typed_file(source: Path, precision: Precision, target: Path, name: str) -> Conversion:
    """Copy a file for ``tool=none`` after checking that its types are those of the label."""
    advice = "give a file that is typed so, or convert it: precision.tool=builtin"
    compute_types.check_label(source, precision, advice, name)
    onnx_graph.save(onnx_graph.load(source), target)
    counts = compute_types.count_compute_types(source)
    return Conversion(
        path=target,
        compute_types=counts,
        notes=(f"typed already: {compute_types.format_counts(counts)} compute nodes",),
    )


def _copy_typed_file(source: Path, precision: Precision, counts: dict[str, int], target: Path, name: str) -> Conversion:
    """Copy a user's file that already carries the precision."""
    compute_types.check_label(source, precision, name=name)
    onnx_graph.save(onnx_graph.load(source), target)
    return Conversion(
        path=target, compute_types=counts, notes=(f"{name} was {precision.dtype} already: not converted",)
    )
