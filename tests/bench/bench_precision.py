"""Every recipe on every network: converted, built by TensorRT-RTX without a GPU, run on onnxruntime.

``python tests/bench/bench_precision.py [--models a,b] [--recipes a,b] [--tool builtin,modelopt] [--ops a,b] [--batch 2]
[--calibration N] [--cache DIR] [--json FILE]`` prints a line a pair as it is done, then Markdown tables. A pair that
fails has its reason in its line, and the exit code is 1. Conversion counts the calibration of the shipped recipe, 64
samples for int8 and fp8, or of N batches of 8. ``--ops`` takes the place of the recipe's quantize_ops; an empty one
leaves the choice to modelopt. SQNR is against fp32 of the same inputs, with 16-bit rounding emulated; weights and
inputs are random.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import itertools
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import OmegaConf

from sweep import models
from sweep import precision as typed_onnx
from sweep.analysis import accuracy
from sweep.backends import registry
from sweep.config import variants
from sweep.config.schema import PrecisionConfig
from sweep.errors import SweepError
from sweep.runner.worker import artifacts, model_files, reference
from sweep.spec import EngineAxes, ModelRef, OnnxAxes, Precision, Variant
from sweep.storage.cache import Cache

if TYPE_CHECKING:
    from collections.abc import Sequence

CONF = Path(__file__).parents[2] / "conf" / "precision"
RECIPES = ("fp32", "tf32", "fp16", "bf16", "int8", "int8_fp16", "int8_bf16", "fp8", "fp8_fp16", "fp8_bf16")
_MB = 1e6
_TABLES = (
    ("SQNR, dB, on onnxruntime", "sqnr", "{:.0f}"),
    ("Conversion, s", "convert_s", "{:.1f}"),
    ("ONNX, MB", "onnx_mb", "{:.1f}"),
    ("Build by TensorRT-RTX, s", "build_s", "{:.1f}"),
    ("Engine and its listing, MB", "engine_mb", "{:.1f}"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One network in one recipe; None where there is no figure.

    Attributes:
        model: the network.
        recipe: the precision, and ``, modelopt`` where that converted it.
        convert_s: calibration included.
        onnx_mb: of the typed ONNX.
        build_s: TensorRT-RTX's.
        engine_mb: of its engine.
        built: the builder's products by type.
        notes: what the record says of the conversion.
        sqnr: in dB; infinite where the outputs are those of fp32, which JSON has as a word.
        fault: what went wrong.
    """

    model: str
    recipe: str
    convert_s: float | None = None
    onnx_mb: float | None = None
    build_s: float | None = None
    engine_mb: float | None = None
    built: str = ""
    notes: tuple[str, ...] = ()
    sqnr: float | None = None
    fault: str = ""


def main(arguments: Sequence[str]) -> int:
    """Measure and print; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(models.zoo.names()))
    parser.add_argument("--recipes", default=",".join(RECIPES))
    parser.add_argument("--tool", default="builtin")
    parser.add_argument("--ops")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--calibration", type=int)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args(arguments)
    rows = []
    with tempfile.TemporaryDirectory(prefix="sweep-bench-") as folder, Cache(asked.cache or Path(folder)) as cache:
        for model in asked.models.split(","):
            for name, tool in itertools.product(asked.recipes.split(","), asked.tool.split(",")):
                precision = recipe(name, asked.calibration, tool=tool, ops=asked.ops)
                rows.append(measured(model, precision, asked.batch, cache))
                sys.stdout.write(f"{json.dumps(dataclasses.asdict(rows[-1]))}\n")
                sys.stdout.flush()
    sys.stdout.write("".join(table(rows, *kind) for kind in _TABLES))
    if asked.json is not None:
        asked.json.write_text("\n".join(json.dumps(dataclasses.asdict(row)) for row in rows) + "\n")
    return int(any(row.fault for row in rows))


def recipe(name: str, batches: int | None = None, *, tool: str = "builtin", ops: str | None = None) -> Precision:
    """As ``conf/precision`` ships it, but for the tool, the ops and ``batches`` of calibration data."""
    own = {"tool": tool} if ops is None else {"tool": tool, "quantize_ops": list(filter(None, ops.split(",")))}
    values = OmegaConf.merge(OmegaConf.structured(PrecisionConfig), OmegaConf.load(CONF / f"{name}.yaml"), own)
    made = variants.recipe(OmegaConf.to_object(values))
    return dataclasses.replace(made, calibration_batches=batches) if batches and made.calibration_batches else made


def measured(model: str, precision: Precision, batch: int, cache: Cache) -> Row:
    """One pair."""
    ref = ModelRef(name=model, revision=models.zoo.entry(model).revision)
    onnx_axes = OnnxAxes(model=ref, precision=precision)
    asked = Variant(backend="tensorrt_rtx", onnx=onnx_axes, engine=EngineAxes(batch=batch))
    row = Row(model=model, recipe=", ".join(filter(None, (precision.name, precision.tool))))
    try:
        source = model_files.model_file(asked, cache)
        typed, told = artifacts.converted_file(asked, source, cache)
        row = dataclasses.replace(row, convert_s=told.get("convert_s"), onnx_mb=_mb(told.get("onnx_bytes")))
        row = dataclasses.replace(row, notes=tuple(told.get("onnx_notes", ())))
        row = dataclasses.replace(row, sqnr=sqnr(asked, source, typed, cache))
        if importlib.util.find_spec("tensorrt_rtx"):
            entry = artifacts.build_engine(asked, registry.get("tensorrt_rtx"), typed, cache)
            made = ", ".join(f"{kind} {count}" for kind, count in entry.info["precision"].items())
            row = dataclasses.replace(row, build_s=entry.seconds, engine_mb=_mb(entry.bytes), built=made)
    except SweepError as error:
        return dataclasses.replace(row, fault=str(error))
    return row


def _mb(size: float | None) -> float | None:
    return None if size is None else size / _MB


def sqnr(asked: Variant, source: Path, typed: Path, cache: Cache) -> float | None:
    """Of the graph with its 16-bit rounding; None for tf32, which rounds inside a GPU's products."""
    if asked.onnx.precision.dtype == "tf32":
        return None
    feeds = models.draw(models.signature(asked.onnx.model), asked.engine.batch, 0)
    expected = reference.reference_outputs(asked, source, feeds, cache)
    if typed_onnx.passes_through(asked.onnx.precision):
        return float("inf")
    found = accuracy.errors(expected, reference.run(artifacts.emulated_file(asked, typed, cache), feeds))
    if found["nonfinite"]:
        return float("-inf")
    return float("inf") if found["sqnr_db"] is None else float(found["sqnr_db"])


def table(rows: Sequence[Row], title: str, field: str, form: str) -> str:
    """One figure as a Markdown table, recipes down, networks across."""
    names = list(dict.fromkeys(row.model for row in rows))
    lines = [f"| {title} | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    cells = {(row.recipe, row.model): getattr(row, field) for row in rows}
    for name in dict.fromkeys(row.recipe for row in rows):
        shown = (cells.get((name, model)) for model in names)
        lines.append(f"| {name} | {' | '.join('-' if value is None else form.format(value) for value in shown)} |")
    return "\n" + "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
