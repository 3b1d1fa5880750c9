"""Run the fp32 and the typed graph of a record side by side."""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING

from sweep import precision as typed_onnx
from sweep.errors import ConfigError, printable, printable_line, shorten
from sweep.models import evaluation
from sweep.runner.worker import artifacts
from sweep.spec import (
    CalibrationData,
    EngineAxes,
    GraphPass,
    LabelledData,
    LoadAxes,
    ModelRef,
    OnnxAxes,
    Precision,
    SampleData,
    Variant,
)
from sweep.storage.cache import Cache
from sweep.system import from_plain, user_code

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from sweep.precision import LayerError
    from sweep.spec import JsonDict
    from sweep.storage import Record

_FUNCTION = "function"  # the kind of data that a user's function gives


def of_record(record: Record) -> Variant:
    """Return the variant of `record` as far as its typed graph and its inputs go.

    Raises:
        ConfigError: if no graph was converted for it, or its variant is not one that this version can make.
    """
    axes, label = record.variant, printable(record.variant["label"])
    try:
        variant = _variant(axes)
    except (KeyError, ValueError, TypeError) as error:  # msgspec's errors are a ValueError
        reason = f"it has no {error}" if isinstance(error, KeyError) else printable(" ".join(str(error).split()))
        raise ConfigError(f"{label}: its record does not say how its graph is made ({shorten(reason)})") from error
    precision = variant.onnx.precision
    own_file = precision.path is not None  # beside the fp32 graph of the model
    if precision.dtype == typed_onnx.NATIVE and not own_file:
        raise ConfigError(f"{label}: precision=native is the file as it is, so there is no fp32 graph beside it")
    if typed_onnx.passes_through(precision) and not own_file:
        raise ConfigError(f"{label}: {precision.name} is the fp32 graph itself, no node differs; take a converted one")
    if precision.tool == "none" and not own_file:
        raise ConfigError(f"{label}: precision.tool=none, so there is no fp32 graph to hold the file against")
    search = record.engine.get("node_search") if record.engine else None
    if search is None:
        return variant
    searched = dataclasses.replace(precision, keep=tuple(search["keep"]) or None, search=None)
    return dataclasses.replace(variant, onnx=dataclasses.replace(variant.onnx, precision=searched))


def _variant(axes: JsonDict) -> Variant:
    graph, calibration, load = axes.get("graph"), axes.get("calibration"), axes.get("load") or {}
    labels, samples = load.get("labels"), load.get("samples")
    return Variant(
        backend=axes["backend"],
        onnx=OnnxAxes(
            model=from_plain(ModelRef, axes["model_ref"]),
            precision=from_plain(Precision, axes["precision_recipe"]),
            prune=axes.get("prune"),
            graph=None if graph is None else GraphPass(name=graph, digest=axes.get("graph_digest")),
            calibration=None if calibration is None else from_plain(CalibrationData, calibration),
        ),
        engine=EngineAxes(batch=from_plain(int, axes["batch"])),
        load=LoadAxes(
            seed=from_plain(int, axes["seed"]),
            labels=None if labels is None else from_plain(LabelledData, labels),
            samples=None if samples is None else from_plain(SampleData, samples),
        ),
    )


def refuse_functions(variant: Variant, allowed: Collection[str]) -> None:
    """Refuse the user's functions that `variant` names and its user does not.

    Args:
        variant: from `of_record`.
        allowed: functions that the command line names, each ``package.module:function``.

    Raises:
        ConfigError: a function is refused.
    """
    graph, calibration, labels = variant.onnx.graph, variant.onnx.calibration, variant.load.labels
    if graph is not None and graph.name != typed_onnx.SIMPLIFY:
        user_code.refuse_recorded("graph", graph.name, graph.digest, allowed)
    if calibration is not None and calibration.kind == _FUNCTION:
        user_code.refuse_recorded("model.calibration", calibration.source, calibration.digest, allowed)
    if labels is not None and labels.kind == _FUNCTION:
        user_code.refuse_recorded("model.labels", labels.source, labels.digest, allowed)


def cache_root(record_path: Path, cache: Path | None) -> Path:
    """Return the cache folder: `cache`, or the one beside the sweep of the record at `record_path`."""
    return cache or record_path.resolve().parents[2] / "cache"


def trace(variant: Variant, root: Path, most_samples: int) -> list[LayerError]:
    """Return the errors of every node of the fp32 graph, in graph order.

    Args:
        variant: from `of_record`.
        root: cache folder; graphs that it lacks are made again.
        most_samples: most samples to take of the inputs that the variant was timed with.

    Raises:
        SweepError: if a graph cannot be made or run.
    """
    feeds = evaluation.feeds(variant, min(variant.engine.batch, most_samples))
    with Cache(root, None, _note) as cache:
        onnx = artifacts.make_onnx(variant, cache)
        return typed_onnx.measure_layer_errors(onnx.rewritten, onnx.typed, variant.onnx.precision, feeds)


def _note(line: str) -> None:
    sys.stderr.write(f"{printable_line(line)}\n")
