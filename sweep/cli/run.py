"""Run a sweep: command line -> plan -> run -> table, and the exit code.

0 every variant ok or unsupported; 1 some variant ended otherwise; 2 nothing could be planned; 130 interrupted.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import TYPE_CHECKING

from rich.markup import escape

from sweep.analysis import reevaluate
from sweep.backends import registry
from sweep.cli import commands, plan_table
from sweep.cli.console import Terminal
from sweep.config import compose, variants
from sweep.errors import SweepError
from sweep.report import html, table
from sweep.report.mlflow.live import Publishing
from sweep.report.ranking import answer
from sweep.runner import filters, plan, resume, time_estimate
from sweep.runner.executor import Run
from sweep.runner.progress import Display
from sweep.spec.settings import Tracking
from sweep.storage.store import Store
from sweep.storage.sweep_folder import folder_lock
from sweep.system import command_line, signals
from sweep.system import devices as device
from sweep.system.atomic_files import write_atomic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from sweep.config.compose import Asked
    from sweep.runner.plan import Plan, Work
    from sweep.spec.settings import Settings
    from sweep.system.devices import Device


_LOG_WIDTH = 140  # of a pipe or file, where nothing says how wide it is


def run(arguments: Sequence[str]) -> int:
    """Run the sweep of the command line ``arguments``, or print its help; return the exit code."""
    if {"-h", "--help"} & set(arguments):
        sys.stdout.write(help_header() + "\n")
    try:
        asked = compose.read(arguments)
        return 0 if asked is None else _task(asked)
    except SweepError as error:
        sys.stderr.write(f"sweep: {error}\n")
        return 2
    except OSError as error:
        sys.stderr.write(f"sweep: {error}; what was measured is kept, the same command measures the rest\n")
        return 1


def help_header() -> str:
    """Return the help's first lines: examples of a sweep, the commands and the options."""
    program = command_line.program()
    examples = {
        "-m precision=fp16,int8 batch=1,8,32": "commas sweep",
        "+experiment=quickstart": "a sweep from conf/experiment/",
        "+experiment=quickstart plan=true": "what it would run, and how long",
    }
    return "\n".join(
        [
            "Sweeps precision x batch x streams x ... and answers with latency-at-throughput curves.\n",
            *(f"  {program} {words:<36}  {text}" for words, text in examples.items()),
            f"\nCommands ({program} COMMAND --help explains one):",
            commands.listing(),
            "\nOptions:",
            "  --config-dir FOLDER  YAML files of your own, beside those of conf/",
            "  --cfg job            print the composed settings and run nothing",
            "  --version            print the version\n",
        ]
    )


def _task(asked: Asked) -> int:
    """Plan what was asked and run it, unless the plan is all that was asked; the exit code."""
    console = Terminal()
    if not console.is_terminal:
        console.width = max(console.width, _LOG_WIDTH)
    first = asked.configs[0]
    made = plan.make(variants.from_config(config) for config in asked.configs)
    some = filters.of(made, variants.conditions("only", first.only), variants.conditions("skip", first.skip))
    settings = variants.settings(first, asked.words)
    devices = _devices(some, settings)
    _say_backend(console, {config.backend.name for config in asked.configs})
    if first.plan:
        _print_plan(console, some, settings, len(devices))
        return 0
    publishing = Publishing(Tracking(**dataclasses.asdict(first.tracking)), settings)
    with folder_lock(settings):
        return _sweep(console, (made, some), settings, asked, publishing, devices)


def _devices(made: Plan, settings: Settings) -> tuple[Device, ...]:
    """The GPUs, where any of the work needs one."""
    on_gpu = any(registry.get(name).on_gpu for name in {work.variant.backend for work in made.runnable})
    return device.find_devices(settings.gpus) if on_gpu else (device.Device(),)


def _print_plan(console: Console, made: Plan, settings: Settings, lanes: int) -> None:
    todo = resume.left(made, settings).todo
    searches = resume.searches(made, settings, todo)
    watched = settings.sentinel_every if made.sentinel else 0
    runs = plan.sentinel_runs(len(plan.passes(todo, settings.seed)), watched)
    walls = resume.walls(todo, settings)
    low, high = time_estimate.predicted_s(todo, searches, settings.search_s or 0.0, walls, runs)
    plan_table.print_plan(console, made, todo, (low / lanes, high / lanes), searches)


def _say_backend(console: Console, names: set[str]) -> None:
    for name in sorted(names):
        backend, why = registry.resolve(name)
        _say(console, f"backend: {backend}" + (f" (auto: {why})" if why else ""))


def _sweep(
    console: Console,
    plans: tuple[Plan, Plan],
    settings: Settings,
    asked: Asked,
    publishing: Publishing,
    devices: tuple[Device, ...],
) -> int:
    """Measure what is left, then say what was found; the exit code. ``plans``: all that was asked, and what is run."""
    whole, made = plans
    left = resume.left(made, settings, keep_index=True)
    todo = left.todo
    searches = resume.searches(made, settings, todo)
    resume.forget_parts(settings)
    _keep_request(settings, asked)
    _say_work(console, made, settings, todo, searches)
    if len(made.works) < len(whole.works):
        _say(console, f"note: {len(whole.works) - len(made.works)} variants are left out (only, skip)")
    if len(devices) > 1:
        _say(console, f"note: spread over {len(devices)} GPUs")
    for note in left.notes:
        _say(console, f"note: {note}")
    try:
        with Display(console, len(plan.passes(todo, settings.seed)) + len(searches)) as display:
            Run(made, settings, display, publishing.finished, devices, left.pruning).execute(todo, searches)
    except KeyboardInterrupt:
        _say(console, "interrupted: what was measured is kept; the same command measures the rest")
        return signals.EXIT_CODE
    return _conclude(console, whole, settings, publishing)


def _say_work(console: Console, made: Plan, settings: Settings, todo: Sequence[Work], searches: Sequence[Work]) -> None:
    kept = len(made.runnable) - len(todo)
    _say(
        console,
        f"sweep: {settings.name}: {len(made.works)} variants, {len(todo)} to measure"
        + (f", {kept} measured already" if kept else "")
        + (f", {len(searches)} to search for their capacity" if searches else ""),
    )


def _say(console: Console, text: str) -> None:
    console.print(escape(text), highlight=False, soft_wrap=True)


def _conclude(console: Console, made: Plan, settings: Settings, publishing: Publishing) -> int:
    judged = [reevaluate.rejudged(Store(settings.root), work.key, settings.slo) for work in made.works]
    records = [
        reevaluate.regated(Store(settings.root), record, settings.gates) for record in judged if record is not None
    ]
    table.print_outcome(console, records, answer(records, settings.slo), settings.slo)
    page = html.write(settings.root / "report.html", settings.name, records, settings.slo)
    _say(console, f"\nrecords  {settings.root / 'records'}")
    _say(console, f"report   {page}")
    _say(console, publishing.conclude(records))
    resume.keep_index(made, settings)
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
    write_atomic(settings.root / "config.json", text.encode())
