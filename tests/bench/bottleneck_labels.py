"""Hold what limits each published record of an H200 against what its experiment did (docs/evidence/bottleneck.md).

python tests/bench/bottleneck_labels.py    # prints the tables
"""

from __future__ import annotations

import json
import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from sweep.analysis import Limit, find_bottleneck
from sweep.storage import Record, record_file

RECORDS = Path(__file__).resolve().parents[2] / "results" / "reference" / "h200"
HELD_OUT = ("sharing_all", "sharing", "precisions", "curves", "eager")  # no bound of a rule was chosen on these
GAINED = 1.1


class Row(NamedTuple):
    """A record with its label, and the peaks of others of its sweep over its own."""

    record: Record
    limit: Limit
    graph: float | None  # the same with a CUDA graph
    stream: float | None  # the same with twice the streams, or four times where that is the next
    both: float | None  # with a graph and twice the streams


def rows(sweep: str) -> list[Row]:
    """Return the records of a sweep that have a peak."""
    records = [record_file.read(path) for path in sorted((RECORDS / sweep / "records").glob("*.json"))]
    records = [record for record in records if record.peak is not None and record.peak["ips"]]
    by_axes = {_axes(record.variant): record for record in records}

    def ratio(record: Record, **changes) -> float | None:
        other = by_axes.get(_axes(record.variant | changes))
        return None if other is None else other.peak["ips"] / record.peak["ips"]

    table = []
    for record in records:
        limit = find_bottleneck(record)
        if limit is None:
            continue
        streams, eager = record.variant["streams"], not record.variant["cuda_graph"]
        more = next((gain for by in (2, 4) if (gain := ratio(record, streams=by * streams))), None)
        graph = ratio(record, cuda_graph=True) if eager else None
        both = ratio(record, cuda_graph=True, streams=2 * streams) if eager else None
        table.append(Row(record, limit.limit, graph, more, both))
    return table


def _axes(variant) -> str:
    return json.dumps({name: value for name, value in variant.items() if name != "label"}, sort_keys=True)


def experiment(row: Row) -> float | None:
    """Return what the first experiment of a label gave: a graph, where one stream ran with a second; or streams."""
    if row.limit != Limit.HOST:
        return row.stream
    return row.both if row.record.variant["streams"] == 1 else row.graph


def graph_confusion(table: list[Row]) -> dict[tuple[bool, bool], int]:
    """Count records without a graph and with several streams: (labelled host enqueue, a graph gave a tenth)."""
    counts: dict[tuple[bool, bool], int] = defaultdict(int)
    for row in table:
        if row.graph is not None and row.record.variant["streams"] > 1:
            counts[row.limit == Limit.HOST, row.graph >= GAINED] += 1
    return dict(counts)


def gains(table: list[Row]) -> dict[Limit, list[float]]:
    """Return what the experiment of each label gave, ascending."""
    by_limit: dict[Limit, list[float]] = defaultdict(list)
    for row in table:
        gain = experiment(row)
        if gain is not None:
            by_limit[row.limit].append(gain)
    return {limit: sorted(values) for limit, values in by_limit.items()}


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def _print_gains(name: str, table: list[Row]) -> None:
    _say(f"\n{name}: {len(table)} records\n")
    _say("| label | records | experiment | pairs | median | lowest | highest | a tenth and more |")
    _say("|---|---|---|---|---|---|---|---|")
    measured = gains(table)
    for limit in Limit:
        count, values = sum(row.limit == limit for row in table), measured.get(limit, [])
        if not count:
            continue
        what = "graph (with one stream: and a second)" if limit == Limit.HOST else "next number of streams"
        spread = [f"{statistics.median(values):.2f}", f"{values[0]:.2f}", f"{values[-1]:.2f}"] if values else ["-"] * 3
        share = f"{sum(gain >= GAINED for gain in values)} of {len(values)}"
        _say(f"| {limit} | {count} | {what} | {len(values)} | {' | '.join(spread)} | {share} |")


def main() -> None:
    """Print the tables."""
    matrix = rows("matrix")
    _print_gains("matrix", matrix)
    for network in ("resnet50", "bert_base", "unet", "vit_b16"):
        _print_gains(f"matrix, {network}", [row for row in matrix if row.record.variant["model"] == network])
    _print_gains(", ".join(HELD_OUT), [row for sweep in HELD_OUT for row in rows(sweep)])
    _say("\nwithout a graph, 2 and 4 streams: label against the gain of a graph\n")
    counts = graph_confusion(matrix)
    _say("| | a graph gave a tenth and more | less |\n|---|---|---|")
    for labelled, name in ((True, "host enqueue"), (False, "another label")):
        _say(f"| {name} | {counts.get((labelled, True), 0)} | {counts.get((labelled, False), 0)} |")


if __name__ == "__main__":
    sys.exit(main())
