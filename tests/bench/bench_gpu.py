"""What the Python loops cost against a C loop over the same CUDA graphs, and whether the timers agree.

``make bench-gpu`` runs it on a machine with an NVIDIA GPU; docs/evidence/bench.md says what each figure means.
"""

import argparse
import contextlib
import json
import platform
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import bench_sections
from bench_engines import SPECS, Rig, pick_backend
from bench_report import Row, table
from c_loop import CLoop
from rich.console import Console

from sweep.errors import SweepError

_WIDTH = 170  # of the widest table: a log has no width of its own


@dataclass
class Bench:
    """One run of the bench: what it drives, and what it found so far.

    Attributes:
        rig: gives sessions.
        loop: the compiled C loop.
        settings: run_s, latency_s, pairs.
        console: where tables go.
        json: file that is written after each part; None for none.
        rows: what was found, by section.
        failures: what could not be measured, with its reason.
    """

    rig: Rig
    loop: CLoop
    settings: bench_sections.Settings
    console: Console
    json: Path | None = None
    rows: dict[str, list[Row]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    start: float = field(default_factory=time.perf_counter)

    def run(self, sections: Sequence[str], engines: Sequence[str]) -> None:
        """Measure, print each section's table as it is whole, and keep what was found on disk."""
        for name in sections:
            section = bench_sections.SECTIONS[name]
            self.rows[name] = []
            for engine in section.engines:
                if engine in engines:
                    with self._guarded(f"{name}, {engine}"):
                        self.rows[name] += section.measure(self.rig, self.loop, SPECS[engine], self.settings)
                    self._save()
            if self.rows[name]:
                self.console.print(table(section.title, self.rows[name], section.ours, section.theirs))
        self.console.print(f"took {time.perf_counter() - self.start:.0f} s")

    @contextlib.contextmanager
    def _guarded(self, part: str):
        """A part that fails says why, and the others still run."""
        start = time.perf_counter()
        try:
            yield
        except Exception as error:  # noqa: BLE001 - whatever one part meets, the others are still worth measuring
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            self.failures.append(f"{part}: {reason}")
            self.console.print(f"{part}: not measured: {reason}", markup=False, soft_wrap=True)
        else:
            self.console.print(f"{part}: {time.perf_counter() - start:.1f} s", markup=False)

    def _save(self) -> None:
        if self.json is not None:
            self.json.write_text(json.dumps(self.plain(), indent=1) + "\n")

    def plain(self) -> dict[str, object]:
        """All of it as plain values."""
        return {
            "facts": {**self.rig.facts(), "python": platform.python_version()},
            "settings": asdict(self.settings),
            "rows": {name: [{**asdict(row), "met": row.met} for row in rows] for name, rows in self.rows.items()},
            "failures": self.failures,
            "took_s": time.perf_counter() - self.start,
        }


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 whatever the figures, 1 where something could not be measured."""
    asked = _parser().parse_args(arguments)
    console = Console(width=max(Console().width, _WIDTH))
    settings = bench_sections.Settings(run_s=asked.run_s, latency_s=asked.latency_s, pairs=asked.pairs)
    with tempfile.TemporaryDirectory(prefix="sweep-bench-") as folder:
        try:
            rig = Rig(pick_backend(), Path(folder), asked.width)
            bench = Bench(rig, CLoop(Path(folder)), settings, console, asked.json)
        except (SweepError, OSError) as error:
            console.print(f"bench: cannot measure here: {error}", markup=False, soft_wrap=True)
            return 1
        console.print(", ".join(f"{name} {value}" for name, value in bench.plain()["facts"].items()), soft_wrap=True)
        bench.run(asked.sections, asked.engines)
    if bench.failures:
        console.print(f"bench: {len(bench.failures)} parts could not be measured, see above", markup=False)
    return 1 if bench.failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make bench-gpu ARGS=...", description=__doc__)
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--pairs", type=int, default=5, help="pairs of runs, in alternating order (%(default)s)")
    parser.add_argument("--run-s", type=float, default=0.5, help="seconds of a throughput run (%(default)s)")
    parser.add_argument("--latency-s", type=float, default=0.2, help="seconds of a latency run (%(default)s)")
    parser.add_argument("--width", type=int, default=1024, help="width of the perceptrons (%(default)s)")
    for name, known in (("sections", bench_sections.SECTIONS), ("engines", SPECS)):
        parser.add_argument(f"--{name}", nargs="+", choices=list(known), default=list(known), help="default: all")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
