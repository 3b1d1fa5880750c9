"""Show a sweep while it runs: a live bar on a terminal, a line per variant elsewhere."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Protocol, Self

from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from rich.console import Console

    from sweep.storage import Record

_REDRAWS_PER_S = 2  # the measurement has the machine; the bar can wait
_STYLES = {"ok": "green", "unsupported": "yellow", "invalid": "yellow"}


class Screen(Protocol):
    """Show one device runner."""

    def variant(self, label: str) -> None:
        """Show that a pass over the variant called `label` starts."""
        ...

    def stage(self, name: str, detail: str, done: float) -> None:
        """Show that the pass has come to stage `name`, with `done` of it, 0 to 1, behind it."""
        ...

    def passed(self) -> None:
        """Show that the pass is over."""
        ...

    def finished(self, record: Record) -> None:
        """Show that a variant has its record."""
        ...

    def note(self, text: str) -> None:
        """Print one line that the user should know."""
        ...


class Display:
    """Show the progress of one sweep: a ``Screen`` for one device runner, and of several their sum.

    Args:
        console: where to print.
        passes: number of passes to run.
        labels: labels by the keys of the records; a record without an entry is shown by its own label.
    """

    def __init__(self, console: Console, passes: int, labels: Mapping[str, str] | None = None) -> None:
        self._console = console
        self._labels = labels or {}
        self._passes = passes
        self._done = 0
        self._counting = threading.Lock()
        self._live = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[stage]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            refresh_per_second=_REDRAWS_PER_S,
            disable=not console.is_terminal,
            transient=True,
            speed_estimate_period=3600,
        )
        self._task: TaskID = self._live.add_task("starting", total=float(passes), stage="")

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def variant(self, label: str) -> None:
        """Show that a pass over the variant called `label` starts."""
        text = f"variant {self._done + 1} of {self._passes}  [bold]{escape(label)}[/bold]"
        self._live.update(self._task, description=text, stage="", completed=float(self._done))

    def stage(self, name: str, detail: str, done: float) -> None:
        """Show that the pass has come to stage `name`, with `done` of it, 0 to 1, behind it."""
        self._live.update(self._task, stage=f"{name} {detail}".strip(), completed=self._done + done)

    def passed(self) -> None:
        """Show that the pass is over."""
        with self._counting:
            self._done += 1
        self._live.update(self._task, completed=float(self._done), stage="")

    def finished(self, record: Record) -> None:
        """Show that a variant has its record."""
        style = _STYLES.get(record.status, "red")
        label = self._labels.get(record.key, record.variant["label"])
        heading = f"[{self._done}/{self._passes}] {escape(label)}"
        self._console.print(
            f"{heading}  [{style}]{record.status}[/{style}]  {escape(_gist(record))}", highlight=False, soft_wrap=True
        )

    def note(self, text: str) -> None:
        """Print one line that the user should know."""
        self._console.print(f"note: {escape(text)}", highlight=False, soft_wrap=True)

    def device_line(self, name: str) -> Screen:
        """Return the screen of one of several device runners, with a line of its own."""
        self._live.update(self._task, description="all GPUs")
        return _DeviceLine(self, self._live, name)


class _DeviceLine:
    """Show one of several device runners on a line of its own.

    Args:
        display: what all of them add up to.
        live: progress display that has the line.
        name: name of the device.
    """

    def __init__(self, display: Display, live: Progress, name: str) -> None:
        self._display = display
        self._live = live
        self._name = name
        self._task = live.add_task(name, total=1.0, stage="")

    def variant(self, label: str) -> None:
        text = f"{self._name}  [bold]{escape(label)}[/bold]"
        self._live.update(self._task, description=text, stage="", completed=0.0)

    def stage(self, name: str, detail: str, done: float) -> None:
        self._live.update(self._task, stage=f"{name} {detail}".strip(), completed=done)

    def passed(self) -> None:
        self._live.update(self._task, completed=1.0, stage="")
        self._display.passed()

    def finished(self, record: Record) -> None:
        self._display.finished(record)

    def note(self, text: str) -> None:
        self._display.note(f"{self._name}: {text}")


def _gist(record: Record) -> str:
    if record.error is not None:
        return f"{record.error['stage']}: {record.error['message']}"
    peak = record.peak["ips"] if record.peak else None
    took = f"{record.wall_s:.1f} s" if record.wall_s is not None else ""
    return f"peak {peak:,.0f} samples/s, {took}" if peak is not None else took
