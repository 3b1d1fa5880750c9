"""Run a record's command and write the binary's figures beside those of the record.

The record stays as it is: it holds what was measured then. The comparison goes to ``<sweep>/parity/<key>.json``, the
output to ``.log`` beside it (decision 10).
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich import box
from rich.markup import escape
from rich.table import Table

from sweep.cli.trtexec import binary_process, binary_versions, flags, output_parser
from sweep.errors import ConfigError, ParityError
from sweep.system import regular_files, write_atomic

if TYPE_CHECKING:
    from pathlib import Path

    from sweep.cli.trtexec.command import Command
    from sweep.cli.trtexec.output_parser import Summary
    from sweep.spec import JsonDict
    from sweep.storage import Record

SCHEMA = 1
_ECHOED = (("Data transfers", "transfers", True), ("CUDA Graph", "cuda_graph", False))
_NO_ENQUEUE = "sweep does not time the enqueue alone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Describe one run of the binary.

    Attributes:
        binary: absolute path of the executable.
        arguments: arguments of the binary.
        log: file for what it prints.
        timeout_s: longest run, s.
    """

    binary: str
    arguments: tuple[str, ...]
    log: Path
    timeout_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """Hold one comparison, as in ``<sweep>/parity/<key>.json``; unknown figures are None.

    Attributes:
        schema: version of this layout.
        key: key of the record.
        sweep: name of its sweep.
        started_at: UTC, ISO 8601.
        wall_s: wall time of the binary, s.
        binary: absolute path of the binary.
        version: as the binary printed it.
        command: executable and arguments.
        env: variables that were set for the binary.
        throughput_qps: inferences/s, by the binary.
        latency_ms: H2D + compute + D2H on the GPU's clock, by the binary: {min, max, mean, median, p90, ...}.
        gpu_compute_ms: compute alone, by the binary; same form.
        enqueue_ms: host time of an enqueue, by the binary; same form.
        ours: the record's own figures: {throughput_qps, interval_qps, latency_ms, gpu_compute_ms, enqueue_ms}; the
            last three means.
        difference_pct: (binary - ours) / ours x 100, of the throughput and of the means.
        not_compared: {figure: why it has no difference}.
        caveats: differences that no flag can express.
        warnings: those of the binary.
    """

    schema: int = SCHEMA
    key: str
    sweep: str
    started_at: str
    wall_s: float
    binary: str
    version: str | None
    command: list[str]
    env: dict[str, str]
    throughput_qps: float
    latency_ms: dict[str, float]
    gpu_compute_ms: dict[str, float]
    enqueue_ms: dict[str, float] | None
    ours: JsonDict
    difference_pct: dict[str, float | None]
    not_compared: dict[str, str]
    caveats: list[str]
    warnings: list[str]


def figures(record: Record) -> JsonDict:
    """Return the record's figures that are compared with the binary's: inferences/s, and means in ms.

    Raises:
        ConfigError: if the record has no closed loop.
    """
    peak = record.peak
    if peak is None or peak.get("ips") is None:
        raise ConfigError(
            f"record {record.key} ({record.status}) has no closed-loop peak to compare; measure it with load=closed"
        )
    batch = record.variant["batch"]
    gpu, interval = peak.get("gpu_ms"), peak["interval"]
    timed = {"h2d": gpu["h2d"], "compute": gpu["compute"], "d2h": gpu["d2h"]} if gpu else {}
    parts = {name: part["mean"] or 0.0 for name, part in timed.items() if part}
    return {
        "throughput_qps": peak["ips"] / batch,
        "interval_qps": [end / batch for end in interval] if interval else None,
        "latency_ms": sum(parts.values()) if "compute" in parts else None,
        "gpu_compute_ms": parts.get("compute"),
        "enqueue_ms": None,
    }


