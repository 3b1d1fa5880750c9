"""Show a sweep while it runs: live lines on a terminal, a line per variant elsewhere."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self

from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from rich.console import Console

    from sweep.storage import Record

_REDRAWS_PER_S = 2  # the measurement has the machine; the line can wait
_STYLES = {"ok": "green", "unsupported": "yellow", "invalid": "yellow"}
_WAITING = "waiting for"  # a stage in which nothing of the pass is done
_STAGES = {  # what a user reads for the stage of a worker
    "start": "starting",
    "model": "reading the model",
    "onnx": "converting",
    "build": "building the engine",
    "load": "loading the engine",
    "measure": "measuring",
    "search": "searching the capacity",
    "accuracy": "comparing with fp32",
    "layers": "profiling the layers",
}
_BAR = 24  # columns of the bar
_FULL, _EMPTY = "\u2501", "\u2500"
_LEAST_LABEL = 12  # columns of a label that is cut
_MINUTE_S, _HOUR_S = 60, 3600


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


@dataclass(slots=True)
class _Line:
    """Hold what one line of the terminal shows.

    Attributes:
        head: count, or name of the device.
        label: label of the variant.
        stage: what is done now.
        done: share of all that is done, 0 to 1.
    """

    head: str
    label: str = ""
    stage: str = _STAGES["start"]
    done: float = 0.0

    def text(self, width: int, times: str) -> Text:
        """Return the line, never wider than `width`: the bar gives way first, then the label, then the stage."""
        right = f"  {times}" if times else ""
        room = width - 1 - len(self.head) - 1 - len(right)  # the last column stays free: some terminals wrap there
        stage = _cut(self.stage, room)
        label = self.label
        if len(label) + 2 + len(stage) > room:
            label = _cut(label, max(min(_LEAST_LABEL, len(label)), room - len(stage) - 2))
            stage = _cut(stage, room - len(label) - 2)
        bar_room = room - len(label) - len(stage) - 4
        bar = ""
        if bar_room >= _BAR // 2:
            columns = min(_BAR, bar_room)
            full = round(self.done * columns)
            bar = _FULL * full + _EMPTY * (columns - full) + "  "
        line = Text(f"{self.head} ", no_wrap=True, overflow="crop")
        line.append(label, style="bold")
        gap = "  " if label and (bar or stage) else ""
        return line.append(f"{gap}{bar}{stage}{right}"[: max(width - 1 - len(line), 0)])


def _cut(text: str, width: int) -> str:
    """Return `text` in at most `width` columns; a mark stands for what is cut."""
    return text if len(text) <= width else f"{text[: width - 1]}\u2026" if width > 0 else ""


class TimeLeft:
    """Estimate the time that is left, from what is expected and from what the passes so far took, waiting included.

    Args:
        passes: number of passes to run.
        expected_s: time that all of them are expected to take, s; None if nothing is known.
        clock: seconds of a clock that never goes back.
    """

    def __init__(self, passes: int, expected_s: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._passes = passes
        self._expected_s = expected_s
        self._clock = clock
        self._start = clock()
        self._last = self._start
        self._done = 0
        self._waiting_since: float | None = None
        self._waited_s = 0.0

    @property
    def elapsed_s(self) -> float:
        """Return the time since the start, s."""
        return self._clock() - self._start

    def passed(self) -> None:
        """Count a pass."""
        self._done += 1
        self.wait(waits=False)
        self._last, self._waited_s = self._clock(), 0.0

    def wait(self, *, waits: bool) -> None:
        """Tell whether the pass waits for its device, so that it comes no nearer to its end."""
        now = self._clock()
        if self._waiting_since is not None:
            self._waited_s += now - self._waiting_since
        self._waiting_since = now if waits else None

    def left_s(self) -> float | None:
        """Return the time that is left, s; None where nothing is known."""
        if self._expected_s is None and not self._done:
            return None
        prior = self._expected_s / max(self._passes, 1) if self._expected_s is not None else None
        taken_s = self._last - self._start
        weight = 0 if prior is None else 1  # what was expected counts as one pass
        pace_s = (taken_s + (prior or 0.0)) / (self._done + weight)
        now = self._clock()
        waited_s = self._waited_s + (now - self._waiting_since if self._waiting_since is not None else 0.0)
        remaining = max(self._passes - self._done, 0)
        # A pass that takes longer than the others is expected to end soon, and the others to take their time.
        return max(pace_s * remaining - (now - self._last - waited_s), pace_s * max(remaining - 1, 0), 0.0)


class Display:
    """Show the progress of one sweep: a ``Screen`` for one device runner, and of several their sum.

    Args:
        console: where to print.
        passes: number of passes to run, which the bar counts.
        labels: labels by the keys of the records; a record without an entry is shown by its own label.
        variants: number of records to come, which the lines count; None takes `passes`.
        expected_s: time that the passes are expected to take, s; None if nothing is known.
    """

    def __init__(
        self,
        console: Console,
        passes: int,
        labels: Mapping[str, str] | None = None,
        variants: int | None = None,
        expected_s: float | None = None,
    ) -> None:
        self._console = console
        self._labels = labels or {}
        self._passes = passes
        self._variants = passes if variants is None else variants
        self._counts_passes = variants is None
        self._done = 0
        self._finished: dict[str, int] = {}  # numbers of the records, by key
        self._counting = threading.Lock()
        self._time = TimeLeft(passes, expected_s)
        self._line = _Line(self._count(0))
        self._device_lines: list[_Line] = []
        self._live = _Live(console, self._render)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def _count(self, number: int) -> str:
        return f"[{number}/{self._variants}]"

    def _render(self) -> Group:
        width = self._console.width
        left_s = self._time.left_s()
        left = "left unknown" if left_s is None else f"left {_duration(left_s)}"
        first = self._line.text(width, f"{_clock_text(self._time.elapsed_s)}, {left}")
        return Group(first, *(line.text(width, "") for line in self._device_lines))

    def variant(self, label: str) -> None:
        """Show that a pass over the variant called `label` starts."""
        self._line.label = label
        self._show("start", "", 0.0)

    def stage(self, name: str, detail: str, done: float) -> None:
        """Show that the pass has come to stage `name`, with `done` of it, 0 to 1, behind it."""
        self._time.wait(waits=name == _WAITING)
        self._show(name, detail, done)

    def _show(self, name: str, detail: str, done: float) -> None:
        self._line.stage = "" if self._device_lines else _stage_text(name, detail)
        self._line.done = min((self._done + done) / max(self._passes, 1), 1.0)

    def passed(self) -> None:
        """Show that the pass is over."""
        with self._counting:
            self._done += 1
            self._time.passed()
        if self._counts_passes:
            self._line.head = self._count(self._done)
        self._show("start", "", 0.0)

    def finished(self, record: Record) -> None:
        """Show that a variant has its record."""
        with self._counting:
            number = self._finished.setdefault(record.key, len(self._finished) + 1)
        self._line.head = self._count(len(self._finished))
        self._live.refresh()  # a line printed above would stand over the count of before
        style = _STYLES.get(record.status, "red")
        label = self._labels.get(record.key, record.variant["label"])
        heading = f"{escape(self._count(number))} {escape(label)}"
        self._print(f"{heading}  [{style}]{record.status}[/{style}]  {escape(_gist(record))}")

    def note(self, text: str) -> None:
        """Print one line that the user should know."""
        self._print(f"note: {escape(text)}")

    def _print(self, markup: str) -> None:
        """Print a line: whole where a program reads it, broken between words on a terminal."""
        self._console.print(markup, highlight=False, soft_wrap=not self._console.is_terminal)

    def device_line(self, name: str) -> Screen:
        """Return the screen of one of several device runners, with a line of its own."""
        self._line.label, self._line.stage = "all GPUs", ""
        line = _Line(name)
        self._device_lines.append(line)
        return _DeviceLine(self, line)


class _Live:
    """Redraw lines at the bottom of a terminal; nothing where the output is no terminal.

    A terminal that becomes narrower breaks the lines that stand there into more lines, all of which have to go.

    Args:
        console: the terminal.
        render: makes the lines.
    """

    def __init__(self, console: Console, render: Callable[[], Group]) -> None:
        self._console = console
        self._render = render
        self._drawn: list[int] = []  # widths of the lines that stand there
        self._width = console.width
        self._live = Live(
            get_renderable=self._lines, console=console, refresh_per_second=_REDRAWS_PER_S, transient=True
        )

    def start(self) -> None:
        if self._console.is_terminal:
            self._live.start()

    def stop(self) -> None:
        self._live.stop()

    def refresh(self) -> None:
        """Draw the lines anew, now."""
        if self._console.is_terminal:
            self._live.refresh()

    def _lines(self) -> Group:
        width = self._console.width
        if width < self._width and self._drawn:
            rows = sum(max(1, math.ceil(columns / width)) for columns in self._drawn)
            self._live._live_render._shape = (width, rows)  # noqa: SLF001 - rich knows no other way
        self._width = width
        lines = self._render()
        self._drawn = [line.cell_len for line in lines.renderables if isinstance(line, Text)]
        return lines


class _DeviceLine:
    """Show one of several device runners on a line of its own.

    Args:
        display: what all of them add up to.
        line: the line.
    """

    def __init__(self, display: Display, line: _Line) -> None:
        self._display = display
        self._line = line
        self._name = line.head

    def variant(self, label: str) -> None:
        self._line.label = label
        self.stage("start", "", 0.0)

    def stage(self, name: str, detail: str, done: float) -> None:
        self._line.stage, self._line.done = _stage_text(name, detail), done

    def passed(self) -> None:
        self.stage("start", "", 1.0)
        self._display.passed()

    def finished(self, record: Record) -> None:
        self._display.finished(record)

    def note(self, text: str) -> None:
        self._display.note(f"{self._name}: {text}")


def _stage_text(name: str, detail: str) -> str:
    return f"{_STAGES.get(name, name)} {detail}".strip()


def _clock_text(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), _MINUTE_S)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"  # noqa: PLR2004


def _duration(seconds: float) -> str:
    if seconds < 2 * _MINUTE_S:
        return f"{seconds:.0f} s"
    return f"{seconds / _MINUTE_S:.0f} min" if seconds < 2 * _HOUR_S else f"{seconds / _HOUR_S:.1f} h"


def _gist(record: Record) -> str:
    if record.error is not None:
        return f"{record.error['stage']}: {record.error['message']}"
    peak = record.peak["ips"] if record.peak else None
    took = f"{record.wall_s:.1f} s" if record.wall_s is not None else ""
    return f"peak {peak:,.0f} samples/s, {took}" if peak is not None else took
