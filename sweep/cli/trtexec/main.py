"""Print the command that measures a record's variant with NVIDIA's trtexec or tensorrt_rtx; --parity runs it.

The difference is written to parity/KEY.json in the sweep's folder; the record stays as it is.

Exit codes: 0 done; 1 the binary ran and gave nothing to compare; 2 nothing could be printed or run; 130 interrupted.

Example:
  sweep trtexec results/SWEEP/records/KEY.json --parity --binary /opt/tensorrt/bin/trtexec
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from sweep.cli import arguments, one_network
from sweep.errors import ConfigError, ParityError, printable_line, shorten

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from sweep.cli.trtexec.artifact_paths import Files
    from sweep.cli.trtexec.command import Command
    from sweep.storage import Record

_LOG_WIDTH = 140  # of a pipe or file, where nothing says how wide it is


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    arguments.add_record(parser)
    parser.add_argument("--parity", action="store_true", help="run the binary and write the difference to a file")
    parser.add_argument(
        "--binary",
        type=arguments.filled,
        metavar="PATH",
        help="the binary, or its name on PATH [trtexec or tensorrt_rtx, by the backend]",
    )
    parser.add_argument(
        "--cache", type=arguments.folder, metavar="DIR", help="cache folder [the one beside the record's sweep]"
    )
    parser.add_argument(
        "--timeout-s", type=arguments.seconds, default=600.0, metavar="N", help="time limit of the binary, s [600]"
    )


def run(options: argparse.Namespace) -> int:
    """Print the record's command, or run it and compare; return the exit code."""
    from sweep.cli.trtexec import artifact_paths, command
    from sweep.storage import record_file

    record = record_file.read(options.record)
    one_network.check(record, "trtexec")
    try:
        files = artifact_paths.find(record, options.record, options.cache)
        commands = command.make(record, files)
        text = "\n".join(command.printed(record, files, each) for each in commands)
    except (KeyError, ValueError, TypeError, AttributeError) as error:  # a record of inner values that are none of ours
        reason = printable_line(shorten(f"{type(error).__name__}: {error}"))
        raise ConfigError(f"record {record.key}: no command can be made of its variant ({reason})") from error
    if not options.parity:
        sys.stdout.write(text)
        return 0
    try:
        return _compare(options, record, files, commands)
    except ParityError as error:
        sys.stderr.write(f"sweep trtexec: {printable_line(str(error))}\n")
        return 1


def _compare(options: argparse.Namespace, record: Record, files: Files, commands: Sequence[Command]) -> int:
    from sweep.cli.console import Terminal
    from sweep.cli.trtexec import binary_process, loaded_inputs, parity

    if len(commands) != 1:
        raise ConfigError(f"record {record.key} does not say its library's version, so there is no one command to run")
    (command,) = commands
    binary = binary_process.locate(command.dialect.binary, options.binary)
    outputs = options.record.resolve().parent.parent / "parity" / record.key
    job = parity.Job(
        binary=binary,
        arguments=(*command.choose(files), *loaded_inputs.flags(record, outputs.with_suffix(".inputs"))),
        log=outputs.with_suffix(".log"),
        timeout_s=options.timeout_s,
    )
    result = parity.measure(record, command, job)
    parity.write(result, outputs.with_suffix(".json"))
    console = Terminal()
    if not console.is_terminal:
        console.width = max(console.width, _LOG_WIDTH)
    console.print(parity.table(result))
    for line in (*result.caveats, *result.warnings):
        console.print(f"note: {line}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"parity   {outputs.with_suffix('.json')}", markup=False, highlight=False, soft_wrap=True)
    return 0
