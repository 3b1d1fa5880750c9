"""What the executor costs around building and measuring: planning, simulated sweeps, whole commands, and a resume.

    make bench
    python tests/bench/executor.py --variants 200 --records 20000

Marks: (1) over 24 variants, wall less builds and windows is at most 5% of it, where a variant's windows last as long as
the default load's at the least, and at most 100 ms a variant after its group's first; (2) 1,000 trivial variants end in
under 120 s; (3) 10,000 variants are planned in 2 s of CPU, and 100,000 in 10 s; (4) with 100,000 records, a start knows
what is left within 5 s of CPU, unless none was looked at since it was written. Exit code 1 where a mark is missed.
CPU seconds are shown beside the wall: where they differ much, the machine did other work.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sweep.backends.simulated import Simulated
from sweep.config import compose, variants
from sweep.loadgen.load_curve import point_count
from sweep.runner import plan, resume
from sweep.spec import LoadAxes
from sweep.spec.settings import Settings
from sweep.storage.store import Store
from sweep.system.environment import collect_facts

HERE = Path(__file__).resolve().parent
SHARE, EACH_S, TRIVIAL_S, RESUME_S = 0.05, 0.1, 120.0, 5.0
PLANNED_S = {10_000: 2.0, 100_000: 10.0}  # most CPU seconds, by variants
TRIVIAL = ("load=closed", "load.min_s=0.01", "load.warmup_s=0.01", "load.min_requests=9")


def sweep(folder: Path, *words: str) -> tuple[float, float, list[tuple[float, float]]]:
    """Run a simulated sweep; its wall and CPU seconds, and (end, seconds) of each build and load in the workers."""
    times = folder / "times"
    path = os.pathsep.join([str(HERE / "timing"), str(HERE.parents[1])])
    environment = {**os.environ, "PYTHONPATH": path, "SWEEP_BENCH_TIMES": str(times), "SWEEP_LOCK_DIR": str(folder)}
    command = [sys.executable, "-m", "sweep", "-m", "backend=simulated", "tracking=none", f"results={folder / 'r'}"]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([*command, "name=s", *words], env=environment, check=True, stdout=subprocess.DEVNULL)
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, cpu, [tuple(json.loads(line)[:2]) for line in times.read_text().splitlines()]


def twenty_four(load: str) -> bool:
    """Overhead of 4 groups of 6 variants."""
    with tempfile.TemporaryDirectory() as name:
        words = ("batch=1,2,4,8", "streams=1,2,3,4,5,6", f"load={load}")
        wall, cpu, spent = sweep(Path(name), *words)
        written = sorted(path.stat().st_mtime for path in Path(name).glob("r/s/records/*.json"))
    inside = sum(seconds for _, seconds in spent)
    over = wall - inside
    gaps = [later - earlier for earlier, later in itertools.pairwise(written)]
    own = [
        gap - sum(seconds for end, seconds in spent if earlier < end <= later)
        for gap, (earlier, later) in zip(gaps, itertools.pairwise(written), strict=True)
    ]
    later_ones = sorted(own)[: len(own) - 3]  # the three longest start the worker of the next group
    defaults = LoadAxes(kind=load, points=7 if load == "curve" else None)
    windows = 24 * point_count(defaults) * (defaults.warmup_s + defaults.min_s)
    share, each = over / (over + windows), statistics.median(later_ones)
    good = share <= SHARE and each <= EACH_S
    print(  # noqa: T201 - a command's output
        f"24 variants, load={load}: wall {wall:.1f} s (CPU {cpu:.1f}), builds and windows {inside:.1f} s, "
        f"overhead {over:.1f} s = {share:.1%} beside windows of {windows:.0f} s; "
        f"{each * 1e3:.0f} ms a variant after its group's first{'' if good else '   MISSED'}"
    )
    return good


def trivial(count: int) -> bool:
    """Wall of many variants that measure next to nothing, in 4 groups."""
    depths = ",".join(str(number + 1) for number in range(max(count // 20, 1)))
    with tempfile.TemporaryDirectory() as name:
        wall, cpu, spent = sweep(Path(name), "batch=1,2,4,8", "streams=1,2,3,4,5", f"load.depth={depths}", *TRIVIAL)
    inside = sum(seconds for _, seconds in spent)
    good = wall < TRIVIAL_S
    print(  # noqa: T201 - a command's output
        f"{count} trivial variants: {wall:.1f} s (CPU {cpu:.1f}), {inside:.1f} s of them builds and windows"
        f"{'' if good else '   MISSED'}"
    )
    return good


def planning(count: int, most_s: float) -> bool:
    """CPU seconds and memory of the command that plans `count` variants, none of which has a record."""
    with tempfile.TemporaryDirectory() as name:
        words = [*_grid(count), "plan=true", "tracking=none", f"results={name}"]
        process = subprocess.Popen(
            [sys.executable, "-m", "sweep", *words],
            env={**os.environ, "PYTHONPATH": str(HERE.parents[1])},
            stdout=subprocess.DEVNULL,
        )
        _, status, used = os.wait4(process.pid, 0)
        assert status == 0, status
    spent = used.ru_utime + used.ru_stime
    print(  # noqa: T201 - a command's output
        f"{count} variants planned: {spent:.1f} s of CPU, {used.ru_maxrss / 1024:.0f} MB"
        f"{'' if spent <= most_s else '   MISSED'}"
    )
    return spent <= most_s


def _grid(count: int) -> list[str]:
    """Return the words of a sweep of `count` variants, a multiple of 100."""
    return ["-m", "backend=simulated", f"batch=range(1,{count // 100 + 1})", "streams=range(1,101)"]


def resuming(count: int) -> bool:
    """CPU seconds from a list of variants, all with records, to what is left; without an index and with one."""
    request = compose.read(_grid(count))
    assert request is not None
    listed = list(variants.from_configs(request.configs))
    with tempfile.TemporaryDirectory() as name:
        settings = Settings(name="s", results=Path(name))
        _fill(settings, plan.make(listed))
        seconds = []
        for _ in range(2):
            start = time.process_time()
            made = plan.make(listed)
            keys = time.process_time()
            left = resume.remaining(made, settings, keep_index=True)
            seconds.append((time.process_time() - start, keys - start))
            assert left.todo == [], len(left.todo)
    (cold, _), (warm, keys) = seconds
    print(  # noqa: T201 - a command's output
        f"{count} records, planning a resume: {warm:.1f} s of CPU ({keys:.1f} s of it keys and labels)"
        f"{'' if warm <= RESUME_S else '   MISSED'}; {cold:.1f} s where none was looked at since it was written"
    )
    return warm <= RESUME_S


def _fill(settings: Settings, made: plan.Plan) -> None:
    """Write records of a usual size, made on this machine, and samples that open."""
    record = json.loads(next((HERE.parent / "data" / "records").glob("*.json")).read_text())
    record |= {"key": "KEY", "facts": collect_facts(Simulated().facts())}
    text = json.dumps(record, indent=1)
    (settings.root / "records").mkdir(parents=True)
    (settings.root / "samples").mkdir()
    for work in made.works:
        Store(settings.root).record_path(work.key).write_text(text.replace('"KEY"', f'"{work.key}"'))
        Store(settings.root).samples_path(work.key).write_bytes(b"PK\x05\x06" + bytes(18))


def main() -> int:
    """Run all parts; 1 where a mark is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", type=int, default=1000)
    parser.add_argument("--records", type=int, default=100_000)
    asked = parser.parse_args()
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")  # noqa: T201 - same
    good = [planning(count, most_s) for count, most_s in PLANNED_S.items()]
    good += [twenty_four("closed"), twenty_four("curve"), trivial(asked.variants), resuming(asked.records)]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
