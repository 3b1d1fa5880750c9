"""Translate a record into the commands that measure the same with NVIDIA's binary."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweep.cli.trtexec import artifact_paths, binary_versions, flags, shape_flags
from sweep.errors import ConfigError, ModelError, printable_line, shorten

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sweep.cli.trtexec.artifact_paths import Files
    from sweep.cli.trtexec.binary_versions import Dialect
    from sweep.models import TensorSpec
    from sweep.storage import Record

FIGURES = (
    "compare: Throughput (qps) with peak.ips / batch",
    "compare: GPU Compute Time with peak.gpu_ms.compute (mean; median with p50)",
    "compare: Latency (mean) with the sum of peak.gpu_ms's means, never with peak.latency_ms, which queues",
    "compare: Enqueue Time with nothing: sweep does not time the enqueue alone",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """Hold the command of one record in one dialect.

    Attributes:
        dialect: the binary and its defaults.
        version: version of the library that made the record; None if it is not recorded.
        env: variables to set for it.
        load: arguments that run the engine which was timed; None if the record names none.
        build: arguments that build from the typed ONNX and run; None for a plan that was built elsewhere.
        notes: differences that no flag can express.
        shapes_unknown: why the inputs' shapes are missing; None if they are known.
    """

    dialect: Dialect
    version: tuple[int, ...] | None
    env: Mapping[str, str]
    load: tuple[str, ...] | None
    build: tuple[str, ...] | None
    notes: tuple[str, ...]
    shapes_unknown: str | None

    def choose(self, files: Files) -> tuple[str, ...]:
        """Return the arguments whose file exists on this machine: those of the engine, else those of a build.

        Raises:
            ConfigError: if neither file exists, or the inputs' shapes are not known.
        """
        if self.shapes_unknown is not None:
            raise ConfigError(f"--parity needs the inputs' shapes: {self.shapes_unknown}")
        if self.load is not None and files.has_engine:
            return self.load
        if self.build is not None and files.has_onnx:
            return self.build
        if files.onnx is None:
            raise ConfigError(
                f"--parity needs {files.engine}, which was built elsewhere and is not there; copy it back"
            )
        raise ConfigError(
            f"--parity needs {files.engine or files.onnx} or {files.onnx} and neither is there; "
            f"--cache DIR names another cache, or make them: {files.advice}"
        )


def make(record: Record, files: Files) -> tuple[Command, ...]:
    """Return the commands of `record`: one, or one per dialect if it does not name its library's version.

    Raises:
        ConfigError: if its backend has no such binary, or its version is older than every dialect.
    """
    backend = record.variant.get("backend")
    if backend not in binary_versions.DIALECTS:
        raise ConfigError(
            f"record {record.key} is of backend {backend}, which has no trtexec; "
            f"give a record of {' or '.join(binary_versions.DIALECTS)}"
        )
    library = record.facts.get("tensorrt")
    version = binary_versions.library_version(library)
    dialects = binary_versions.of_version(backend, version)
    if not dialects:
        raise ConfigError(
            f"record {record.key} is of {library}; flags are known from TensorRT 10.0 and TensorRT-RTX 1.0 on"
        )
    specs, problem = _dynamic_inputs(record)
    return tuple(_command(record, files, each, specs, problem) for each in dialects)


def _dynamic_inputs(record: Record) -> tuple[tuple[TensorSpec, ...], str | None]:
    """Return the inputs that need a shape on the command line, and why they are not known."""
    if record.variant.get("plan"):
        inputs = (record.engine or {}).get("inputs")
        return ((), "the plan was not loaded") if inputs is None else (shape_flags.of_plan(inputs), None)
    try:
        return shape_flags.dynamic(artifact_paths.model(record)), None
    except (ModelError, ConfigError) as error:
        return (), str(error)


def _command(
    record: Record, files: Files, dialect: Dialect, specs: Sequence[TensorSpec], problem: str | None
) -> Command:
    run = flags.run_flags(record, dialect, specs)
    build = None if files.onnx is None else [f"--onnx={files.onnx}", *flags.build_flags(record, dialect, specs), *run]
    return Command(
        dialect=dialect,
        version=binary_versions.library_version(record.facts.get("tensorrt")),
        env=flags.environment(record),
        load=None if files.engine is None else (f"--loadEngine={files.engine}", *run),
        build=None if build is None else tuple(build),
        notes=tuple(flags.inexpressible(record, dialect)),
        shapes_unknown=problem,
    )


def printed(record: Record, files: Files, command: Command) -> str:
    """Return the text of one command: comments, then lines for a shell."""
    facts = record.facts
    gpu = facts.get("gpu") or "an unknown GPU"
    lines = [
        _comment(f"{record.variant['label']}: {facts.get('tensorrt') or 'an unknown version'} on {gpu}"),
        f"# flags for {command.dialect.binary} of {command.dialect.versions}",
        *map(_comment, command.notes),
        *map(_comment, FIGURES),
    ]
    if command.shapes_unknown is not None:
        batch = record.variant["batch"]
        lines.append(_comment(f"add --shapes=NAME:{batch}x... of each dynamic input: {command.shapes_unknown}"))
    if not (files.has_engine and (files.has_onnx or files.onnx is None)):
        lines.append(_comment(f"files that are not there are made, on the record's machine, by: {files.advice}"))
    if command.load is not None:
        lines += ["", f"# the engine that was timed{_state(exists=files.has_engine)}", shell(command, command.load)]
    if command.build is not None:
        lines += ["", f"# built anew from the typed ONNX{_state(exists=files.has_onnx)}", shell(command, command.build)]
    return "\n".join(lines) + "\n"


def _comment(text: str) -> str:
    """Return `text` as one comment line of a shell: a line feed in a name would make the rest of it a command."""
    return f"# {printable_line(text)}"


def shell(command: Command, arguments: Sequence[str]) -> str:
    """Return the command for a POSIX shell, one flag per line.

    Raises:
        ConfigError: an argument has a character that cannot be printed, such as a terminal's escape.
    """
    for argument in arguments:
        if not argument.isprintable():
            raise ConfigError(f"{printable_line(shorten(argument))} cannot be typed: rename what it names")
    head = " ".join([*(f"{name}={shlex.quote(value)}" for name, value in command.env.items()), command.dialect.binary])
    return " \\\n    ".join([head, *(shlex.quote(argument) for argument in arguments)])


def _state(*, exists: bool) -> str:
    return "" if exists else " (not there)"
