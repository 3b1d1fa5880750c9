"""Run the fp32 and the typed graph of a record side by side."""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING

from sweep import precision as typed_onnx
from sweep.errors import ConfigError
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
from sweep.system import from_plain

if TYPE_CHECKING:
    from pathlib import Path

    from sweep.precision import LayerError
    from sweep.storage import Record


def of_record(record: Record) -> Variant:
    """Return the variant of `record` as far as its typed graph and its inputs go.

    Raises:
        ConfigError: if no graph was converted for it.
    """
    axes = record.variant
    precision = from_plain(Precision, axes["precision_recipe"])
    label = axes["label"]
    own_file = precision.path is not None  # beside the fp32 graph of the model
    if precision.dtype == typed_onnx.NATIVE and not own_file:
        raise ConfigError(f"{label}: precision=native is the file as it is, so there is no fp32 graph beside it")
    if typed_onnx.passes_through(precision) and not own_file:
        raise ConfigError(f"{label}: {precision.name} is the fp32 graph itself, no node differs; take a converted one")
    if precision.tool == "none" and not own_file:
        raise ConfigError(f"{label}: precision.tool=none, so there is no fp32 graph to hold the file against")
    search = record.engine.get("node_search") if record.engine else None
    if search is not None:
        precision = dataclasses.replace(precision, keep=tuple(search["keep"]) or None, search=None)
    graph, calibration, load = axes.get("graph"), axes.get("calibration"), axes.get("load") or {}
    labels, samples = load.get("labels"), load.get("samples")
    return Variant(
        backend=axes["backend"],
        onnx=OnnxAxes(
            model=from_plain(ModelRef, axes["model_ref"]),
            precision=precision,
            prune=axes.get("prune"),
            graph=None if graph is None else GraphPass(name=graph, digest=axes.get("graph_digest")),
            calibration=None if calibration is None else from_plain(CalibrationData, calibration),
        ),
        engine=EngineAxes(batch=axes["batch"]),
        load=LoadAxes(
            seed=axes["seed"],
            labels=None if labels is None else from_plain(LabelledData, labels),
            samples=None if samples is None else from_plain(SampleData, samples),
        ),
    )


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
    sys.stderr.write(f"{line}\n")
