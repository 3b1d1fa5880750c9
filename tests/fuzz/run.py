"""Count how cases end at every door: ``make fuzz ARGS=100000``. Exit code 1 if one broke a promise.

A promise is broken by anything but a result or one line, by a write outside of the case's folder, by a program, a
connection or a pickle, and by more than five seconds. The first content of each kind is kept, to be looked at.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fuzz_doors
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.database import InMemoryExampleDatabase

_MEMORY = 6 << 30  # bytes of address space of a door's process
_BLOCK = 2000  # cases of one Hypothesis run, which remembers them all


def fuzz(door: fuzz_doors.Door, cases: int, seeded: int, kept: Path) -> dict[str, object]:
    """Run the cases of one door and return the counts of their outcomes."""
    counts: Counter[str] = Counter()
    slowest = 0.0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)

        def run_case(content: bytes) -> None:
            nonlocal slowest
            if sum(counts.values()) >= cases:
                return
            began = time.process_time()
            try:
                counts[fuzz_doors.outcome(door, content, folder)] += 1
            except fuzz_doors.FaultError as error:
                name = f"FAULT {error}"
                if name not in counts:
                    kept.mkdir(parents=True, exist_ok=True)
                    (kept / f"{door.name.replace(' ', '-')}-{len(counts)}").write_bytes(content)
                counts[name] += 1
            slowest = max(slowest, time.process_time() - began)

        strategy = fuzz_doors.contents(door)
        block = 0
        while sum(counts.values()) < cases:
            block += 1
            run = settings(
                max_examples=min(_BLOCK, cases - sum(counts.values())),
                database=InMemoryExampleDatabase(),
                deadline=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            seed(seeded * 1000 + block)(run(given(strategy)(run_case)))()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s, most_mib = usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024
    return {"counts": counts, "slowest_s": slowest, "cpu_s": cpu_s, "most_mib": most_mib}


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    """Run every door in a process of its own, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", type=int, nargs="?", default=2000, help="cases of all doors together [2000]")
    parser.add_argument("--door", help="one door alone")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="doors at a time [all cores]")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--kept", type=Path, default=Path("build/fuzz"), help="folder for contents that broke a promise"
    )
    parser.add_argument("--json", action="store_true", help="print the counts of one door as JSON")
    options = parser.parse_args()
    doors = [door for door in fuzz_doors.DOORS if options.door in {None, door.name}]
    if options.json:
        warnings.simplefilter("ignore")
        os.environ["PYTHONWARNINGS"] = "ignore"
        sys.dont_write_bytecode = True
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        result = fuzz(doors[0], options.cases, options.seed, options.kept)
        sys.stdout.write(json.dumps(result) + "\n")
        return 0
    jobs = [(door, options.cases if options.door else max(options.cases * door.share // 1000, 1)) for door in doors]
    common = ["--seed", str(options.seed), "--json", "--kept", str(options.kept)]

    def run_door(job: tuple[fuzz_doors.Door, int]) -> subprocess.CompletedProcess[str]:
        door, cases = job
        words = [sys.executable, __file__, str(cases), "--door", door.name, *common]
        return subprocess.run(words, capture_output=True, text=True, check=False)

    _print("| door | cases | read | refused in one line, by error | faults | slowest, s | memory, MiB | CPU, s |")
    _print("|---|---|---|---|---|---|---|---|")
    with ThreadPoolExecutor(options.jobs) as pool:
        faults = sum(map(_report, jobs, pool.map(run_door, jobs)))
    _print(f"{sum(cases for _, cases in jobs):,} cases, {faults} faults")
    return 1 if faults else 0


def _report(job: tuple[fuzz_doors.Door, int], ended: subprocess.CompletedProcess[str]) -> int:
    """Print the row of one door and return the number of its faults."""
    door, cases = job
    lines = ended.stdout.splitlines()
    if ended.returncode != 0 or not lines:
        _print(f"| {door.name} | {cases} | the process ended with {ended.returncode}: {ended.stderr[-300:]!r} |")
        return 1
    result = json.loads(lines[-1])
    counts: dict[str, int] = result["counts"]
    broken = {name: count for name, count in counts.items() if name.startswith("FAULT")}
    refused = {name: count for name, count in counts.items() if name not in broken and name != "read"}
    errors = ", ".join(f"{name} {count:,}" for name, count in sorted(refused.items()))
    _print(
        f"| {door.name} | {sum(counts.values()):,} | {counts.get('read', 0):,} | {errors or '-'} "
        f"| {sum(broken.values())} "
        f"| {result['slowest_s']:.2f} | {result['most_mib']:.0f} | {result['cpu_s']:.0f} |"
    )
    for name, count in broken.items():
        _print(f"  {count} x {name}")
    return sum(broken.values())


if __name__ == "__main__":
    sys.exit(main())
