"""Networks as people bring them: every ONNX file of a folder, in every precision, through the whole command.

``python tests/bench/bench_files.py FOLDER [--precisions fp32,fp16,bf16,int8] [--batch 2] [--rtx] [--json FILE]``

FOLDER holds ONNX files and wheels; a wheel's ONNX files are taken out of it. Files with the same bytes count once.
Where a file leaves sizes open, the settings that the error message advises are typed, once. ``--rtx`` also builds each
typed graph with TensorRT-RTX, which needs no GPU for it. Prints a line a file, then a Markdown table: what ran, with
the SQNR against fp32, and of what was refused the cause. The exit code is 1 if an outcome has no cause.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shlex
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.storage import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sweep.storage import Record

PRECISIONS = "fp32,fp16,bf16,int8"
LOAD = ("load=closed", "load.warmup_s=0.02", "load.min_s=0.1", "load.min_requests=9", "load.max_s=1", "tracking=none")
ADVICE = re.compile(r"for example (?P<words>.*)$", re.MULTILINE)
BATCH_ADVICE = re.compile(r"(?P<words>\+model\.batch_dim=\S+)")
FIXED_BATCH = re.compile(r"ask for batch=(?P<batch>\d+)")
TIMEOUT_S = 600


@dataclass(kw_only=True)
class Outcome:
    """What became of one file.

    Attributes:
        name: of the file, with its wheel.
        sha256: its first 12 digits.
        settings: what had to be typed beside the path.
        refusal: why nothing was planned; None if it was.
        cells: by precision, the SQNR or the cause.
        engines: by precision, what TensorRT-RTX made of it.
    """

    name: str
    sha256: str
    settings: list[str] = field(default_factory=list)
    refusal: str | None = None
    cells: dict[str, str] = field(default_factory=dict)
    engines: dict[str, str] = field(default_factory=dict)


def files(folder: Path, scratch: Path) -> Iterator[tuple[str, Path]]:
    """Every ONNX file once, with the name that the table gives it."""
    seen = set()
    for path in sorted(folder.rglob("*")):
        found = [(path.stem, path)] if path.suffix == ".onnx" else list(_of_wheel(path, scratch))
        for name, file in found:
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            if digest not in seen:
                seen.add(digest)
                yield name, file


def _of_wheel(path: Path, scratch: Path) -> Iterator[tuple[str, Path]]:
    if path.suffix != ".whl":
        return
    package = path.name.partition("-")[0]
    with zipfile.ZipFile(path) as wheel:
        for inner in wheel.namelist():
            if inner.endswith(".onnx"):
                target = scratch / package / inner
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(wheel.read(inner))
                yield f"{package}: {Path(inner).name}", target


def sweep(results: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command as a user types it."""
    command = [sys.executable, "-m", "sweep", "-m", *words, *LOAD, f"results={results}", "name=files"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)


def settings_for(path: Path, batch: int, results: Path) -> tuple[list[str], str | None]:
    """What has to be typed for a file, as the messages advise it, and the refusal that is left."""
    words = [f"batch={batch}"]
    for pattern in (ADVICE, BATCH_ADVICE, FIXED_BATCH):
        planned = sweep(results, f"model.path={path}", "backend=onnxruntime", *words, "plan=true")
        if planned.returncode == 0:
            return words, None
        advice = pattern.search(planned.stderr)
        if advice is None:
            continue
        if pattern is FIXED_BATCH:
            words[0] = f"batch={advice['batch']}"
        else:
            words += shlex.split(advice["words"])
    planned = sweep(results, f"model.path={path}", "backend=onnxruntime", *words, "plan=true")
    return words, None if planned.returncode == 0 else _line(planned.stderr)


def tried(name: str, path: Path, precisions: list[str], batch: int) -> Outcome:
    """Run one file in every precision."""
    outcome = Outcome(name=name, sha256=hashlib.sha256(path.read_bytes()).hexdigest()[:12])
    with tempfile.TemporaryDirectory() as scratch:
        results = Path(scratch) / "results"
        outcome.settings, outcome.refusal = settings_for(path, batch, results)
        if outcome.refusal is not None:
            return outcome
        swept = ("backend=onnxruntime", f"precision={','.join(precisions)}", f"model.path={path}")
        done = sweep(results, *swept, *outcome.settings)
        records = {str(record.variant["precision"]): record for record in Store(results / "files").readable()}
        for precision in precisions:
            record = records.get(precision)
            outcome.cells[precision] = cell(record) if record else f"no record: {_line(done.stderr)}"
    return outcome


def cell(record: Record) -> str:
    """The SQNR of a variant that ran, the cause of one that did not."""
    if record.error is not None:
        return f"{record.status}: {record.error['stage']}: {_line(record.error['message'])}"
    accuracy = record.accuracy or {}
    sqnr_db, note = accuracy.get("sqnr_db"), accuracy.get("note")
    shown = "no SQNR" if sqnr_db is None else f"{sqnr_db:.1f} dB"
    return shown + (f" ({_line(note)})" if note else "")


def engines(path: Path, outcome: Outcome, precisions: list[str]) -> dict[str, str]:
    """What TensorRT-RTX makes of each typed graph, built without a GPU."""
    from passes import typed_file  # of tests/support

    from sweep.backends import registry
    from sweep.config import compose, variants
    from sweep.errors import SweepError
    from sweep.runner.worker import artifacts
    from sweep.storage.cache import Cache

    ends = {}
    with tempfile.TemporaryDirectory() as scratch:
        cache = Cache(Path(scratch))
        for precision in precisions:
            words = (f"model.path={path}", f"precision={precision}", "backend=tensorrt_rtx", *outcome.settings)
            try:
                request = compose.read(words)
                assert request is not None
                variant = variants.from_config(request.configs[0])
                entry = artifacts.build_engine(variant, registry.get("tensorrt_rtx"), typed_file(variant, cache), cache)
                ends[precision] = (
                    f"{entry.path.stat().st_size and sum(f.stat().st_size for f in entry.path.iterdir()) / 1e6:.1f} MB"
                )
            except SweepError as error:
                ends[precision] = f"{type(error).__name__}: {_line(str(error))}"
    return ends


def _line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1][-300:] if lines else ""


def table(outcomes: list[Outcome], precisions: list[str]) -> str:
    """All outcomes in Markdown."""
    rows = [f"| file | settings | {' | '.join(precisions)} |", "|---" * (len(precisions) + 2) + "|"]
    for outcome in outcomes:
        cells = [outcome.cells.get(name, "") for name in precisions]
        if outcome.refusal is not None:
            cells = [f"refused: {outcome.refusal}", *[""] * (len(precisions) - 1)]
        rows.append(f"| {outcome.name} | {' '.join(outcome.settings)} | {' | '.join(cells)} |".replace("\n", " "))
    return "\n".join(rows)


def main() -> int:
    """Go over the files of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--precisions", default=PRECISIONS)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rtx", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    precisions = options.precisions.split(",")
    outcomes = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, path in files(options.folder, Path(scratch)):
            outcome = tried(name, path, precisions, options.batch)
            if options.rtx and outcome.refusal is None:
                outcome.engines = engines(path, outcome, precisions)
            outcomes.append(outcome)
            sys.stdout.write(json.dumps(asdict(outcome)) + "\n")
            sys.stdout.flush()
    if options.json:
        options.json.write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=1))
    sys.stdout.write(table(outcomes, precisions) + "\n")
    return int(any("no record" in text for outcome in outcomes for text in outcome.cells.values()))


if __name__ == "__main__":
    sys.exit(main())
