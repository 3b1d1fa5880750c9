"""One conversion: refuse what cannot be labelled, convert, write, and verify what was written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweep.errors import ConversionError, UnsupportedError
from sweep.precision import (
    activation_ranges,
    cast,
    compute_types,
    histograms,
    modelopt,
    overflow_guard,
    qdq_rules,
    quantize,
)
from sweep.precision import graph as graphs
from sweep.precision.canonicalize import OPSET, prepared
from sweep.precision.onnx_tools import translated

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from onnx import ModelProto

    from sweep.spec import Precision

_UNCHANGED = ("fp32", "tf32")
_CONVERTED = ("fp16", "bf16", "int8", "fp8")


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """What came out of a conversion.

    Attributes:
        path: the typed ONNX; weights too large for it lie beside it in ``<name>.data``.
        dtypes: count of compute nodes by the type that they are asked to compute in, see ``dtypes``.
        notes: what a reader of the label should know, such as ``1 node kept in fp32: fc``.
        guarded: nodes that the range guard kept in fp32.
        samples: how many the ranges were drawn from; 0 where none were drawn.
    """

    path: Path
    dtypes: dict[str, int]
    notes: tuple[str, ...]
    guarded: tuple[str, ...] = ()
    samples: int = 0


def passes_through(precision: Precision) -> bool:
    """Whether this precision takes the fp32 graph as it is: fp32 and tf32."""
    return precision.dtype in _UNCHANGED


def convert(
    source: Path, precision: Precision, calibration: Sequence[Mapping[str, np.ndarray]], target: Path
) -> Converted:
    """Writes ``target``: the graph in ``source``, with ``precision`` in its types.

    The same source, precision and calibration give the same bytes. ``target`` appears as it is
    written and is removed again on failure: atomicity is the caller's. The two files of a large
    model keep their names when they are moved.

    Args:
        source: the fp32 ONNX.
        precision: the recipe; not one that ``passes_through``.
        calibration: for int8, fp8 and the range guard, batches of every input by name; others ignore it.
        target: file to write, in an existing folder.

    Raises:
        UnsupportedError: this version has no converter for the dtype.
        ConversionError: ``source`` is not fp32, or the result is not what the label claims.
    """
    if precision.tool == "none":
        return _as_it_is(source, precision, target)
    _check_request(precision)
    doing = f"{source.name} as {precision.name}"
    found = compute_types.dtypes(source)
    if _carries(found, precision):
        return _copied(source, precision, found, target)
    _check_source(doing, found)
    try:
        with translated(
            doing, "check the file with onnx.checker and that each input is fed, or leave this precision out"
        ):
            model, notes, guarded = (
                modelopt.converted(source, precision, calibration, doing)
                if precision.tool == "modelopt"
                else _run(graphs.load(source), precision, calibration)
            )
            graphs.save(model, target)
        found = _verified(target, precision, doing)
        used = sum(max((len(value) for value in batch.values() if value.ndim), default=1) for batch in calibration)
        return Converted(path=target, dtypes=found, notes=notes, guarded=guarded, samples=used)
    except BaseException:
        graphs.remove(target)
        raise


def _check_request(precision: Precision) -> None:
    if passes_through(precision):
        raise ConversionError(
            f"precision {precision.name} is the fp32 graph itself: use that file, nothing is converted"
        )
    if precision.dtype not in _CONVERTED:
        raise UnsupportedError(
            f"precision {precision.name} ({precision.dtype}) is not converted by this version: "
            f"take {', '.join((*_UNCHANGED, *_CONVERTED))}"
        )
    if precision.dtype in compute_types.QUANTISED and precision.tool is None:
        quantize.check_ops(precision)


def _carries(found: Mapping[str, int], precision: Precision) -> bool:
    """Whether a user's own file has the precision already; a quantised file may keep layers in float."""
    return bool(found[precision.dtype]) and (precision.dtype in compute_types.QUANTISED or not found["fp32"])


def _check_source(doing: str, found: Mapping[str, int]) -> None:
    others = {name: count for name, count in found.items() if count and name not in {"fp32", "unknown"}}
    if others:
        raise ConversionError(
            f"{doing}: the file already computes in {compute_types.spelled(found)}: give the float32 export of "
            "the model"
        )