def measure(record: Record, command: Command, job: Job) -> Parity:
    """Run the binary and compare its figures with the record's.

    Args:
        record: record of the variant.
        command: command of the record, in the dialect of its version.
        job: the run of the binary.

    Raises:
        ConfigError: if the record has no closed loop.
        ParityError: if the binary failed, printed no figures, or ran with other settings than the record.
    """
    ours = figures(record)
    started_at = datetime.now(UTC).isoformat(timespec="milliseconds")
    arguments = [job.binary, *job.arguments]
    wall_s = binary_process.run(arguments, command.env, job.log, job.timeout_s)
    try:
        summary = output_parser.parse(regular_files.read_text(job.log, follow=False, errors="replace"))
        _check_settings(record, command, summary)
    except ParityError as error:
        raise ParityError(f"{job.binary}: {error}; its output: {job.log}") from error
    differences = _differences(ours, summary)
    return Parity(
        key=record.key,
        sweep=record.sweep,
        started_at=started_at,
        wall_s=wall_s,
        binary=job.binary,
        version=summary.version,
        command=arguments,
        env=dict(command.env),
        throughput_qps=summary.throughput_qps,
        latency_ms=summary.latency_ms,
        gpu_compute_ms=summary.gpu_compute_ms,
        enqueue_ms=summary.enqueue_ms,
        ours=ours,
        difference_pct=differences,
        not_compared={name: _not_compared_reason(name) for name, value in differences.items() if value is None},
        caveats=[*_caveats(command, summary), *command.notes],
        warnings=list(summary.warnings),
    )


def write(parity: Parity, path: Path) -> None:
    """Write the comparison to `path`, atomically."""
    write_atomic(path, (json.dumps(dataclasses.asdict(parity), indent=1, allow_nan=False) + "\n").encode())


def _check_settings(record: Record, command: Command, summary: Summary) -> None:
    """Raise ParityError if the binary reports another version, graph or option than the record has."""
    version = binary_versions.library_version(summary.version)
    backend = record.variant["backend"]
    if version is not None and binary_versions.of_version(backend, version) != (command.dialect,):
        raise ParityError(
            f"it is {summary.version} and the flags were for {command.dialect.versions}, where they mean other things; "
            f"put {command.dialect.binary} of {record.facts.get('tensorrt')} on PATH"
        )
    if summary.ungraphed and flags.realised(record, "cuda_graph", default=False):
        raise ParityError("it ran without the CUDA graph that the record ran with (its capture failed)")
    for echoed, axis, default in _ECHOED:
        expected = bool(flags.realised(record, axis, default=default))
        if command.dialect.rtx and axis == "cuda_graph":  # RTX's own strategy is another switch than trtexec's
            continue
        if summary.echo.get(echoed, expected) != expected:
            reported = "Enabled" if summary.echo[echoed] else "Disabled"
            raise ParityError(f"it says {echoed}: {reported}, and the record ran with {axis}={str(expected).lower()}")


def _caveats(command: Command, summary: Summary) -> list[str]:
    lines = []
    version = binary_versions.library_version(summary.version)
    if version is None:
        lines.append("the binary did not say its version")
    elif command.version is not None and version[:3] != command.version[:3]:
        recorded = ".".join(map(str, command.version))
        lines.append(f"the binary is of {summary.version}, the record of {recorded}")
    return lines


def _differences(ours: JsonDict, summary: Summary) -> dict[str, float | None]:
    theirs = {
        "throughput_qps": summary.throughput_qps,
        "latency_ms": summary.latency_ms["mean"],
        "gpu_compute_ms": summary.gpu_compute_ms["mean"],
        "enqueue_ms": None if summary.enqueue_ms is None else summary.enqueue_ms["mean"],
    }
    return {name: _percent(value, ours[name]) for name, value in theirs.items()}


def _percent(theirs: float | None, ours: float | None) -> float | None:
    return None if theirs is None or not ours else (theirs - ours) / ours * 100


def _not_compared_reason(name: str) -> str:
    return _NO_ENQUEUE if name == "enqueue_ms" else "the record has no GPU times"


def table(parity: Parity) -> Table:
    """Return a table of the figures side by side."""
    figures_table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    figures_table.add_column("")
    for name in ("sweep", escape(f"{parity.binary.rpartition('/')[2]} {parity.version or ''}".strip()), "difference"):
        figures_table.add_column(name, justify="right")
    rows = (
        ("Throughput, inferences/s", "throughput_qps", parity.throughput_qps),
        ("Latency, mean ms", "latency_ms", parity.latency_ms["mean"]),
        ("GPU Compute Time, mean ms", "gpu_compute_ms", parity.gpu_compute_ms["mean"]),
        ("Enqueue Time, mean ms", "enqueue_ms", (parity.enqueue_ms or {}).get("mean")),
    )
    for label, name, theirs in rows:
        difference = parity.difference_pct[name]
        percent = "-" if difference is None else f"{difference:+.2f}%"
        figures_table.add_row(label, _figure(parity.ours[name]), _figure(theirs), percent)
    return figures_table


def _figure(value: Any) -> str:
    return "-" if value is None else f"{value:,.6g}"
