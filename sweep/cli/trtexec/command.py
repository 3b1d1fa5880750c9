"""A record -> the commands that measure the same thing with NVIDIA's binary."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweep.cli.trtexec import artifact_paths, binary_versions, flags, shape_flags
from sweep.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sweep.cli.trtexec.artifact_paths import Files
    from sweep.cli.trtexec.binary_versions import Dialect
    from sweep.models import TensorSpec
    from sweep.storage.record import Record

FIGURES = (
    "compare: Throughput (qps) with peak.ips / batch",
    "compare: GPU Compute Time with peak.gpu_ms.compute (mean; median with p50)",
    "compare: Latency (mean) with the sum of peak.gpu_ms's means, never with peak.latency_ms, which queues",
    "compare: Enqueue Time with nothing: sweep does not time the enqueue alone",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One record in one dialect.

    Attributes:
        dialect: the binary and its defaults.
        version: of the library that made the record; None where it is not recorded.
        env: variables to set for it.
        load: arguments that run the engine which was timed; None where the record names none.
        build: arguments that build from the typed ONNX and run.
        notes: what no flag can say.
        shapes_unknown: why the inputs' shapes are missing; None where they are not.
    """

    dialect: Dialect
    version: tuple[int, ...] | None
    env: Mapping[str, str]
    load: tuple[str, ...] | None
    build: tuple[str, ...]
    notes: tuple[str, ...]
    shapes_unknown: str | None

    def choose(self, found: Files) -> tuple[str, ...]:
        """The arguments that this machine has the file for: the engine itself, else a build.

        Raises:
            ConfigError: neither file is here, or the inputs' shapes are not known.
        """
        if self.shapes_unknown is not None:
            raise ConfigError(f"--parity needs the inputs' shapes: {self.shapes_unknown}")
        if self.load is not None and found.has_engine:
            return self.load
        if found.has_onnx:
            return self.build
        raise ConfigError(
            f"--parity needs {found.engine or found.onnx} or {found.onnx} and neither is there; "
            f"--cache DIR names another cache, or make them: {found.advice}"
        )


def make(record: Record, found: Files) -> tuple[Command, ...]:
    """The commands of ``record``: one, or one per dialect where it does not say its library's version.

    Raises:
        ConfigError: its backend has no such binary, or its version is older than the binaries known here.
    """
    backend = record.variant.get("backend")
    if backend not in binary_versions.DIALECTS:
        raise ConfigError(
            f"record {record.key} is of backend {backend}, which has no trtexec; "
            f"give a record of {' or '.join(binary_versions.DIALECTS)}"
        )
    said = record.facts.get("tensorrt")
    version = binary_versions.library_version(said)
    known = binary_versions.of_version(backend, version)
    if not known:
        raise ConfigError(
            f"record {record.key} is of {said}; flags are known from TensorRT 10.0 and TensorRT-RTX 1.0 on"
        )
    try:
        specs, problem = shape_flags.dynamic(artifact_paths.model(record)), None
    except (ModelError, ConfigError) as error:
        specs, problem = (), str(error)
    return tuple(_one(record, found, each, specs, problem) for each in known)


def _one(record: Record, found: Files, spoken: Dialect, specs: Sequence[TensorSpec], problem: str | None) -> Command:
    run = flags.run_flags(record, spoken, specs)
    build = [f"--onnx={found.onnx}", *flags.build_flags(record, spoken, specs), *run]
    return Command(
        dialect=spoken,
        version=binary_versions.library_version(record.facts.get("tensorrt")),
        env=flags.environment(record),
        load=None if found.engine is None else (f"--loadEngine={found.engine}", *run),
        build=tuple(build),
        notes=tuple(flags.inexpressible(record, spoken)),
        shapes_unknown=problem,
    )


def printed(record: Record, found: Files, command: Command) -> str:
    """Return the text of one command: comments, then lines for a shell."""
    facts = record.facts
    gpu = facts.get("gpu") or "an unknown GPU"
    lines = [
        f"# {record.variant['label']}: {facts.get('tensorrt') or 'an unknown version'} on {gpu}",
        f"# flags for {command.dialect.binary} of {command.dialect.versions}",
        *(f"# {note}" for note in command.notes),
        *(f"# {figure}" for figure in FIGURES),
    ]
    if command.shapes_unknown is not None:
        batch = record.variant["batch"]
        lines.append(f"# add --shapes=NAME:{batch}x... of each dynamic input: {command.shapes_unknown}")
    if not (found.has_engine and found.has_onnx):
        lines.append(f"# files that are not there are made, on the record's machine, by: {found.advice}")
    if command.load is not None:
        lines += ["", f"# the engine that was timed{_state(here=found.has_engine)}", shell(command, command.load)]
    lines += ["", f"# built anew from the typed ONNX{_state(here=found.has_onnx)}", shell(command, command.build)]
    return "\n".join(lines) + "\n"


def shell(command: Command, arguments: Sequence[str]) -> str:
    """The command for a POSIX shell, one flag a line."""
    head = " ".join([*(f"{name}={shlex.quote(value)}" for name, value in command.env.items()), command.dialect.binary])
    return " \\\n    ".join([head, *(shlex.quote(argument) for argument in arguments)])


def _state(*, here: bool) -> str:
    return "" if here else " (not there)"