def _run(
    model: ModelProto, precision: Precision, calibration: Sequence[Mapping[str, np.ndarray]]
) -> tuple[ModelProto, tuple[str, ...], tuple[str, ...]]:
    """First the Q/DQ pairs, while everything is float32, then what is left in 16 bits; the notes, the guarded nodes."""
    quantising = precision.dtype in compute_types.QUANTISED
    rest = precision.rest if quantising else precision.dtype
    model = start(model, precision)
    guarding = bool(precision.guard) and rest == "fp16"
    if guarding:
        model = graphs.inferred(model)
    largest = _ranges(model, precision, calibration, everything=guarding) if quantising or guarding else {}
    kept = overflow_guard.guarded(model, largest) if guarding else ()
    if quantising and precision.calibration_method is not None:
        largest = _clipped(model, precision, calibration, largest)
    notes = quantize.quantised(model, precision, largest) if quantising else ()
    if rest is None:
        return model, notes, ()
    wide = quantize.wide_nodes(model.graph) if precision.wide else frozenset()
    if wide and (precision.dtype, rest) == ("int8", "bf16"):
        wide |= quantize.high_softmaxes(model.graph)
    model, more = cast.lowered(model, rest, keep_io=precision.keep_io, kept={*kept, *wide})
    return model, (*notes, *overflow_guard.note(kept), *more), kept


def start(model: ModelProto, precision: Precision) -> ModelProto:
    """The fp32 graph as every conversion to ``precision`` begins with it; ``model`` is used up."""
    rest = precision.rest if precision.dtype in compute_types.QUANTISED else precision.dtype
    return prepared(model, precision.quantize_ops, _opset(precision.dtype, rest))


def _ranges(
    model: ModelProto, precision: Precision, calibration: Sequence[Mapping[str, np.ndarray]], *, everything: bool
) -> dict[str, float]:
    activation_ranges.check_calibration(precision, calibration)
    if everything:
        return activation_ranges.largest(model, activation_ranges.floats(model), calibration)
    return activation_ranges.largest(model, _activations(model, precision), calibration)


def _activations(model: ModelProto, precision: Precision) -> list[str]:
    """The tensors that get a range: what is quantised and is no weight."""
    stored = {tensor.name for tensor in model.graph.initializer}
    places = quantize.places(model.graph, precision.quantize_ops)
    return sorted({place.tensor for place in places} - stored)


def _clipped(
    model: ModelProto,
    precision: Precision,
    calibration: Sequence[Mapping[str, np.ndarray]],
    largest: Mapping[str, float],
) -> dict[str, float]:
    """Ranges by the recipe's method; the guard has seen the largest values."""
    wanted = {name: largest[name] for name in _activations(model, precision)}
    percentile = histograms.PERCENTILE if precision.calibration_percentile is None else precision.calibration_percentile
    return histograms.thresholds(model, wanted, calibration, str(precision.calibration_method), percentile)


def _opset(dtype: str, rest: str | None) -> int:
    """The least opset in which everything has its type; float8 came with 19."""
    return max(cast.OPSET.get(rest or "", OPSET), cast.OPSET["fp16"] if dtype == "fp8" else OPSET)


def _verified(target: Path, precision: Precision, doing: str) -> dict[str, int]:
    """The types of what was written, once nothing speaks against it."""
    problem = graphs.problem(target)
    model = graphs.load(target)
    if problem:
        raise ConversionError(f"{doing}: the converted graph{_constructs(model)} is not valid: {problem}; {_TODO}")
    if precision.dtype in compute_types.QUANTISED:
        faults = qdq_rules.broken(model, precision.dtype, per_channel=precision.per_channel)
        if faults:
            raise ConversionError(f"{doing}: {faults[0]} ({len(faults)} such faults); {_TODO}")
    model = graphs.inferred(model)
    found = compute_types.counted(model)
    advice = _LEFT_OUT if precision.tool == "modelopt" else None
    compute_types.refuse_mismatch(found, precision, f"the graph converted for {doing}", advice)
    compute_types.refuse_rest(model, precision, f"the graph converted for {doing}")
    return found


_LEFT_OUT = "modelopt leaves products of one row or fewer than 16 channels alone; precision.tool=builtin takes them"
_TODO = "simplify the export (no control flow, static ranks), or leave this precision out"


def _constructs(model: ModelProto) -> str:
    """The control flow in ``model``, which converters know least: `` (with If, Loop)``."""
    found = sorted({node.op_type for node, _ in graphs.typed_nodes(model.graph) if any(graphs.subgraphs(node))})
    return f" (with {', '.join(found)})" if found else ""


def _as_it_is(source: Path, precision: Precision, target: Path) -> Converted:
    """``tool=none``: the file has the types that the label claims, or is refused with those that it has."""
    compute_types.check_label(source, precision, "give a file that is typed so, or convert it: precision.tool=builtin")
    graphs.save(graphs.load(source), target)
    found = compute_types.dtypes(source)
    return Converted(path=target, dtypes=found, notes=(f"typed already: {compute_types.spelled(found)} compute nodes",))


def _copied(source: Path, precision: Precision, found: dict[str, int], target: Path) -> Converted:
    """A user's file that already carries the precision goes through as it is."""
    compute_types.check_label(source, precision)
    graphs.save(graphs.load(source), target)
    return Converted(path=target, dtypes=found, notes=(f"{source.name} was {precision.dtype} already: not converted",))
