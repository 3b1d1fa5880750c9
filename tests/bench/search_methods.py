"""Find the best variant of a published grid by other methods, under the same budget and with the same noise.

Each method measures through `Bench`, which counts the time as the published records have it: an engine once, a probe or
a measurement each time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import optuna

from sweep.runner.search import Goal, Search, replay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from sweep.runner.search import Objective

optuna.logging.set_verbosity(optuna.logging.ERROR)
_PROBE_NOISE = 1.5  # times the error of a full window: the window of a probe is about half as long


@dataclass
class Bench:
    """Count the time of one replay, and add the noise of a start to each figure.

    Attributes:
        grid: by key.
        budget_s: time that may be spent, s.
        start_cv: what starts differ by (standard deviation of the log).
        rng: of the noise.
        built: engines so far.
        spent_s: time so far, s.
        scores: score of each full measurement, by key; minus infinity for one that cannot win.
    """

    grid: Mapping[str, replay.Published]
    budget_s: float
    start_cv: float
    rng: np.random.Generator
    built: set[str] = field(default_factory=set)
    spent_s: float = 0.0
    scores: dict[str, float] = field(default_factory=dict)

    def noise(self, item: replay.Published, full: bool) -> float:  # noqa: FBT001 - as `replay.run` calls it
        """Draw the error of a figure: what starts differ by, and the error from within the window."""
        within = min(item.full.error, 0.05) * (1.0 if full else _PROBE_NOISE)
        return float(self.rng.normal(0.0, math.hypot(self.start_cv, within)))

    def cost_s(self, key: str, *, full: bool = True) -> float:
        """Return what a measurement or probe would take now, s."""
        item = self.grid[key]
        engine_s = 0.0 if item.candidate.engine in self.built else item.engine_s
        return engine_s + (item.full.cost_s if full else item.probe_s)

    def measure(self, key: str, *, full: bool = True) -> float | None:
        """Measure; return the score, minus infinity where it cannot win, None where the budget does not allow it."""
        if full and key in self.scores:
            return self.scores[key]
        if self.spent_s + self.cost_s(key, full=full) > self.budget_s:
            return None
        shown = replay.observe(self.grid[key], full=full, built=self.built, noise=self.noise)
        self.spent_s += shown.cost_s
        score = shown.scores[0] if shown.reason is None and shown.scores[0] is not None else -math.inf
        if full:
            self.scores[key] = score
        return score

    @property
    def best(self) -> str | None:
        """Return the best measured variant that can win."""
        key = max(self.scores, key=self.scores.__getitem__, default=None)
        return key if key is not None and math.isfinite(self.scores[key]) else None


@dataclass(frozen=True)
class Answer:
    """Hold what a method answered.

    Attributes:
        best: key; None without an answer.
        spent_s: time, s.
        confidence: what it says of itself; None where it says nothing.
    """

    best: str | None
    spent_s: float
    confidence: float | None = None


def grid(bench: Bench, goal: Objective, seed: int) -> Answer:
    """Measure in the order of the plan until the budget is spent."""
    for key in bench.grid:
        if bench.measure(key) is None:
            break
    return Answer(bench.best, bench.spent_s)


def _ours(method: str) -> Callable[[Bench, Objective, int], Answer]:
    def run(bench: Bench, goal: Objective, seed: int) -> Answer:
        candidates = [item.candidate for item in bench.grid.values()]
        budget_s = bench.budget_s if math.isfinite(bench.budget_s) else None
        search = Search(candidates, Goal(method=method, objectives=(goal,), budget_s=budget_s, seed=seed))
        replay.run(search, bench.grid, bench.noise)
        outcome = search.outcome()
        return Answer(outcome.best, outcome.spent_s, outcome.confidence)

    return run


def _spaces(bench: Bench) -> tuple[dict[str, list[object]], dict[tuple[object, ...], str]]:
    candidates = [item.candidate for item in bench.grid.values()]
    names = list(candidates[0].axes)
    values = {name: sorted({c.axes[name] for c in candidates}, key=repr) for name in names}
    return values, {tuple(c.axes[name] for name in names): c.key for c in candidates}


def tpe(bench: Bench, goal: Objective, seed: int) -> Answer:
    """Ask Optuna's TPE sampler with its defaults; a trial is a measurement, and one that fails is told as failed."""
    values, keys = _spaces(bench)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    for _ in range(8 * len(bench.grid)):
        trial = study.ask()
        point = tuple(values[n][trial.suggest_categorical(n, list(range(len(values[n]))))] for n in values)
        key = keys.get(point)
        score = -math.inf if key is None else bench.measure(key)
        if score is None:
            break
        if math.isfinite(score):
            study.tell(trial, score)
        else:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        if len(bench.scores) == len(bench.grid):
            break
    return Answer(bench.best, bench.spent_s)


