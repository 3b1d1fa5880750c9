"""Type the tables inside a record, with the unit and the bounds of every field.

``record_file.read`` checks each record against these types, so that code which takes a value out of a record needs no
check of its own. A key that is ``NotRequired`` is missing in records that an earlier version wrote. None means
that the value is unknown, never zero. A table may hold further keys, which a newer version wrote: they are kept when
the record is rewritten, and nothing reads them.
"""

from __future__ import annotations

from typing import Any

from sweep.storage.record_types.accuracy import (
    Accuracy,
    AccuracyFigures,
    ExpectedAccuracy,
    RepeatedAccuracy,
    Score,
    SearchedAccuracy,
)
from sweep.storage.record_types.curve import (
    Batching,
    ClientFigures,
    ClosedRate,
    CpuLoad,
    Fairness,
    IssueLag,
    Peak,
    Point,
    Prediction,
    PredictionError,
    Shaped,
    ShapeFigures,
    Shared,
    Staged,
    StageFigures,
    StageRest,
)
from sweep.storage.record_types.engine import (
    BesideNetwork,
    BesideWindow,
    Calibration,
    ClientSession,
    EngineInfo,
    EngineStart,
    GraphPassInfo,
    LayerSummary,
    ModelCost,
    NodeSearchInfo,
    PlanInput,
    Realised,
    ShapeChange,
    ShapeEngine,
    StageEngine,
)
from sweep.storage.record_types.environment import Drift, ErrorInfo, Facts
from sweep.storage.record_types.gpu_state import GpuState, Spread
from sweep.storage.record_types.latency import GpuTimes, IndependentCounts, LatencyIntervals, LatencySummary, PartTimes
from sweep.storage.record_types.layers import (
    GraphNode,
    GraphTensor,
    Layer,
    LayerKernel,
    LayerProfile,
    LayerTensor,
    LayerTime,
)
from sweep.storage.record_types.slo import SloProbe, SloResult
from sweep.storage.record_types.values import (
    Bytes,
    Count,
    LatencyInterval,
    Magnitude,
    Milliseconds,
    Number,
    PositiveRate,
    Rate,
    RateInterval,
    Seconds,
    Share,
)
from sweep.storage.record_types.variant import DataFields, LoadFields, PlanFields, RecipeFields, VariantFields

__all__ = [
    "Accuracy",
    "AccuracyFigures",
    "Batching",
    "BesideNetwork",
    "BesideWindow",
    "Bytes",
    "Calibration",
    "ClientFigures",
    "ClientSession",
    "ClosedRate",
    "Count",
    "CpuLoad",
    "DataFields",
    "Drift",
    "EngineInfo",
    "EngineStart",
    "ErrorInfo",
    "ExpectedAccuracy",
    "Facts",
    "Fairness",
    "GpuState",
    "GpuTimes",
    "GraphNode",
    "GraphPassInfo",
    "GraphTensor",
    "IndependentCounts",
    "IssueLag",
    "LatencyInterval",
    "LatencyIntervals",
    "LatencySummary",
    "Layer",
    "LayerKernel",
    "LayerProfile",
    "LayerSummary",
    "LayerTensor",
    "LayerTime",
    "LoadFields",
    "Magnitude",
    "Milliseconds",
    "ModelCost",
    "NodeSearchInfo",
    "Number",
    "PartTimes",
    "Peak",
    "PlanFields",
    "PlanInput",
    "Point",
    "PositiveRate",
    "Prediction",
    "PredictionError",
    "Rate",
    "RateInterval",
    "Realised",
    "RecipeFields",
    "RepeatedAccuracy",
    "Score",
    "SearchedAccuracy",
    "Seconds",
    "ShapeChange",
    "ShapeEngine",
    "ShapeFigures",
    "Shaped",
    "Share",
    "Shared",
    "SloProbe",
    "SloResult",
    "Spread",
    "StageEngine",
    "StageFigures",
    "StageRest",
    "Staged",
    "VariantFields",
    "with_unknown_keys",
]


def with_unknown_keys(typed: Any, raw: Any) -> Any:
    """Return `typed`, which was converted from `raw`, with the keys of `raw` that these types do not have."""
    if typed == raw:  # nearly always; compares in C
        return typed
    if isinstance(typed, dict):
        return {name: with_unknown_keys(typed[name], value) if name in typed else value for name, value in raw.items()}
    if isinstance(typed, list):
        return [with_unknown_keys(typed_item, raw_item) for typed_item, raw_item in zip(typed, raw, strict=True)]
    return typed
