"""Runs a record's command and keeps what the binary said beside what sweep measured.

The record stays as it is: it is what was measured then. What is kept goes to ``<sweep>/parity/<key>.json`` and ``.log``
(decision 10).
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
from sweep.system.atomic_files import write_atomic

if TYPE_CHECKING:
    from pathlib import Path

    from sweep.cli.trtexec.command import Command
    from sweep.cli.trtexec.output_parser import Summary
    from sweep.spec import JsonDict
    from sweep.storage.record import Record

SCHEMA = 1
_ECHOED = (("Data transfers", "transfers", True), ("CUDA Graph", "cuda_graph", False))
_NO_ENQUEUE = "sweep does not time the enqueue alone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """How the binary is run.

    Attributes:
        binary: absolute path of the executable.
        arguments: its arguments.
        log: file for what it prints.
        timeout_s: longest time that it may take.
    """

    binary: str
    arguments: tuple[str, ...]
    log: Path
    timeout_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """One comparison, as ``<sweep>/parity/<key>.json`` holds it; absent knowledge is None.

    Attributes:
        schema: version of this layout.
        key: of the record.
        sweep: its sweep.
        started_at: UTC, ISO 8601.
        wall_s: how long the binary ran.
        binary: its absolute path.
        version: as it said.
        command: executable and arguments.
        env: variables that were set for it.
        throughput_qps: inferences/s, by the binary.
        latency_ms: H2D + compute + D2H on the GPU's clock, by the binary: {min, max, mean, median, p90, ...}.
        gpu_compute_ms: compute alone, by the binary; same form.
        enqueue_ms: host time of an enqueue, by the binary; same form.
        ours: the record's own figures: {throughput_qps, interval_qps, latency_ms, gpu_compute_ms, enqueue_ms}; the
            last three means.
        difference_pct: (binary - ours) / ours x 100, of the throughput and of the means.
        not_compared: {figure: why it has no difference}.
        caveats: what no flag can say, and where the two differ all the same.
        warnings: what the binary warned of.
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
    """The record's figures that stand beside the binary's: inferences/s, and means in ms.

    Raises:
        ConfigError: the record has no closed loop.
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
    """Run the binary and compare.

    Args:
        record: what was measured.
        command: of the record, in the dialect of its version.
        job: how to run it.

    Raises:
        ConfigError: the record has no closed loop.
        ParityError: the binary failed, printed no figures, or did not do what it was asked.
    """
    ours = figures(record)
    started_at = datetime.now(UTC).isoformat(timespec="milliseconds")
    whole = [job.binary, *job.arguments]
    wall_s = binary_process.run(whole, command.env, job.log, job.timeout_s)
    try:
        found = output_parser.parse(job.log.read_text(errors="replace"))
        _hold(record, command, found)
    except ParityError as error:
        raise ParityError(f"{job.binary}: {error}; its output: {job.log}") from error
    differences = _differences(ours, found)
    return Parity(
        key=record.key,
        sweep=record.sweep,
        started_at=started_at,
        wall_s=wall_s,
        binary=job.binary,
        version=found.version,
        command=whole,
        env=dict(command.env),
        throughput_qps=found.throughput_qps,
        latency_ms=found.latency_ms,
        gpu_compute_ms=found.gpu_compute_ms,
        enqueue_ms=found.enqueue_ms,
        ours=ours,
        difference_pct=differences,
        not_compared={name: _why(name) for name, value in differences.items() if value is None},
        caveats=[*_caveats(command, found), *command.notes],
        warnings=list(found.warnings),
    )


def write(parity: Parity, path: Path) -> None:
    """Put it on disk, whole or not at all."""
    write_atomic(path, (json.dumps(dataclasses.asdict(parity), indent=1, allow_nan=False) + "\n").encode())


def _hold(record: Record, command: Command, found: Summary) -> None:
    """Refuse figures of a run that was not what the record asks for: its own words, its version, its graph."""
    spoken = binary_versions.library_version(found.version)
    backend = record.variant["backend"]
    if spoken is not None and binary_versions.of_version(backend, spoken) != (command.dialect,):
        raise ParityError(
            f"it is {found.version} and the flags were for {command.dialect.versions}, where they mean other things; "
            f"put {command.dialect.binary} of {record.facts.get('tensorrt')} on PATH"
        )
    if found.ungraphed and flags.realised(record, "cuda_graph", default=False):
        raise ParityError("it ran without the CUDA graph that the record ran with (its capture failed)")
    for echoed, axis, default in _ECHOED:
        asked = bool(flags.realised(record, axis, default=default))
        if command.dialect.rtx and axis == "cuda_graph":  # RTX's own strategy is another switch than trtexec's
            continue
        if found.echo.get(echoed, asked) != asked:
            said = "Enabled" if found.echo[echoed] else "Disabled"
            raise ParityError(f"it says {echoed}: {said}, and the record ran with {axis}={str(asked).lower()}")


def _caveats(command: Command, found: Summary) -> list[str]:
    lines = []
    spoken = binary_versions.library_version(found.version)
    if spoken is None:
        lines.append("the binary did not say its version")
    elif command.version is not None and spoken[:3] != command.version[:3]:
        recorded = ".".join(map(str, command.version))
        lines.append(f"the binary is of {found.version}, the record of {recorded}")
    return lines


def _differences(ours: JsonDict, found: Summary) -> dict[str, float | None]:
    theirs = {
        "throughput_qps": found.throughput_qps,
        "latency_ms": found.latency_ms["mean"],
        "gpu_compute_ms": found.gpu_compute_ms["mean"],
        "enqueue_ms": None if found.enqueue_ms is None else found.enqueue_ms["mean"],
    }
    return {name: _percent(value, ours[name]) for name, value in theirs.items()}


def _percent(theirs: float | None, ours: float | None) -> float | None:
    return None if theirs is None or not ours else (theirs - ours) / ours * 100


def _why(name: str) -> str:
    return _NO_ENQUEUE if name == "enqueue_ms" else "the record has no GPU times"


def table(parity: Parity) -> Table:
    """The figures side by side."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    made.add_column("")
    for name in ("sweep", escape(f"{parity.binary.rpartition('/')[2]} {parity.version or ''}".strip()), "difference"):
        made.add_column(name, justify="right")
    rows = (
        ("Throughput, inferences/s", "throughput_qps", parity.throughput_qps),
        ("Latency, mean ms", "latency_ms", parity.latency_ms["mean"]),
        ("GPU Compute Time, mean ms", "gpu_compute_ms", parity.gpu_compute_ms["mean"]),
        ("Enqueue Time, mean ms", "enqueue_ms", (parity.enqueue_ms or {}).get("mean")),
    )
    for label, name, theirs in rows:
        difference = parity.difference_pct[name]
        shown = "-" if difference is None else f"{difference:+.2f}%"
        made.add_row(label, _figure(parity.ours[name]), _figure(theirs), shown)
    return made


def _figure(value: Any) -> str:
    return "-" if value is None else f"{value:,.6g}"
