"""Sweeps on a simulated machine that may change in the middle; `forked_command.call_forked` calls them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sweep.runner import plan
from sweep.runner.executor import Run
from sweep.spec.settings import Settings
from sweep.storage.store import Store

if TYPE_CHECKING:
    from pathlib import Path

    from sweep.spec import Variant
    from sweep.storage.record import Record


class Screen:
    """Counts records, and changes the machine after some of them."""

    def __init__(self, machine: Path, after: int | None = None, factor: object = 1.0) -> None:
        self.machine, self.after, self.factor = machine, after, factor
        self.records: list[Record] = []
        self.notes: list[str] = []

    def finished(self, record: Record) -> None:
        self.records.append(record)
        if len(self.records) == self.after:
            self.machine.write_text(str(self.factor))

    def note(self, text: str) -> None:
        self.notes.append(text)

    def variant(self, label): ...

    def stage(self, name, detail, done): ...

    def passed(self): ...


def measure(
    results: Path, variants: list[Variant], begin: int, screen: Screen, options: dict[str, object]
) -> tuple[list[Record], list[Record], list[str]]:
    """Measure the works of a plan from number `begin` on.

    Returns:
        The records of all works, the records in the order in which they were told, and the notes on the screen.
    """
    made = plan.make(variants)
    settings = Settings(name="s", results=results, **options)
    told: list[Record] = []
    Run(made, settings, screen, told.append).execute(made.works[begin:])
    return [Store(settings.root).read(work.key) for work in made.works], told, screen.notes
