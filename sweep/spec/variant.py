"""One point of all axes, and its short name."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from sweep.spec.engine import EngineAxes
from sweep.spec.load import LoadAxes
from sweep.spec.onnx import OnnxAxes  # noqa: TC001 - ``serialization.from_plain`` reads the types of the fields
from sweep.spec.session import SessionAxes


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One point of the axes: everything that decides a measured curve."""

    backend: str
    onnx: OnnxAxes
    engine: EngineAxes = field(default_factory=EngineAxes)
    session: SessionAxes = field(default_factory=SessionAxes)
    load: LoadAxes = field(default_factory=LoadAxes)

    @property
    def label(self) -> str:
        """Short name for tables and runs, with only the axes that are set: ``tiny_cnn fp16 b8 s2``."""
        parts = [self.onnx.model.name, self.onnx.precision.name, f"b{self.engine.batch}", f"s{self.session.streams}"]
        if self.session.clients != 1:
            parts.append(f"c{self.session.clients}")
        if self.session.mps is not None:
            parts.append(f"mps{self.session.mps}")
        if self.session.sm_count is not None:
            parts.append(f"sm{self.session.sm_count}")
        if self.session.cuda_graph:
            parts.append("graph")
        parts.extend(_made(self.onnx))
        return " ".join([*parts, *_knobs(self.engine, self.session), *_loaded(self.load)])


def _made(onnx: OnnxAxes) -> list[str]:
    """A word for each thing that makes another graph of the same model and precision."""
    words = [] if onnx.graph is None else [onnx.graph.name.rpartition(".")[2]]
    recipe = onnx.precision
    if recipe.calibration_method is not None:
        share = "" if recipe.calibration_percentile is None else f"{recipe.calibration_percentile:g}"
        words.append(f"{recipe.calibration_method}{share}")
    if onnx.calibration is not None:
        words.append(f"calibrated-{PurePath(onnx.calibration.source).name}")
    return words if recipe.tool is None else [*words, "as-it-is" if recipe.tool == "none" else recipe.tool]


def _knobs(engine: EngineAxes, session: SessionAxes) -> list[str]:
    """A word for each axis that is set and that most sweeps leave alone."""
    named: dict[str, Any] = {
        "profile": engine.profile,
        "opt": engine.builder_optimization_level,
        "aux": engine.max_aux_streams,
        "tiling-": engine.tiling,
        "sparsity-": engine.sparsity,
        "workspace": engine.workspace_mib,
        "timing-cache-": engine.timing_cache,
        "verbosity-": engine.profiling_verbosity,
        "version-compatible-": engine.version_compatible,
        "hardware-": engine.hardware_compatibility,
        "refit-": engine.refit,
        "weight-streaming-": engine.weight_streaming,
        "plugins": None if engine.plugins is None else len(engine.plugins),
        "mps-build": engine.mps_build,
        "wait-": session.wait,
        "transfers-": session.transfers,
        "weight-budget": session.weight_streaming_budget_mib,
    }
    switch = {True: "on", False: "off"}
    return [
        f"{word}{switch[value] if isinstance(value, bool) else value}"
        for word, value in named.items()
        if value is not None
    ]


def _loaded(load: LoadAxes) -> list[str]:
    """A word for each load axis that changes what a request is, or whose arrivals are a file's."""
    words = [] if load.batch_wait_ms is None else [f"w{load.batch_wait_ms:g}ms"]
    if load.trace is not None:
        words.append(f"trace-{PurePath(load.trace).stem}")
    return words if load.trace_scale is None else [*words, f"x{load.trace_scale:g}"]
