"""``python -m sweep.cli.bisect RECORD [rows=15] [gate_db=20] [batch=4] [cache=DIR] [json=FILE]``: which nodes err.

RECORD is results/SWEEP/records/KEY.json of a variant with a converted graph (fp16, bf16, int8, fp8 and mixes). Its fp32
and its typed graph run side by side on onnxruntime, 16-bit rounding emulated, on the inputs that the variant was timed
with, 4 samples of them unless it had fewer. For each node:

  SQNR in, out   of its worst float input and of its output, as the typed graph carries the error along
  by itself      of its output when its inputs are the fp32 graph's own: the error that this node makes
  share          of that noise in the sum over all nodes, each against its own signal

Exit codes: 0 done; 1 the graphs cannot be had or run; 2 the command is wrong, or the record has no converted graph.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sweep import precision as typed_onnx
from sweep import spec
from sweep.analysis import accuracy_gates
from sweep.errors import ConfigError, RecordError, SweepError
from sweep.models.datasets import evaluation
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
    Variant,
)
from sweep.storage import record as records
from sweep.storage.cache import Cache
from sweep.system import atomic_files
from sweep.system.serialization import from_plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.precision import Traced
    from sweep.storage.record import Record

_WIDTH = 150  # of the table where the terminal does not say


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The command line.

    Attributes:
        path: of the record.
        rows: of the table, at most.
        gate_db: the first node below it is named; None takes what the record's type has to keep.
        batch: samples, at most.
        cache: root of the cache; None for the one beside the record's sweep.
        json: file for all nodes; None writes none.
    """

    path: Path
    rows: int = 15
    gate_db: float | None = None
    batch: int = 4
    cache: Path | None = None
    json: Path | None = None


