"""Find the nodes that carry the error of a converted graph.

RECORD belongs to a variant with a converted graph (fp16, bf16, int8, fp8 and mixes). Its fp32 graph and its typed graph
run side by side on onnxruntime, with 16-bit rounding emulated, on the inputs that were timed. The table shows for each
node:

  SQNR in, out   SQNR of its worst float input and of its output, as the typed graph carries the error along
  by itself      SQNR of its output if its inputs are those of the fp32 graph: the error that this node causes
  share          its part of the sum of noise over signal (by itself) of all nodes

Exit codes: 0 done; 1 the graphs cannot be made or run; 2 the command is wrong, or the record has no converted graph.
A function that the record names (graph, model.calibration, model.labels) runs only if --allow or SWEEP_ALLOW names it
too, and its source is the one that was measured.

Example:
  sweep bisect results/SWEEP/records/KEY.json --rows 30 --json nodes.json
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.cli import arguments
from sweep.errors import SweepError, printable_line

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    arguments.add_record(parser)
    parser.add_argument(
        "--rows", type=arguments.count, default=15, metavar="N", help="maximum number of rows of the table [15]"
    )
    parser.add_argument(
        "--gate-db",
        type=arguments.decibels,
        metavar="X",
        help="name the first node whose SQNR is below this, dB [the gate of the record's precision]",
    )
    parser.add_argument(
        "--batch", type=arguments.count, default=4, metavar="N", help="maximum number of the timed samples to use [4]"
    )
    parser.add_argument(
        "--cache", type=arguments.folder, metavar="DIR", help="cache folder [the one beside the record's sweep]"
    )
    parser.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="MODULE:FUNCTION",
        help="function of yours that the record names and that may run; more than once for several [SWEEP_ALLOW]",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="file for the figures of all nodes [none]")


def run(options: argparse.Namespace) -> int:
    """Trace the record's graphs and print the nodes; return the exit code."""
    from sweep.cli.bisect import node_table, trace
    from sweep.storage import record_file

    record = record_file.read(options.record)
    variant = trace.of_record(record)
    trace.refuse_functions(variant, options.allow)
    try:
        nodes = trace.trace(variant, trace.cache_root(options.record, options.cache), options.batch)
    except SweepError as error:
        sys.stderr.write(f"sweep bisect: {printable_line(str(error))}\n")
        return 1
    node_table.print_nodes(record, variant, nodes, rows=options.rows, gate_db=options.gate_db)
    if options.json is not None:
        node_table.write_json(nodes, options.json)
    return 0
