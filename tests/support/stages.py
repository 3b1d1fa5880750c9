"""Write down the stage that a sweep is in, to the file of ``SWEEP_TEST_STAGE``: parent and worker share it."""

from __future__ import annotations

import functools
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

FILE, WIDTH = "SWEEP_TEST_STAGE", 24


def note(stage: str) -> None:
    """Write one stage over the last one, in one call, so that a reader never sees half of it."""
    handle = os.open(os.environ[FILE], os.O_WRONLY)
    os.pwrite(handle, stage.ljust(WIDTH).encode(), 0)
    os.close(handle)


def noted(owner: object, name: str, stage: str, after: str) -> None:
    """Let the function `name` of `owner` note `stage` when it is entered and `after` when it is left."""
    function = getattr(owner, name)

    @functools.wraps(function)
    def noting(*values: Any, **named: Any) -> Any:
        note(stage)
        try:
            return function(*values, **named)
        finally:
            note(after)

    setattr(owner, name, noting)


def noted_events(stage: Callable[..., None]) -> Callable[..., None]:
    """Return the worker's ``Events.stage`` with a note of each stage."""

    def noting(self: object, name: str, *values: Any, **named: Any) -> None:
        note(f"worker: {name}")
        stage(self, name, *values, **named)

    return noting


def install() -> None:
    """Wrap the places that tell how far a sweep has come."""
    from sweep.runner.worker import events

    events.Events.stage = noted_events(events.Events.stage)  # type: ignore[method-assign]
    if "sweep.runner.worker.main" in sys.orig_argv:
        return
    from sweep.cli import run
    from sweep.report.mlflow.publisher import Publisher
    from sweep.runner import record_finisher, resume
    from sweep.storage import Store

    noted(resume, "remaining", "plan", "between variants")
    noted(record_finisher.RecordFinisher, "write_measured", "samples and record", "between variants")
    noted(Store, "write", "record", "between variants")
    noted(run.table, "print_outcome", "report", "report")
    noted(Publisher, "publish", "publish", "after publish")