def main(arguments: Sequence[str]) -> int:
    """Trace and report; the exit code."""
    if not arguments or any(word.startswith("-") for word in arguments):
        sys.stderr.write(__doc__ or "")
        return 2
    try:
        asked = _asked(arguments)
        found = records.read(asked.path)
        variant = of_record(found)
    except (ConfigError, RecordError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    try:
        traced = trace(variant, asked)
    except SweepError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    _report(found, variant, traced, asked)
    return 0


def _asked(arguments: Sequence[str]) -> Asked:
    paths = [word for word in arguments if "=" not in word]
    given = dict(word.split("=", 1) for word in arguments if "=" in word)
    kinds: dict[str, Any] = {"rows": int, "gate_db": float, "batch": int, "cache": Path, "json": Path}
    if len(paths) != 1 or set(given) - set(kinds):
        odd = ", ".join([*paths[1:], *sorted(set(given) - set(kinds))]) or "no record"
        raise ConfigError(f"{odd}: give one record and of {', '.join(f'{name}=' for name in kinds)} what you need")
    try:
        values = {name: kinds[name](text) for name, text in given.items()}
    except ValueError as error:
        raise ConfigError(f"{' '.join(arguments)}: {error}") from error
    asked = Asked(path=Path(paths[0]), **values)
    if asked.rows < 1 or asked.batch < 1:
        raise ConfigError(f"rows={asked.rows} batch={asked.batch}: must be 1 or more")
    return asked


def of_record(found: Record) -> Variant:
    """The variant as far as its typed graph and its inputs go.

    Raises:
        ConfigError: no graph was converted for it.
    """
    kept = found.variant
    precision = from_plain(Precision, kept["precision_recipe"])
    label = kept["label"]
    if typed_onnx.passes_through(precision):
        raise ConfigError(f"{label}: {precision.name} is the fp32 graph itself, no node differs; take a converted one")
    if precision.tool == "none":
        raise ConfigError(f"{label}: precision.tool=none, so there is no fp32 graph to hold the file against")
    graph, calibration, labels = kept.get("graph"), kept.get("calibration"), (kept.get("load") or {}).get("labels")
    return Variant(
        backend=kept["backend"],
        onnx=OnnxAxes(
            model=from_plain(ModelRef, kept["model_ref"]),
            precision=precision,
            prune=kept.get("prune"),
            graph=None if graph is None else GraphPass(name=graph, digest=kept.get("graph_digest")),
            calibration=None if calibration is None else from_plain(CalibrationData, calibration),
        ),
        engine=EngineAxes(batch=kept["batch"]),
        load=LoadAxes(seed=kept["seed"], labels=None if labels is None else from_plain(LabelledData, labels)),
    )


def trace(variant: Variant, asked: Asked) -> list[Traced]:
    """Every node of the fp32 graph with its errors; what the cache lacks is made again."""
    root = asked.cache or asked.path.resolve().parents[2] / "cache"
    feeds = evaluation.feeds(variant, min(variant.engine.batch, asked.batch))
    with Cache(root, None, _note) as cache:
        onnx = artifacts.make_onnx(variant, cache)
        return typed_onnx.traced(onnx.passed, onnx.typed, variant.onnx.precision, feeds)


def _note(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _db(ratio: float) -> float | None:
    """SQNR of a noise to signal ratio; None where there is no noise."""
    return None if ratio == 0 else (-math.inf if math.isinf(ratio) else -10 * math.log10(ratio))


def _shown(ratio: float) -> str:
    if math.isnan(ratio):
        return "-"
    level = _db(ratio)
    return "exact" if level is None else "not finite" if math.isinf(level) else f"{round(level, 1) + 0.0:.1f}"


def shares(traced: Sequence[Traced]) -> list[float]:
    """Of the noise that all nodes make by themselves, each relative to its own signal, what each makes; 0 to 1."""
    made = [0.0 if math.isnan(item.added) else item.added for item in traced]
    infinite = [math.isinf(value) for value in made]
    if any(infinite):
        return [value / sum(infinite) for value in infinite]
    total = sum(made)
    return [value / total if total else 0.0 for value in made]


def first_below(traced: Sequence[Traced], gate_db: float) -> Traced | None:
    """The first node, in graph order, whose output stands under the gate."""
    limit = 10 ** (-gate_db / 10)
    return next((item for item in traced if item.carried > limit), None)


def _report(found: Record, variant: Variant, traced: Sequence[Traced], asked: Asked) -> None:
    parts = shares(traced)
    ranked = sorted(zip(traced, parts, strict=True), key=lambda pair: pair[1], reverse=True)
    console = Console(soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name, side in (("node", "left"), ("op", "left"), ("SQNR in", "right"), ("out", "right")):
        table.add_column(name, justify=side)  # type: ignore[arg-type]  # one of rich's own words
    table.add_column("by itself", justify="right")
    table.add_column("share", justify="right")
    for item, share in ranked[: asked.rows]:
        cells = (_shown(item.carried_in), _shown(item.carried), _shown(item.added), f"{share:.1%}")
        table.add_row(escape(item.node), item.op, *cells)
    console.width = max(console.width, _WIDTH)
    console.print(table)
    for line in _lines(found, variant, traced, asked):
        console.print(line, highlight=False, markup=False)
    if asked.json is not None:
        rows = [_row(item, share) for item, share in zip(traced, parts, strict=True)]
        atomic_files.write_atomic(asked.json, (json.dumps(rows, indent=1, allow_nan=False) + "\n").encode())


def _lines(found: Record, variant: Variant, traced: Sequence[Traced], asked: Asked) -> list[str]:
    gate_db = accuracy_gates.least_db(variant.onnx.precision.dtype) if asked.gate_db is None else asked.gate_db
    below, last = first_below(traced, gate_db), traced[-1]
    told = (found.accuracy or {}).get("sqnr_db")
    said = "" if told is None else f"; the record has {told:.1f} dB over all outputs at batch {variant.engine.batch}"
    kept = f"No node is below {gate_db:g} dB."
    named = f"First below {gate_db:g} dB: {below.node} ({below.op}), {_shown(below.carried)} dB." if below else kept
    return [
        f"{found.variant['label']}: {len(traced)} nodes, {min(len(traced), asked.rows)} shown, largest share first.",
        named,
        f"Last node {last.node} ({last.op}): {_shown(last.carried)} dB{said}.",
    ]


def _row(item: Traced, share: float) -> spec.JsonDict:
    levels = {"sqnr_in_db": item.carried_in, "sqnr_out_db": item.carried, "sqnr_by_itself_db": item.added}
    known = {name: None if math.isnan(ratio) else _db(ratio) for name, ratio in levels.items()}
    finite = {name: value if value is None or math.isfinite(value) else None for name, value in known.items()}
    told = {"finite": not any(math.isinf(value) for value in levels.values()), "share": share}
    return {"node": item.node, "op": item.op, "tensor": item.tensor, **finite, **told}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
