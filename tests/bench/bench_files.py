"""Networks as people bring them: every ONNX file of a folder, in every precision, through the whole command.

``python tests/bench/bench_files.py FOLDER [--only TEXT,...] [--precisions fp32,fp16,bf16,int8] [--batch 2] [--rtx]
[--json FILE]``

FOLDER holds ONNX files and wheels; a wheel's ONNX files are taken out of it. Files with the same bytes count once.
Where a file leaves sizes open, or takes another batch, the settings that the error message advises are typed; where
it refuses the example's sizes, 256, 512 and 1024.
``--only`` takes the files whose names have one of the texts. ``--rtx`` also builds each typed graph with TensorRT-RTX,
which needs no GPU for it. Prints a line a file, then a Markdown table: what ran, with
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

from sweep.backends import registry
from sweep.config import compose, variants
from sweep.errors import SweepError, shorten
from sweep.runner.worker import artifacts
from sweep.storage import Store
from sweep.storage.cache import Cache

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sweep.spec import Variant
    from sweep.storage import Record

PRECISIONS = "fp32,fp16,bf16,int8"
LOAD = ("load=closed", "load.warmup_s=0", "load.min_s=0.02", "load.min_requests=1", "load.max_s=0.2", "tracking=none")
ADVICE = re.compile(r"for example (?P<words>.*)$", re.MULTILINE)
BATCH_ADVICE = re.compile(r"say which is the batch: (?P<words>.*)$", re.MULTILINE)
FIXED_BATCH = re.compile(r"ask for batch=(?P<batch>\d+)")
OTHER_SIZES = (256, 512, 1024)  # tried where a network refuses the 128 of the example
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


def files(folder: Path, scratch: Path, only: list[str]) -> Iterator[tuple[str, Path]]:
    """Every ONNX file once, with the name that the table gives it; of `only`, those with one of the texts."""
    seen = set()
    for path in sorted(folder.rglob("*")):
        found = [(path.stem, path)] if path.suffix == ".onnx" else list(_of_wheel(path, scratch))
        for name, file in found:
            if not any(text in name for text in only):
                continue
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            if digest not in seen:
                seen.add(digest)
                yield name, file


def _of_wheel(path: Path, scratch: Path) -> Iterator[tuple[str, Path]]:
    if path.suffix != ".whl":
        return
    package, version = path.name.split("-")[:2]
    with zipfile.ZipFile(path) as wheel:
        for inner in wheel.namelist():
            if inner.endswith(".onnx"):
                target = scratch / package / inner
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(wheel.read(inner))
                yield f"{package} {version}: {inner.removeprefix(f'{package}/')}", target


def sweep(results: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command as a user types it."""
    command = [sys.executable, "-m", "sweep", "-m", *words, *LOAD, f"results={results}", "name=files"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)


def settings_for(path: Path, batch: int) -> tuple[list[str], str | None]:
    """What has to be typed for a file, as the messages advise it, and the refusal that is left."""
    words = [f"batch={batch}"]
    for pattern in (ADVICE, BATCH_ADVICE, FIXED_BATCH):
        refusal = refused(path, words)
        if refusal is None:
            return words, None
        advice = pattern.search(refusal)
        if advice is None:
            continue
        if pattern is FIXED_BATCH:
            words[0] = f"batch={advice['batch']}"
        else:
            words += shlex.split(advice["words"])
    return words, refused(path, words)


def refused(path: Path, words: list[str]) -> str | None:
    """The message of the plan; None where the file can be planned."""
    try:
        variant_of(path, "onnxruntime", "fp32", words)
    except SweepError as error:
        return str(error)
    return None


def variant_of(path: Path, backend: str, precision: str, words: list[str]) -> Variant:
    """The variant that the words ask for."""
    request = compose.read((f"model.path={path}", f"backend={backend}", f"precision={precision}", *words))
    assert request is not None
    return variants.from_config(request.configs[0])


