"""What was asked -> plan -> run -> table, and the exit code.

0 every variant ok or unsupported; 1 some variant ended otherwise; 2 nothing could be planned; 130 interrupted.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import TYPE_CHECKING

from rich.markup import escape

from sweep import __version__, interrupts, judge, launcher, plan, resume, variants
from sweep.axes import variant_key
from sweep.backends import registry
from sweep.errors import SweepError
from sweep.folder import Settings, folder_lock
from sweep.progress import Display
from sweep.publishing import Publishing
from sweep.record import write_atomic
from sweep.report import html, table
from sweep.report.answer import answer
from sweep.run import Run, passes
from sweep.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from sweep.launcher import Asked
    from sweep.plan import Plan


_LOG_WIDTH = 140  # of a pipe or file, where nothing says how wide it is


def run(arguments: Sequence[str]) -> int:
    """Run a sweep; its exit code."""
    if list(arguments) == ["--version"]:
        sys.stdout.write(f"sweep {__version__}\n")
        return 0
    try:
        asked = launcher.read(arguments)
        return 0 if asked is None else _task(asked)
    except SweepError as error:
        sys.stderr.write(f"sweep: {error}\n")
        return 2
    except OSError as error:
        sys.stderr.write(f"sweep: {error}; what was measured is kept, the same command measures the rest\n")
        return 1


def _task(asked: Asked) -> int:
    """Plan what was asked and run it, unless the plan is all that was asked; the exit code."""
    console = Terminal()
    if not console.is_terminal:
        console.width = max(console.width, _LOG_WIDTH)
    made = plan.make(variants.from_config(config) for config in asked.configs)
    first = asked.configs[0]
    settings = variants.settings(first, asked.words)
    _say_backend(console, {config.backend.name for config in asked.configs})
    if first.plan:
        todo, _ = resume.left(made, settings)
        searches = resume.searches(made, settings, todo)
        watched = settings.sentinel_every if made.sentinel else 0
        runs = plan.sentinel_runs(len(passes(todo, settings.seed)), watched)
        walls = resume.walls(todo, settings)
        predicted = plan.predicted_s(todo, searches, settings.search_s or 0.0, walls, runs)
        table.print_plan(console, made, todo, predicted, searches)
        return 0
    publishing = Publishing(first.tracking, settings)
    with folder_lock(settings):
        return _sweep(console, made, settings, asked, publishing)


def _say_backend(console: Console, names: set[str]) -> None:
    for name in sorted(names):
        backend, why = registry.resolve(name)
        reason = f" (auto: {why})" if why else ""
        console.print(f"backend: {backend}{escape(reason)}", highlight=False, soft_wrap=True)


def _sweep(console: Console, made: Plan, settings: Settings, asked: Asked, publishing: Publishing) -> int:
    """Measure what is left, then say what was found; the exit code."""
    todo, notes = resume.left(made, settings)
    searches = resume.searches(made, settings, todo)
    resume.forget_parts(settings)
    _keep_request(settings, asked)
    kept = len(made.runnable) - len(todo)
    console.print(
        f"sweep: {escape(settings.name)}: {len(made.works)} variants, {len(todo)} to measure"
        + (f", {kept} measured already" if kept else "")
        + (f", {len(searches)} to search for their capacity" if searches else ""),
        highlight=False,
        soft_wrap=True,
    )
    for note in notes:
        console.print(f"note: {escape(note)}", highlight=False, soft_wrap=True)
    try:
        with Display(console, len(passes(todo, settings.seed)) + len(searches)) as display:
            Run(made, settings, display, publishing.finished).execute(todo, searches)
    except KeyboardInterrupt:
        console.print("interrupted: what was measured is kept; the same command measures the rest", highlight=False)
        return interrupts.EXIT_CODE
    return _conclude(console, made, settings, publishing)


def _conclude(console: Console, made: Plan, settings: Settings, publishing: Publishing) -> int:
    judged = [judge.rejudged(settings.store, variant_key(work.variant), settings.slo) for work in made.works]
    records = [record for record in judged if record is not None]
    table.print_outcome(console, records, answer(records, settings.slo), settings.slo)
    page = html.write(settings.store.root / "report.html", settings.name, records, settings.slo)
    console.print(f"\nrecords  {settings.store.root / 'records'}", highlight=False, soft_wrap=True)
    console.print(f"report   {page}", highlight=False, soft_wrap=True)
    console.print(publishing.conclude(records), highlight=False, soft_wrap=True)
    return 0 if all(record.status in {"ok", "unsupported"} for record in records) else 1


def _keep_request(settings: Settings, asked: Asked) -> None:
    """config.json: the words of the request and the first composed config, to ask for the sweep again."""
    request = {
        "name": settings.name,
        "overrides": list(asked.words),
        "combinations": len(asked.configs),
        "first": dataclasses.asdict(asked.configs[0]),
    }
    text = json.dumps(request, indent=1) + "\n"
    write_atomic(settings.store.root / "config.json", text.encode())
