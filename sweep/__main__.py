"""``python -m sweep``: what was asked -> plan -> run -> table, and the exit code.

0 every variant ok or unsupported; 1 some variant ended otherwise; 2 nothing could be planned; 130 interrupted.
"""

from __future__ import annotations

import json
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

from rich.console import Console
from rich.markup import escape

from sweep import __version__, judge, launcher, plan, resume, variants
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

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.launcher import Asked
    from sweep.plan import Plan

INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run a sweep; always ends the process with its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments == ["--version"]:
        sys.stdout.write(f"sweep {__version__}\n")
        sys.exit(0)
    signal.signal(signal.SIGTERM, _as_interrupt)
    try:
        launcher.main(_task, arguments)
    except SweepError as error:
        launcher.fail(str(error))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    sys.exit(0)


def _as_interrupt(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _task(asked: Asked) -> None:
    """What Hydra calls; leaves by SystemExit."""
    console = Console(soft_wrap=False)
    made = plan.make(variants.from_config(config) for config in asked.configs)
    first = asked.configs[0]
    settings = variants.settings(first, asked.words)
    _say_backend(console, {config.backend.name for config in asked.configs})
    if first.plan:
        todo, _ = resume.left(made, settings)
        table.print_plan(console, made, todo, plan.predicted_s(todo))
        sys.exit(0)
    publishing = Publishing(first.tracking, settings)
    with folder_lock(settings):
        sys.exit(_sweep(console, made, settings, asked, publishing))


def _say_backend(console: Console, names: set[str]) -> None:
    for name in sorted(names):
        backend, why = registry.resolve(name)
        reason = f" (auto: {why})" if why else ""
        console.print(f"backend: {backend}{escape(reason)}", highlight=False, soft_wrap=True)


def _sweep(console: Console, made: Plan, settings: Settings, asked: Asked, publishing: Publishing) -> int:
    """Measure what is left, then say what was found; the exit code."""
    todo, notes = resume.left(made, settings)
    resume.forget_parts(settings)
    _keep_request(settings, asked)
    kept = len(made.runnable) - len(todo)
    console.print(
        f"sweep: {escape(settings.name)}: {len(made.works)} variants, {len(todo)} to measure"
        + (f", {kept} measured already" if kept else ""),
        highlight=False,
        soft_wrap=True,
    )
    for note in notes:
        console.print(f"note: {escape(note)}", highlight=False, soft_wrap=True)
    try:
        with Display(console, len(passes(todo, settings.seed))) as display:
            Run(made, settings, display, publishing.finished).execute(todo)
    except KeyboardInterrupt:
        console.print("interrupted: what was measured is kept; the same command measures the rest", highlight=False)
        return INTERRUPTED
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
    """config.json: the words of the request, so that the sweep can be asked for again."""
    text = json.dumps({"name": settings.name, "overrides": list(asked.words)}, indent=1) + "\n"
    write_atomic(settings.store.root / "config.json", text.encode())


if __name__ == "__main__":
    main()
