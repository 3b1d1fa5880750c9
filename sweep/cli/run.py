"""Run a sweep: command line -> plan -> run -> table, and the exit code.

0 every variant ok or unsupported; 1 some variant ended otherwise; 2 nothing could be planned; 130 interrupted.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from typing import TYPE_CHECKING

from rich.markup import escape

from sweep.analysis import reevaluate, start_spread
from sweep.backends import registry
from sweep.cli import build_only, plan_table, search_run, sweep_commands
from sweep.cli.console import Terminal
from sweep.config import reproduce, sweep_file, variants
from sweep.errors import ConfigError, LabelError, ModelError, SweepError, error_line, printable_line
from sweep.report import answer, compared, html, layers, table, with_overrides
from sweep.report.mlflow import Publishing
from sweep.runner import Display, Run, filters, plan, resume, time_estimate
from sweep.spec import Tracking
from sweep.storage import Store, folder_lock
from sweep.system import devices as device
from sweep.system import environment, signals, write_atomic

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import Console

    from sweep.config import SweepRequest
    from sweep.report import Answer
    from sweep.runner import Plan, Work
    from sweep.spec import Settings
    from sweep.storage import Record
    from sweep.system import Device


_LOG_WIDTH = 140  # of a pipe or file, where nothing says how wide it is


def run(arguments: Sequence[str]) -> int:
    """Run the sweep of the command line ``arguments``, or print its keys; return the exit code."""
    return run_request(lambda: sweep_file.read_words(arguments), arguments)


def run_request(read: Callable[[], SweepRequest | None], words: Sequence[str]) -> int:
    """Run the sweep that `read` returns, if any; return the exit code.

    Args:
        read: makes the request; its errors end the command in one line.
        words: the command line, for the page and config.json.
    """
    request = None
    try:
        request = read()
        return 0 if request is None else _task(request, words)
    except SweepError as error:
        if signals.arrived():  # a library met the interrupt inside its own code, and says something else of it
            return signals.EXIT_CODE
        located = request is not None and isinstance(error, ConfigError | ModelError | LabelError)
        line = printable_line(request.locate(str(error))) if request is not None and located else error_line(error)
        sys.stderr.write(f"sweep: {line}\n")
        return 2
    except OSError as error:
        sys.stderr.write(f"sweep: {error_line(error)}; what was measured is kept, the same command measures the rest\n")
        return 1


def _task(request: SweepRequest, words: Sequence[str]) -> int:
    """Plan the sweep, and print the plan or run it; return the exit code."""
    console = Terminal()
    if not console.is_terminal:
        console.width = max(console.width, _LOG_WIDTH)
    first = request.configs[0]
    full_plan = plan.make(variants.from_configs(request.configs), only_build=first.build_only)
    selected = filters.of(full_plan, variants.conditions("only", first.only), variants.conditions("skip", first.skip))
    settings = variants.settings(first, request.overrides)
    devices = _devices(selected, settings, only_build=first.build_only)
    _print_backends(console, request)
    if first.plan:
        _print_plan(console, selected, settings, len(devices))
        return 0
    if first.build_only:
        with folder_lock(settings, lambda line: _print(console, f"note: {line}")):
            try:
                return build_only.run(console, selected, settings, devices[0])
            finally:
                resume.forget_parts(settings)
    publishing = Publishing(Tracking(**dataclasses.asdict(first.tracking)), settings, full_plan.labels)
    with folder_lock(settings, lambda line: _print(console, f"note: {line}")):
        return _sweep(console, (full_plan, selected), settings, (request, words), publishing, devices)


def _devices(selected: Plan, settings: Settings, *, only_build: bool) -> tuple[Device, ...]:
    """Return the GPUs to use, or one empty device if no work needs a GPU, as builds that can do without."""
    on_gpu = any(registry.get(name).on_gpu for name in {work.variant.backend for work in selected.runnable})
    if only_build and environment.machine()["gpu"] is None:
        return (device.Device(),)
    return device.find_devices(settings.gpus) if on_gpu else (device.Device(),)


def _print_plan(console: Console, selected: Plan, settings: Settings, device_count: int) -> None:
    remaining = resume.remaining(selected, settings)
    todo = remaining.todo
    searches = resume.searches(selected, settings, todo)
    low, high = _predicted_s(selected, settings, todo, searches)
    for note in remaining.notes:
        _print(console, f"note: {note}")
    plan_table.print_plan(console, selected, todo, (low / device_count, high / device_count), searches)


def _record_count(selected: Plan, todo: Sequence[Work], searches: Sequence[Work]) -> int:
    """Return the number of variants that get a record: what is measured or searched, and what cannot run here."""
    unsupported = [work for work in selected.works if work.unsupported is not None]
    return len({work.key for work in (*todo, *searches, *unsupported)})


def _predicted_s(
    selected: Plan, settings: Settings, todo: Sequence[Work], searches: Sequence[Work]
) -> tuple[float, float]:
    """Return the shortest and longest time that the work takes on one device, s."""
    sentinel_every = settings.sentinel_every if selected.sentinel else 0
    runs = plan.sentinel_runs(len(plan.passes(todo, settings.seed)), sentinel_every)
    return time_estimate.predicted_s(todo, searches, settings.search_s or 0.0, resume.walls(todo, settings), runs)


def _print_backends(console: Console, request: SweepRequest) -> None:
    """Print each backend once, with the reason of each that `auto` chose."""
    names = {backend.name for backend in request.configs.distinct("backend")}
    engines = {model.engine or None for model in request.configs.distinct("model")}
    resolved = {variants.resolve_backend(name, path) for name in names for path in engines}
    for backend, reason in sorted(resolved, key=str):
        _print(console, f"backend: {backend}" + (f" (auto: {reason})" if reason else ""))


def _sweep(
    console: Console,
    plans: tuple[Plan, Plan],
    settings: Settings,
    command: tuple[SweepRequest, Sequence[str]],
    publishing: Publishing,
    devices: tuple[Device, ...],
) -> int:
    """Measure what has no record yet and print the outcome; return the exit code.

    Args:
        console: to print to.
        plans: plan of all that was requested, and plan of the part that `only` and `skip` select.
        settings: settings of the sweep.
        command: the request, written to config.json, and the words of the command line.
        publishing: receives each record.
        devices: to measure on, side by side.
    """
    full_plan, selected = plans
    remaining = resume.remaining(selected, settings, keep_index=True)
    todo = remaining.todo
    searches = resume.searches(selected, settings, todo)
    profiles, profile_notes = resume.profiles(selected, settings, todo)
    resume.forget_parts(settings)
    request, words = command
    _write_request(settings, request, words)
    if request.left_out:
        _print(console, f"note: {request.left_out} combinations are left out (where, exclude)")
    _print_work(console, selected, settings, todo, (searches, profiles))
    if len(selected.works) < len(full_plan.works):
        _print(console, f"note: {len(full_plan.works) - len(selected.works)} variants are left out (only, skip)")
    if len(devices) > 1:
        _print(console, f"note: spread over {len(devices)} GPUs")
    for note in (*remaining.notes, *profile_notes):
        _print(console, f"note: {note}")
    try:
        if settings.search is not None:
            search_run.run(console, selected, settings, publishing.finished, devices)
            return _conclude(console, full_plan, settings, words, publishing)
        passes = plan.passes(todo, settings.seed)
        low, high = _predicted_s(selected, settings, todo, searches)
        with Display(
            console,
            len(passes) + len(searches) + len(profiles),
            full_plan.labels,
            variants=len(
                {work.key for work in (*todo, *searches, *profiles)}
                | {work.key for work in selected.works if work.unsupported}
            ),
            expected_s=math.sqrt(max(low, 1.0) * max(high, 1.0)) / len(devices),
        ) as display:
            Run(selected, settings, display, publishing.finished, devices, remaining.pruning).execute(
                todo, searches, profiles
            )
    except KeyboardInterrupt:
        _print(console, "interrupted: what was measured is kept; the same command measures the rest")
        return signals.EXIT_CODE
    finally:
        resume.forget_parts(settings)
    return _conclude(console, full_plan, settings, words, publishing)


def _print_work(
    console: Console,
    selected: Plan,
    settings: Settings,
    todo: Sequence[Work],
    further: tuple[Sequence[Work], Sequence[Work]],
) -> None:
    searches, profiles = further
    measured = len(selected.runnable) - len(todo)
    _print(
        console,
        f"sweep: {settings.name}: {len(selected.works)} variants, {len(todo)} to measure"
        + (f", {measured} measured already" if measured else "")
        + (f", {len(searches)} to search for their capacity" if searches else "")
        + (f", {len(profiles)} to profile by layer" if profiles else ""),
    )


def _print(console: Console, text: str) -> None:
    """Print a line: whole where a program reads it, broken between words on a terminal."""
    console.print(escape(text), highlight=False, soft_wrap=not console.is_terminal)


def _print_path(console: Console, text: str) -> None:
    """Print a line with a path or an address, which is copied in one piece: the terminal breaks it, no line feed."""
    console.print(escape(text), highlight=False, soft_wrap=True)


def _conclude(
    console: Console, full_plan: Plan, settings: Settings, words: Sequence[str], publishing: Publishing
) -> int:
    judged = [reevaluate.rejudged(Store(settings.root), work.key, settings.slo) for work in full_plan.works]
    records = [
        reevaluate.regated(Store(settings.root), record, settings.gates, settings.limits)
        for record in judged
        if record is not None
    ]
    history = start_spread.measured(Store(settings.root), records)
    recommendation = _reproducible(full_plan, records, answer(records, settings.slo, history))
    commands = html.Commands(
        sweeps={settings.name: sweep_commands.of_sweep(words)},
        variants=sweep_commands.of_variants(
            {work.key: work.variant for work in full_plan.works}, compared(records).axes
        ),
        profiles=layers.summaries({settings.name: settings.root}, records),
    )
    table.print_outcome(console, records, recommendation, settings.slo)
    page = html.write(settings.root / "report.html", settings.name, records, recommendation, commands)
    _print_path(console, f"\nrecords  {settings.root / 'records'}")
    _print_path(console, f"report   {page}")
    _print_path(console, publishing.conclude(records))
    resume.keep_index(full_plan, settings)
    return 0 if all(record.status in {"ok", "unsupported"} for record in records) else 1


def _reproducible(full_plan: Plan, records: Sequence[Record], recommendation: Answer) -> Answer:
    """Return the answer with the overrides that plan the best variant of each model alone."""
    best = {part.best.key for part in recommendation.parts if part.best is not None}
    axes = compared(records).axes
    overrides = {work.key: reproduce.overrides(work.variant, axes) for work in full_plan.works if work.key in best}
    return with_overrides(recommendation, overrides)


def _write_request(settings: Settings, request: SweepRequest, words: Sequence[str]) -> None:
    """Write config.json: the overrides of the request and the first composed config, from which it can be repeated."""
    content = {
        "name": settings.name,
        "command": list(words),
        "overrides": list(request.overrides),
        "combinations": len(request.configs),
        "first": dataclasses.asdict(request.configs[0]),
    }
    text = json.dumps(content, indent=1) + "\n"
    write_atomic(settings.root / "config.json", text.encode())
