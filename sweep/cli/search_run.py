"""Run a search of the grid: measure what `sweep.runner.search` decides, and print its answer."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, NamedTuple

from rich.markup import escape

from sweep import spec
from sweep.errors import ConfigError, RecordError
from sweep.runner import Display, Plan, Run, Work, resume, time_estimate
from sweep.runner.search import OBJECTIVES, Goal, Outcome, Search, State, candidates_of, capacity_probe, observation
from sweep.spec import LoadAxes
from sweep.storage import PROBES, Store
from sweep.system import signals, write_atomic

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import Console

    from sweep.runner.search import Objective, Observation, Step
    from sweep.spec import Settings, Variant
    from sweep.storage import Record
    from sweep.system import Device

PROBE_LOAD = LoadAxes(kind="closed", warmup_s=0.1, min_s=0.25, min_requests=32, max_s=1.0)
_PROBE_FRACTION = 0.5  # of the peak: the one rung of a probe for a capacity
_ENGINE_S = 0.5  # of a predicted time that loads the engine
_LEAST_S = 0.3  # that a measurement takes, whatever is predicted
_SHOWN = 3  # reasons that the outcome names


class _Part(NamedTuple):
    """Hold the search of one model.

    Attributes:
        works: its variants.
        title: its name, where there are several; else "".
    """

    works: list[Work]
    title: str


def run(
    console: Console,
    selected: Plan,
    settings: Settings,
    finished: Callable[[Record], None],
    devices: Sequence[Device],
) -> None:
    """Search the best variant of each model and print what came of it.

    Args:
        console: to print to.
        selected: the grid.
        settings: settings of the sweep, with those of the search.
        finished: receives each record of a measurement; no probe.
        devices: to measure on.

    Raises:
        ConfigError: a variant has repeats or builds; one line.
        KeyboardInterrupt: an interrupt arrived; the records stay, and the same command goes on from them.
    """
    if settings.search is None:
        return
    _refuse_rounds(selected)
    Run(dataclasses.replace(selected, works=_unsupported(selected)), settings, _display(console, selected, 0), finished,
        devices).execute([])  # fmt: skip
    parts = _parts(selected)
    spent_s, answers = 0.0, {}
    for number, part in enumerate(parts):
        budget_s = settings.search.budget_s
        share = None if budget_s is None else (budget_s - spent_s) / (len(parts) - number)
        search = _PartSearch(console, selected, settings, finished, devices).run(part, share)
        outcome = search.outcome()
        spent_s += outcome.spent_s
        answers[part.title or "all"] = dataclasses.asdict(outcome)
        for line in outcome_lines(outcome, selected.labels, settings.search.budget_s, part.title):
            _print(console, line)
    text = json.dumps({"search": dataclasses.asdict(settings.search), "answers": answers}, indent=1) + "\n"
    write_atomic(settings.root / "search.json", text.encode())


class _PartSearch:
    """Run the search of one model.

    Args:
        console: to print to.
        selected: the grid.
        settings: settings of the sweep.
        finished: receives each record of a measurement.
        devices: to measure on.
    """

    def __init__(
        self,
        console: Console,
        selected: Plan,
        settings: Settings,
        finished: Callable[[Record], None],
        devices: Sequence[Device],
    ) -> None:
        self._console = console
        self._selected = selected
        self._settings = settings
        self._probe_settings = dataclasses.replace(
            settings,
            name=f"{settings.name}/{PROBES}", slo=None, search_s=None, layers=False, sentinel_every=0, probe=True,
            search=None,
        )  # fmt: skip
        self._finished = finished
        self._devices = devices

    def run(self, part: _Part, budget_s: float | None) -> Search:
        """Search until it ends; every probe and measurement that has its record takes no time."""
        request = self._settings.search
        assert request is not None  # noqa: S101 - for mypy
        works = {work.key: work for work in part.works}
        goals = tuple(OBJECTIVES[name] for name in request.objectives)
        search = Search(
            candidates_of(
                {key: work.variant for key, work in works.items()},
                {key: work.engine_key for key, work in works.items()},
            ),
            Goal(
                method=request.method,
                objectives=goals,
                budget_s=budget_s,
                seed=self._settings.seed,
                full_s=_full_s(part.works[0], self._settings),
            ),
        )
        total = "" if budget_s is None else f" of {budget_s:.0f}"
        while (step := search.next()) is not None:
            names = [works[key].label for key in step.keys]
            what = "measure" if step.full else "probe"
            _print(
                self._console,
                f"search: {search.spent_s:.1f}{total} s spent; {what} {_listed(names)}: {step.reason}",
            )
            search.tell(self._observations(step, works, goals))
        return search

    def _observations(self, step: Step, works: dict[str, Work], goals: tuple[Objective, ...]) -> list[Observation]:
        """Run a step, or read the records that it has, and return what they show."""
        settings = self._settings if step.full else self._probe_settings
        chosen = [works[key] if step.full else _probe(works[key], goals) for key in step.keys]
        plan = dataclasses.replace(self._selected, works=tuple(chosen))
        remaining = resume.remaining(plan, settings)
        todo = remaining.todo
        searches = resume.searches(plan, settings, todo)
        profiles, _ = resume.profiles(plan, settings, todo)
        if todo or searches or profiles:
            with _display(self._console, plan, len(todo) + len(searches) + len(profiles)) as display:
                finished = self._finished if step.full else _ignore
                Run(plan, settings, display, finished, self._devices, remaining.pruning).execute(
                    todo, searches, profiles
                )
            if signals.arrived():
                raise KeyboardInterrupt
        store = Store(settings.root)
        p99_ms = self._settings.search.p99_ms if self._settings.search is not None else None
        shown = []
        for key, work in zip(step.keys, chosen, strict=True):
            try:
                record = store.read(work.key)
            except RecordError:
                if signals.arrived():
                    raise KeyboardInterrupt from None
                raise
            if not step.full and self._settings.slo is not None:
                record = capacity_probe.with_predicted(record, store, self._settings.slo)
            shown.append(observation.of_record(key, record, goals, full=step.full, most_p99_ms=p99_ms))
        return shown


def _probe(work: Work, goals: Sequence[Objective]) -> Work:
    """Return the work of a probe: the same variant under a short closed loop, with service times for a capacity."""
    load = dataclasses.replace(
        work.variant.load,
        **{name: getattr(PROBE_LOAD, name) for name in ("kind", "warmup_s", "min_s", "min_requests", "max_s")},
        repeats=1, builds=None, budget_s=None, points=None, fractions=(), rates_ips=(),
    )  # fmt: skip
    if any(goal.needs_slo for goal in goals):
        load = dataclasses.replace(load, kind="curve", fractions=(_PROBE_FRACTION,))
    variant: Variant = dataclasses.replace(work.variant, load=load)
    return dataclasses.replace(work, variant=variant, key=spec.variant_key(variant))


def _ignore(record: Record) -> None:
    """Publish no probe."""
    del record


def _refuse_rounds(selected: Plan) -> None:
    """Refuse what a search cannot decide on after one start of one network."""
    for work in selected.runnable:
        if work.variant.session.beside is not None:
            raise ConfigError(
                f"search: {work.label} runs beside other networks, and a search compares single ones: set search=grid"
            )
        if work.variant.load.passes > 1:
            raise ConfigError(
                f"search: {work.label} has {work.variant.load.passes} passes, and a search decides after one: "
                "set repeats=1 builds=null, then measure the answer again with repeats=5"
            )


def _unsupported(selected: Plan) -> tuple[Work, ...]:
    return tuple(work for work in selected.works if work.unsupported is not None)


def _parts(selected: Plan) -> list[_Part]:
    """Return the variants of each model: samples of different models are different work."""
    models: dict[object, list[Work]] = {}
    for work in selected.runnable:
        models.setdefault(repr(spec.flat(work.variant).get("model_ref")), []).append(work)
    titles = {key: str(spec.flat(works[0].variant)["model"]) for key, works in models.items()}
    several = len(models) > 1
    return [_Part(works, titles[key] if several else "") for key, works in models.items()]


def _full_s(work: Work, settings: Settings) -> float:
    """Return the time that a measurement is expected to take beside its engine, s."""
    searches = [work] if settings.search_s is not None else []
    with_engine = time_estimate.predicted_s([work], searches, settings.search_s or 0.0)[0]
    return max(with_engine - _ENGINE_S, _LEAST_S)


def _display(console: Console, plan: Plan, passes: int) -> Display:
    return Display(console, passes, plan.labels, variants=len(plan.works))


def outcome_lines(outcome: Outcome, labels: dict[str, str], budget_s: float | None, title: str) -> list[str]:
    """Word what a search found: the answer with its confidence, and what was tried, dropped and not tried."""
    prefix = f"search {title}:" if title else "search:"
    total = len(outcome.states)
    counts = ", ".join(f"{outcome.count(state)} {_WORDS[state]}" for state in State)
    budget = "" if budget_s is None else f" of {budget_s:.0f}"
    lines = [f"{prefix} {outcome.spent_s:.0f}{budget} s for {total} variants: {counts}; it ended since {outcome.ended}"]
    if outcome.best is None:
        lines.append(f"{prefix} no answer: no variant that was measured can win")
    elif outcome.confidence is None:
        front = [labels[key] for key in outcome.front]
        lines.append(f"{prefix} the front has {len(front)} of what was measured: {'; '.join(front)}")
    else:
        lines.append(
            f"{prefix} {labels[outcome.best]} is within 2% of the grid's best at {outcome.confidence:.0%} confidence; "
            "search=grid measures the rest"
        )
    reasons: dict[str, list[str]] = {}
    for key, reason in outcome.reasons.items():
        reasons.setdefault(reason if "chance" not in reason else "it cannot be 2% better at 95% confidence", []).append(
            labels[key]
        )
    ordered = sorted(reasons.items(), key=lambda item: -len(item[1]))
    lines += [f"{prefix} {_listed(names)}: {reason}" for reason, names in ordered[:_SHOWN]]
    if len(ordered) > _SHOWN:
        lines.append(f"{prefix} {len(ordered) - _SHOWN} more reasons are in search.json")
    return lines


_WORDS = {
    State.MEASURED: "measured",
    State.PROBED: "only probed",
    State.DROPPED: "dropped after a probe",
    State.UNTRIED: "not tried",
}


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _print(console: Console, text: str) -> None:
    console.print(escape(text), highlight=False, soft_wrap=not console.is_terminal)
