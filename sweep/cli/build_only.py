"""Build the engines of a sweep and print a line on each (``build_only=true``)."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from typing import TYPE_CHECKING

from rich.markup import escape

from sweep.backends.tensorrt import PLAN
from sweep.runner import Display, engine_builds
from sweep.spec import quote
from sweep.system import atomic_files, regular_files, signals

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from sweep.runner import EngineBuild, Plan
    from sweep.spec import Settings
    from sweep.system import Device

_MIB = 1 << 20
_FAILED = "failed"
_STOPPING = "stopping after this engine; Ctrl-C again stops now"


def run(console: Console, selected: Plan, settings: Settings, device: Device) -> int:
    """Build every engine that the plan needs, on one device.

    Args:
        console: to print to.
        selected: plan of the variants that `only` and `skip` select.
        settings: settings of the sweep.
        device: to build on.

    Returns:
        The exit code: 0, or 1 if an engine did not build, or that of an interrupt.
    """
    engines = {work.engine_key for work in selected.runnable}
    ends: list[str] = []
    try:
        with Display(console, len(engines)) as display, signals.patient(lambda: display.note(_STOPPING)):
            for build in engine_builds.build(selected, settings, display, device):
                ends.append(_end(build))
                _print(console, f"[{len(ends)}/{len(engines)}] {_label(build)}  {_line(build)}")
                plan = _keep_plan(build, settings)
                if plan is not None:
                    _print(console, f"      model.engine={quote(str(plan))}")
    except KeyboardInterrupt:
        _print(console, "interrupted: the engines that were built are kept; the same command builds the rest")
        return signals.EXIT_CODE
    counts = ", ".join(f"{ends.count(end)} {end}" for end in dict.fromkeys(ends)) or "none"
    _print(console, f"engines: {counts}")
    for reason, count in Counter(work.unsupported for work in selected.works if work.unsupported is not None).items():
        _print(console, f"unsupported here: {count} variants: {reason}")
    _print(console, f"cache    {settings.cache}")
    return int(_FAILED in ends)


def _label(build: EngineBuild) -> str:
    others = len(build.works) - 1
    return build.works[0].label + (f" (and {others} more of this engine)" if others else "")


def _end(build: EngineBuild) -> str:
    if build.outcome.result is None:
        return _FAILED
    return "in the cache already" if build.outcome.result.engine["cached"] else "built"


def _line(build: EngineBuild) -> str:
    """Return in one line how the build ended: its time and size, or the error."""
    result, error = build.outcome.result, build.outcome.error
    if result is None:
        return f"{build.outcome.status}  " + (f"{error['stage']}: {error['message']}" if error else "no reason")
    size = result.engine.get("bytes")
    return f"{_end(build)}, {build.wall_s:.1f} s" + ("" if size is None else f", {size / _MIB:,.2f} MiB")


def _keep_plan(build: EngineBuild, settings: Settings) -> Path | None:
    """Return a file in the sweep's folder with the plan, to be timed elsewhere; None for a library without plans.

    It is a second name of the file in the cache where the file system has that, so that it takes no space, and stays
    when the entry is evicted.
    """
    result = build.outcome.result
    plan = None if result is None else settings.cache / "engines" / result.engine["key"] / PLAN
    if plan is None or not plan.is_file():
        return None
    name = re.sub(r"[^\w.+-]+", "_", build.works[0].label, flags=re.ASCII)
    target = settings.root / "plans" / f"{name}-{plan.parent.name[:8]}.plan"
    target.parent.mkdir(parents=True, exist_ok=True)
    if not (target.exists() and target.samefile(plan)):
        scratch = atomic_files.temporary_path(target)  # never there: writing to a second name of the plan would harm it
        try:
            try:
                scratch.hardlink_to(plan)
            except OSError:
                with (
                    regular_files.open_input(plan, follow=False) as source,
                    regular_files.open_output(scratch) as copy,
                ):
                    shutil.copyfileobj(source, copy)
            scratch.replace(target)
        finally:
            scratch.unlink(missing_ok=True)
    return target


def _print(console: Console, text: str) -> None:
    console.print(escape(text), highlight=False, soft_wrap=True)
