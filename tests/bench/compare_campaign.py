"""Compare measurements of one machine with each other, and with some in which one variant is truly slower.

Fresh measurements A0, A1, ... of a sweep are each compared with the one before (`sweep compare`, on folders, with
`--fail-on slower=3%`): every comparison has to stay green. Between them the same sweep is measured with a slowdown in
the variants of one batch, and compared with the A before it. Nothing but `sweep` is needed: no network, no MLflow.

    python tests/bench/compare_campaign.py --backend tensorrt_rtx --count 20 --repeats 5 --window 1 --to out \
        model=resnet50 precision=fp16 batch=1,8,32 cuda_graph=true

The same command again goes on where it was stopped. `out` gets campaign.json, campaign.md, and the records. Exit code:
0 all equal measurements are green, 1 one is not, 2 a measurement failed.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import slowdown

HERE = Path(__file__).resolve().parent
GATE = "slower=3%"
SLOWDOWNS = "3,10"
_UNNEEDED = "mlflow,matplotlib,pyarrow"  # what a machine that measures need not have


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One comparison.

    Attributes:
        kind: ``equal``, or the slowdown in per cent, as ``3%``.
        old: name of the earlier measurement.
        new: name of the later one.
        exit_code: of `sweep compare --fail-on slower=3%`.
        told_apart: rows that are slower or faster.
        incomparable: rows that could not be compared, as those whose peak is unsteady.
        rows: number of rows.
        slowed: {ratio, low, high, verdict} of the rows of the slowed batch; of equal ones, of all rows.
    """

    kind: str
    old: str
    new: str
    exit_code: int
    told_apart: int
    incomparable: int
    rows: int
    slowed: list[dict] = field(default_factory=list)


