"""Rank traced nodes by the error that they make, and print or write them."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

from rich import box
from rich.markup import escape
from rich.table import Table

from sweep.analysis import accuracy_gates
from sweep.cli.console import Terminal
from sweep.errors import printable_line
from sweep.system import atomic_files

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sweep.precision import LayerError
    from sweep.spec import JsonDict, Variant
    from sweep.storage import Record

_WIDTH = 150  # of the table where the terminal does not say


def shares(nodes: Sequence[LayerError]) -> list[float]:
    """Return the share of each node in the noise that all make by themselves, each relative to its signal; 0 to 1."""
    added = [0.0 if math.isnan(node.local_noise_ratio) else node.local_noise_ratio for node in nodes]
    infinite = [math.isinf(value) for value in added]
    if any(infinite):
        return [value / sum(infinite) for value in infinite]
    total = sum(added)
    return [value / total if total else 0.0 for value in added]


def first_below(nodes: Sequence[LayerError], gate_db: float) -> LayerError | None:
    """Return the first node, in graph order, whose output has a lower SQNR than `gate_db`, or None."""
    limit = 10 ** (-gate_db / 10)
    return next((node for node in nodes if node.output_noise_ratio > limit), None)


def print_nodes(
    record: Record, variant: Variant, nodes: Sequence[LayerError], *, rows: int, gate_db: float | None
) -> None:
    """Print the nodes with the largest shares, and which is the first below the gate.

    Args:
        record: record of the variant.
        variant: from `trace.of_record`.
        nodes: every node, in graph order.
        rows: most rows of the table.
        gate_db: SQNR in dB; None takes what the variant's precision has to keep.
    """
    console = Terminal(soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("node")
    table.add_column("op")
    for name in ("SQNR in", "out", "by itself", "share"):
        table.add_column(name, justify="right")
    ranked = sorted(zip(nodes, shares(nodes), strict=True), key=lambda pair: pair[1], reverse=True)
    for node, share in ranked[:rows]:
        cells = (
            _format_db(node.input_noise_ratio),
            _format_db(node.output_noise_ratio),
            _format_db(node.local_noise_ratio),
            f"{share:.1%}",
        )
        table.add_row(escape(printable_line(node.node)), escape(printable_line(node.op)), *cells)
    console.width = max(console.width, _WIDTH)
    console.print(table)
    gate = accuracy_gates.least_db(variant.onnx.precision.dtype) if gate_db is None else gate_db
    console.print(
        f"{printable_line(record.variant['label'])}: {len(nodes)} nodes, {min(len(nodes), rows)} shown, "
        "largest share first.",
        highlight=False,
        markup=False,
    )
    for line in (_gate_line(nodes, gate), _last_line(record, variant, nodes[-1])):
        console.print(printable_line(line), highlight=False, markup=False)


def write_json(nodes: Sequence[LayerError], path: Path) -> None:
    """Write the figures of every node to `path`, a JSON list in graph order."""
    rows = [json_row(node, share) for node, share in zip(nodes, shares(nodes), strict=True)]
    atomic_files.write_atomic(path, (json.dumps(rows, indent=1, allow_nan=False) + "\n").encode())


def json_row(node: LayerError, share: float) -> JsonDict:
    """Return the figures of `node` in dB, None where one is unknown or not finite."""
    ratios = {
        "sqnr_in_db": node.input_noise_ratio,
        "sqnr_out_db": node.output_noise_ratio,
        "sqnr_by_itself_db": node.local_noise_ratio,
    }
    levels = {name: None if math.isnan(ratio) else _db(ratio) for name, ratio in ratios.items()}
    return {
        "node": node.node,
        "op": node.op,
        "tensor": node.tensor,
        **{name: level if level is None or math.isfinite(level) else None for name, level in levels.items()},
        "finite": not any(math.isinf(ratio) for ratio in ratios.values()),
        "share": share,
    }


def _gate_line(nodes: Sequence[LayerError], gate_db: float) -> str:
    below = first_below(nodes, gate_db)
    if below is None:
        return f"No node is below {gate_db:g} dB."
    return f"First below {gate_db:g} dB: {below.node} ({below.op}), {_format_db(below.output_noise_ratio)} dB."


def _last_line(record: Record, variant: Variant, last: LayerError) -> str:
    level = record.accuracy["sqnr_db"] if record.accuracy else None
    line = f"Last node {last.node} ({last.op}): {_format_db(last.output_noise_ratio)} dB"
    if level is None:
        return f"{line}."
    return f"{line}; the record has {level:.1f} dB over all outputs at batch {variant.engine.batch}."


def _db(ratio: float) -> float | None:
    """Return the SQNR in dB of a noise to signal ratio; None if there is no noise."""
    return None if ratio == 0 else (-math.inf if math.isinf(ratio) else -10 * math.log10(ratio))


def _format_db(ratio: float) -> str:
    if math.isnan(ratio):
        return "-"
    level = _db(ratio)
    return "exact" if level is None else "not finite" if math.isinf(level) else f"{round(level, 1) + 0.0:.1f}"
