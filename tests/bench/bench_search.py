"""Replay searches on published grids: is the winner within 2%, for which share of the grid's GPU time.

make bench-search ARGS="--replays 200 --jobs 2 --json FILE"
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from search_methods import METHODS, Bench

from sweep.runner.search import OBJECTIVES, replay
from sweep.storage import Store

REFERENCE = Path(__file__).resolve().parents[2] / "results" / "reference" / "h200"
GRIDS = {  # folder, objective
    "matrix": "peak",
    "sharing_all": "peak",
    "precisions": "peak",
}
START_CV = 0.01  # what starts differ by: 8 starts of an engine on an H100 had 0.13% to 5.8%, most below 1%
WITHIN = 0.02


@dataclass(frozen=True)
class Case:
    """Describe a grid: the folder of its records, the model and the objective."""

    folder: str
    model: str
    objective: str

    @property
    def name(self) -> str:
        """Return its name in the table."""
        return f"{self.folder} {self.model} {self.objective}"

    def grid(self) -> dict[str, replay.Published]:
        """Return its variants by key, those of an engine side by side."""
        folder = REFERENCE / self.folder
        records = [r for r in Store(folder).readable() if r.variant.get("model") == self.model]
        items = replay.published(records, (OBJECTIVES[self.objective],))
        order = {engine: n for n, engine in enumerate(dict.fromkeys(item.candidate.engine for item in items))}
        items.sort(key=lambda item: order[item.candidate.engine])
        return {item.candidate.key: item for item in items}


def total_s(grid: dict[str, replay.Published]) -> float:
    """Return the time of the whole grid, s."""
    bench = Bench(grid, math.inf, 0.0, np.random.default_rng(0))
    for key in grid:
        bench.measure(key)
    return bench.spent_s


def replayed(case: Case, method: str, share: float, seeds: range) -> list[tuple[float, float, float | None]]:
    """Return, a replay each, the loss of the answer (1 for none), its share of the grid's time, and its confidence."""
    grid = case.grid()
    whole_s = total_s(grid)
    truth = {key: item.full.scores[0] for key, item in grid.items() if item.full.reason is None}
    best = max(score for score in truth.values() if score is not None)
    rows = []
    for seed in seeds:
        bench = Bench(grid, share * whole_s, START_CV, np.random.default_rng([seed, 1]))
        answer = METHODS[method](bench, OBJECTIVES[case.objective], seed)
        score = truth.get(answer.best) if answer.best is not None else None
        rows.append((1.0 if score is None else 1 - math.exp(score - best), answer.spent_s / whole_s, answer.confidence))
    return rows


def cases(folders: list[str]) -> list[Case]:
    """Return the grids: each model of each folder that has ten variants or more."""
    listed = []
    for folder in folders:
        models: dict[str, int] = {}
        for record in Store(REFERENCE / folder).readable():
            models[str(record.variant.get("model"))] = models.get(str(record.variant.get("model")), 0) + 1
        listed += [Case(folder, model, GRIDS[folder]) for model, count in sorted(models.items()) if count >= 10]
    return listed


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replays", type=int, default=200)
    parser.add_argument("--share", type=float, default=1 / 3, help="budget, as a share of the grid's time")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--grids", nargs="*", default=list(GRIDS))
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    listed = cases(options.grids)
    step = max(options.replays // 8, 1)
    rows: dict[str, dict[str, list[tuple[float, float, float | None]]]] = {}
    with ProcessPoolExecutor(options.jobs) as pool:
        futures = {
            (case, method): [
                pool.submit(replayed, case, method, options.share, range(s, min(s + step, options.replays)))
                for s in range(0, options.replays, step)
            ]
            for case in listed
            for method in options.methods
        }
        for (case, method), parts in futures.items():
            rows.setdefault(case.name, {})[method] = [row for part in parts for row in part.result()]
            _print_row(case.name, method, rows[case.name][method])
    if options.json is not None:
        options.json.write_text(json.dumps({"share": options.share, "rows": rows}, indent=1) + "\n")
    return 0


def _print_row(name: str, method: str, rows: list[tuple[float, float, float | None]]) -> None:
    losses, shares = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    stated = [row[2] for row in rows if row[2] is not None]
    confidence = f"{np.mean(stated):.0%}" if stated else ""
    quantiles = " ".join(f"{value:.1%}" for value in np.quantile(losses, [0.5, 0.9, 1.0]))
    line = f"| {name} | {method} | {np.mean(losses <= WITHIN):.1%} | {quantiles} | {shares.mean():.2f} | {confidence} |"
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
