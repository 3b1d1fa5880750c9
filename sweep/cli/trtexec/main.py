"""``python -m sweep.trtexec RECORD``: the command that measures the same with NVIDIA's binary; ``parity=true`` runs it.

Exit codes: 0 done; 1 the binary ran and gave nothing to compare; 2 nothing could be printed or run; 130 interrupted.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.cli.console import Terminal
from sweep.cli.trtexec import artifact_paths, binary_process, command, parity
from sweep.errors import ConfigError, ParityError, SweepError
from sweep.storage import record
from sweep.system import signals

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.cli.trtexec.artifact_paths import Files
    from sweep.cli.trtexec.command import Command
    from sweep.storage.record import Record

_USAGE = (
    "python -m sweep.cli.trtexec results/SWEEP/records/KEY.json "
    "[parity=true] [binary=/path/to/trtexec] [cache=results/cache] [timeout_s=600]"
)
_LOG_WIDTH = 140  # of a pipe or file, where nothing says how wide it is


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The command line.

    Attributes:
        record: path of the record.
        parity: run the binary and compare.
        binary: of another name or place than PATH's.
        cache: another cache than the one beside the record's sweep.
        timeout_s: longest time that the binary may take.
    """

    record: Path
    parity: bool = False
    binary: str | None = None
    cache: Path | None = None
    timeout_s: float = 600.0


def read(arguments: Sequence[str]) -> Asked:
    """``RECORD key=value ...`` -> what was asked.

    Raises:
        ConfigError: no record or several, an unknown key, or a value that the key does not take.
    """
    paths = [word for word in arguments if "=" not in word or Path(word).exists()]
    if len(paths) != 1:
        raise ConfigError(f"give one record, not {len(paths)}: {_USAGE}")
    asked = Asked(record=Path(paths[0]))
    for word in arguments:
        if word not in paths:
            asked = _with(asked, *word.split("=", 1))
    return asked


def _with(asked: Asked, key: str, value: str) -> Asked:
    if key == "parity":
        if value not in {"true", "false"}:
            raise ConfigError(f"parity={value}: true or false")
        return replace(asked, parity=value == "true")
    if key == "timeout_s":
        return replace(asked, timeout_s=_seconds(value))
    if key in {"binary", "cache"} and value:
        return replace(asked, binary=value) if key == "binary" else replace(asked, cache=Path(value))
    raise ConfigError(f"{key}={value}: no such key or no value; {_USAGE}")


def _seconds(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ConfigError(f"timeout_s={value}: give seconds above 0")
    return seconds


def run(arguments: Sequence[str]) -> int:
    """Do what the command line asks; the exit code."""
    if not arguments or set(arguments) & {"-h", "--help"}:
        sys.stdout.write(f"{__doc__}\n{_USAGE}\n")
        return 0 if arguments else 2
    try:
        asked = read(arguments)
        found = record.read(asked.record)
        here = artifact_paths.find(found, asked.record, asked.cache)
        commands = command.make(found, here)
        if asked.parity:
            return _compare(asked, found, here, commands)
        sys.stdout.write("\n".join(command.printed(found, here, each) for each in commands))
    except SweepError as error:
        sys.stderr.write(f"sweep.cli.trtexec: {error}\n")
        return 1 if isinstance(error, ParityError) else 2
    return 0


def _compare(asked: Asked, found: Record, here: Files, commands: Sequence[Command]) -> int:
    if len(commands) != 1:
        raise ConfigError(f"record {found.key} does not say its library's version, so there is no one command to run")
    made = commands[0]
    binary = binary_process.locate(made.dialect.binary, asked.binary)
    kept = asked.record.resolve().parent.parent / "parity" / found.key
    job = parity.Job(
        binary=binary,
        arguments=made.choose(here),
        log=kept.with_suffix(".log"),
        timeout_s=asked.timeout_s,
    )
    result = parity.measure(found, made, job)
    parity.write(result, kept.with_suffix(".json"))
    console = Terminal()
    if not console.is_terminal:
        console.width = max(console.width, _LOG_WIDTH)
    console.print(parity.table(result))
    for line in (*result.caveats, *result.warnings):
        console.print(f"note: {line}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"parity   {kept.with_suffix('.json')}", markup=False, highlight=False, soft_wrap=True)
    return 0


def main() -> None:
    """Run the command line; always ends the process with its exit code."""
    try:
        sys.exit(run(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(signals.EXIT_CODE)


if __name__ == "__main__":
    main()