def hyperband(bench: Bench, goal: Objective, seed: int) -> Answer:
    """Halve brackets of random variants: all are probed, the best third is measured (two rungs, eta 3).

    A measurement here has two lengths, the probe's and its own, so that Hyperband has two brackets: one that starts
    with probes, and one that measures at once.
    """
    rng = np.random.default_rng(seed)
    order = [list(bench.grid)[n] for n in rng.permutation(len(bench.grid))]
    while order:
        bracket, order = order[:9], order[9:]
        scores = {}
        for key in bracket:
            score = bench.measure(key, full=False)
            if score is None:
                return Answer(bench.best, bench.spent_s)
            scores[key] = score
        for key in sorted(scores, key=lambda k: -scores[k])[:3]:
            if bench.measure(key) is None:
                return Answer(bench.best, bench.spent_s)
        at_once, order = order[:3], order[3:]
        for key in at_once:
            if bench.measure(key) is None:
                return Answer(bench.best, bench.spent_s)
    return Answer(bench.best, bench.spent_s)


def quick_search(bench: Bench, goal: Objective, seed: int) -> Answer:
    """Climb as Model Analyzer's quick search does by its documentation.

    It steps over the exponents of batch size and instance count (streams here) to the best neighbour, from the
    smallest, and ends where no neighbour is better. Its documentation has no other axes: each combination of the other
    ones is a model variant of its own here, which it searches one after the other, in the order of a seed.
    """
    by_rest: dict[tuple[object, ...], dict[tuple[float, float], str]] = {}
    for key, item in bench.grid.items():
        axes = item.candidate.axes
        rest = tuple(value for name, value in axes.items() if name not in {"batch", "streams"})
        by_rest.setdefault(rest, {})[float(axes.get("batch", 1)), float(axes.get("streams", 1))] = key
    rng = np.random.default_rng(seed)
    for number in rng.permutation(len(by_rest)):
        if not _climb(bench, list(by_rest.values())[number]):
            break
    return Answer(bench.best, bench.spent_s)


def _climb(bench: Bench, points: Mapping[tuple[float, float], str]) -> bool:
    """Climb within one variant of the model; return whether the budget is left."""
    batches, streams = (sorted({point[n] for point in points}) for n in (0, 1))
    here = (batches[0], streams[0])
    here = here if here in points else next(iter(points))
    score = bench.measure(points[here])
    while score is not None:
        around = {}
        for point in _around(here, batches, streams):
            if point in points:
                around[point] = bench.measure(points[point])
                if around[point] is None:
                    return False
        best = max(around, key=lambda point: around[point] or -math.inf, default=None)
        if best is None or (around[best] or -math.inf) <= score:
            return True
        here, score = best, around[best]
    return False


def _around(
    here: tuple[float, float], batches: Sequence[float], streams: Sequence[float]
) -> Iterator[tuple[float, float]]:
    b, s = batches.index(here[0]), streams.index(here[1])
    for db, ds in ((1, 0), (0, 1), (1, 1), (-1, 0), (0, -1)):
        if 0 <= b + db < len(batches) and 0 <= s + ds < len(streams):
            yield batches[b + db], streams[s + ds]


METHODS = {
    "grid, in order": grid,
    "sweep halving": _ours("halving"),
    "sweep bayes": _ours("bayes"),
    "Optuna TPE": tpe,
    "Hyperband": hyperband,
    "quick search": quick_search,
}