class Campaign:
    """Measure and compare; what is on disk already is not done again.

    Args:
        options: of the command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.folder = options.to.resolve()
        self.seconds: list[float] = []
        self.outcomes: list[Outcome] = []

    def steps(self) -> Iterator[tuple[str, float, str | None]]:
        """Yield (name, slowdown, name of the measurement to compare with), in the order in which they are made."""
        slowdowns = [float(word) / 100 for word in self.options.slowdowns.split(",") if word]
        yield "a0", 0.0, None
        for number in range(1, self.options.count + 1):
            yield f"a{number}", 0.0, f"a{number - 1}"
            if number <= self.options.slow_count:
                for share in slowdowns:
                    yield f"slow{100 * share:g}-{number}", share, f"a{number}"

    def run(self) -> None:
        """Go over the steps until all are made or the time is up."""
        start = time.monotonic()
        for name, share, before in self.steps():
            if not (self.folder / name / "done").exists():
                if self.options.minutes and time.monotonic() - start > 60 * self.options.minutes:
                    return
                self.measure(name, share)
            if before is not None:
                self.outcomes.append(self.compare(before, name, share))
                self.write()

    def environment(self, share: float) -> dict[str, str]:
        """Return the variables of a command: what its workers do slower, and what cannot be imported."""
        paths = [HERE / "slowed", HERE, HERE.parents[1], os.environ.get("PYTHONPATH")]
        variables = {"PYTHONPATH": os.pathsep.join(str(path) for path in paths if path)}
        variables[slowdown.BLOCKED] = self.options.blocked
        if share:
            variables |= {slowdown.SHARE: str(share), slowdown.BATCH: str(self.options.slow_batch)}
        return os.environ | variables

    def measure(self, name: str, share: float) -> None:
        """Measure the sweep into a results folder of its own; only the cache of engines is shared."""
        root, cache = self.folder / name, self.folder / "cache"
        root.mkdir(parents=True, exist_ok=True)
        cache.mkdir(exist_ok=True)
        if not (root / "cache").is_symlink():
            (root / "cache").symlink_to(cache)
        words = [f"backend={self.options.backend}", *self.options.words, f"repeats={self.options.repeats}"]
        words += ["load=closed", f"load.min_s={self.options.window}", f"load.max_s={max(10.0, self.options.window)}"]
        words += ["tracking=none", f"results={root}", f"name={name}"]
        start = time.monotonic()
        with (root / "log").open("a") as log:
            done = subprocess.run(
                [sys.executable, "-m", "sweep", *words],
                env=self.environment(share),
                stdout=log,
                stderr=log,
                check=False,
            )
        if done.returncode:
            tail = (root / "log").read_text()[-2000:]
            raise SystemExit(f"{tail}\nmeasurement {name} ended with {done.returncode}: see {root / 'log'}")
        (root / "done").write_text(f"{time.monotonic() - start:.1f} s\n")
        self.seconds.append(time.monotonic() - start)
        sys.stderr.write(f"{name}: measured in {self.seconds[-1]:.0f} s\n")

    def compare(self, before: str, name: str, share: float) -> Outcome:
        """Compare two measurements by the command that a job would run."""
        old, new = self.folder / before / before, self.folder / name / name
        out = self.folder / name / "compare.json"
        written = (("--json", out), ("--markdown", out.with_suffix(".md")), ("--junit", out.with_suffix(".xml")))
        done = subprocess.run(
            [
                *(sys.executable, "-m", "sweep", "compare", str(old), str(new), "--fail-on", GATE),
                *(str(word) for option in written for word in option),
            ],
            env=self.environment(0.0),
            capture_output=True,
            text=True,
            check=False,
        )
        out.with_suffix(".txt").write_text(done.stdout + done.stderr)
        if done.returncode not in {0, 1}:
            raise SystemExit(f"{done.stderr}\ncomparison of {before} and {name} ended with {done.returncode}")
        rows = json.loads(out.read_text())["rows"]
        slowed = [row for row in rows if not share or f" b{self.options.slow_batch} " in f"{row['variant']} "]
        outcome = Outcome(
            kind=f"{100 * share:g}%" if share else "equal",
            old=before,
            new=name,
            exit_code=done.returncode,
            told_apart=sum(row["verdict"] in {"slower", "faster"} for row in rows),
            incomparable=sum(row["verdict"] == "cannot be compared" for row in rows),
            rows=len(rows),
            slowed=[
                {
                    "variant": row["variant"],
                    "ratio": row["ratio"],
                    "interval": row["ratio_interval"],
                    "verdict": row["verdict"],
                }
                for row in slowed
            ],
        )
        sys.stderr.write(f"{before} against {name} ({outcome.kind}): exit {outcome.exit_code}\n")
        return outcome

    def write(self) -> None:
        """Write what is known so far."""
        request = {name: value for name, value in vars(self.options).items() if name != "to"}
        content = {"request": request, "gate": GATE, "outcomes": [asdict(outcome) for outcome in self.outcomes]}
        (self.folder / "campaign.json").write_text(json.dumps(content, indent=1) + "\n")
        (self.folder / "campaign.md").write_text(table(self.outcomes) + "\n")


def table(outcomes: Sequence[Outcome]) -> str:
    """Return what the comparisons showed, as Markdown."""
    heads = (
        *("injected", "comparisons", "exit 0", "exit 1", "rows told apart"),
        *("slowed row called", "NEW / OLD of it, median", "least to greatest", "its 95% interval, median"),
    )
    lines = [f"| {' | '.join(heads)} |", "|---|--:|--:|--:|--:|--:|--:|--:|--:|"]
    for kind in dict.fromkeys(outcome.kind for outcome in outcomes):
        chosen = [outcome for outcome in outcomes if outcome.kind == kind]
        slowed = [row for outcome in chosen for row in outcome.slowed]
        compared = [row for row in slowed if row["ratio"] is not None]
        bounded = [row for row in compared if None not in row["interval"]]
        ratios, interval = [row["ratio"] for row in compared], "-"
        if bounded:
            low, high = (statistics.median(row["interval"][end] for row in bounded) for end in (0, 1))
            interval = f"{low:.3f} to {high:.3f}"
        called = sum(row["verdict"] == "slower" for row in slowed)
        cells = [
            "nothing" if kind == "equal" else f"{kind} slower",
            str(len(chosen)),
            str(sum(outcome.exit_code == 0 for outcome in chosen)),
            str(sum(outcome.exit_code == 1 for outcome in chosen)),
            f"{sum(outcome.told_apart for outcome in chosen)} of {sum(outcome.rows for outcome in chosen)}"
            + (f", {left} not compared" if (left := sum(outcome.incomparable for outcome in chosen)) else ""),
            "-" if kind == "equal" else f"{called} of {len(slowed)}",
            f"{statistics.median(ratios):.3f}" if ratios else "-",
            f"{min(ratios):.3f} to {max(ratios):.3f}" if ratios else "-",
            interval,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    """Run the campaign of the command line, and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument("--count", type=int, default=20, help="comparisons of equal measurements [20]")
    parser.add_argument("--slow-count", type=int, default=5, help="measurements of each slowdown, at most --count [5]")
    parser.add_argument("--slowdowns", default=SLOWDOWNS, help="per cent by which the throughput falls [3,10]")
    parser.add_argument("--slow-batch", type=int, default=8, help="batch whose variants get slower [8]")
    parser.add_argument("--repeats", type=int, default=5, help="starts of each variant [5]")
    parser.add_argument("--window", type=float, default=1.0, metavar="S", help="shortest measured window, s [1]")
    parser.add_argument("--minutes", type=float, help="begin no measurement after so many minutes")
    parser.add_argument("--blocked", default=_UNNEEDED, help=f"modules that cannot be imported [{_UNNEEDED}]")
    parser.add_argument(
        "--to", type=Path, default=Path("campaign"), metavar="FOLDER", help="folder to write [campaign]"
    )
    parser.add_argument("words", nargs="*", default=[], help="overrides of the sweep [model=digits batch=1,8,32]")
    options = parser.parse_args()
    options.words = options.words or ["model=digits", "batch=1,8,32"]
    options.to.mkdir(parents=True, exist_ok=True)
    campaign = Campaign(options)
    try:
        campaign.run()
    except SystemExit as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(table(campaign.outcomes) + "\n")
    return int(any(outcome.kind == "equal" and outcome.exit_code for outcome in campaign.outcomes))


if __name__ == "__main__":
    sys.exit(main())