def tried(name: str, path: Path, precisions: list[str], batch: int, *, rtx: bool) -> Outcome:
    """Run one file in every precision."""
    outcome = Outcome(name=name, sha256=hashlib.sha256(path.read_bytes()).hexdigest()[:12])
    with tempfile.TemporaryDirectory() as scratch:
        outcome.settings, outcome.refusal = settings_for(path, batch)
        if outcome.refusal is not None:
            return outcome
        results = Path(scratch, "results")
        outcome.cells = cells(path, precisions, outcome.settings, results)
        for size in OTHER_SIZES:
            other = other_settings(outcome, precisions[0], size)
            if other is None:
                break
            outcome.settings, results = other, Path(scratch, f"results{size}")
            outcome.cells = cells(path, precisions, outcome.settings, results)
        if rtx:
            outcome.engines = engines(path, outcome, precisions, results)
    return outcome


def other_settings(outcome: Outcome, precision: str, size: int) -> list[str] | None:
    """What a message of the run advises: the batch that the file takes, or `size` for each size of an example."""
    advice = FIXED_BATCH.search(outcome.cells[precision])
    if advice is not None:
        return [f"batch={advice['batch']}", *outcome.settings[1:]]
    if "yours to choose" not in outcome.cells[precision]:
        return None
    return [re.sub(r"\b(?:128|256|512)\b", str(size), word) if ".shape" in word else word for word in outcome.settings]


def cells(path: Path, precisions: list[str], words: list[str], results: Path) -> dict[str, str]:
    """By precision, the SQNR or the cause."""
    done = sweep(results, "backend=onnxruntime", f"precision={','.join(precisions)}", f"model.path={path}", *words)
    records = {str(record.variant["precision"]): record for record in Store(results / "files").readable()}
    return {
        precision: cell(records[precision]) if precision in records else f"no record: {_line(done.stderr)}"
        for precision in precisions
    }


def cell(record: Record) -> str:
    """The SQNR of a variant that ran, the cause of one that did not."""
    if record.error is not None:
        return f"{record.status}: {record.error['stage']}: {_line(record.error['message'])}"
    if record.accuracy is None:
        return "not compared"
    sqnr_db, notes = (
        record.accuracy.get("sqnr_db"),
        [record.accuracy.get("unknown"), record.accuracy.get("undiagnosed")],
    )
    shown = "exact" if record.accuracy.get("max_abs") == 0 else "unknown" if sqnr_db is None else f"{sqnr_db:.1f} dB"
    note = "; ".join(filter(None, notes))
    return shown + (f" ({_line(note)})" if note else "")


def engines(path: Path, outcome: Outcome, precisions: list[str], results: Path) -> dict[str, str]:
    """What TensorRT-RTX makes of each typed graph, built without a GPU; the typed graphs of the runs are taken."""
    ends = {}
    cache = Cache(results / "cache")
    for precision in precisions:
        try:
            variant = variant_of(path, "tensorrt_rtx", precision, outcome.settings)
            typed = artifacts.make_onnx(variant, cache).typed
            entry = artifacts.build_engine(variant, registry.get("tensorrt_rtx"), typed, cache)
            ends[precision] = f"{sum(file.stat().st_size for file in entry.path.iterdir()) / 1e6:.1f} MB"
        except SweepError as error:
            ends[precision] = f"{type(error).__name__}: {_line(str(error))}"
    return ends


def _line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return shorten(lines[-1]) if lines else ""


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
    parser.add_argument("--only", default="", metavar="TEXT,...")
    parser.add_argument("--precisions", default=PRECISIONS)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rtx", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    precisions = options.precisions.split(",")
    outcomes = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, path in files(options.folder, Path(scratch), options.only.split(",")):
            outcome = tried(name, path, precisions, options.batch, rtx=options.rtx)
            outcomes.append(outcome)
            sys.stdout.write(json.dumps(asdict(outcome)) + "\n")
            sys.stdout.flush()
    if options.json:
        options.json.write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=1))
    sys.stdout.write(table(outcomes, precisions) + "\n")
    return int(any("no record" in text for outcome in outcomes for text in outcome.cells.values()))


if __name__ == "__main__":
    sys.exit(main())
