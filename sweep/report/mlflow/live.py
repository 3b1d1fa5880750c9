"""Publish the records of a running sweep as they are finished, without waiting for a dead or slow server."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from sweep.errors import TrackingBusyError, TrackingError
from sweep.report.mlflow.client import LOCK_TIMEOUT_S
from sweep.report.mlflow.pages_address import ui_address
from sweep.report.mlflow.publisher import Publisher
from sweep.report.mlflow.store_uri import reachable, resolve_uri, without_password
from sweep.spec import Tracking
from sweep.storage import Store
from sweep.system import command_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sweep.report.mlflow.publisher import Published
    from sweep.spec import Settings
    from sweep.storage import Record

_EVERY_S = 10.0  # least time between two transfers, so that a thousand short variants cost few of them
_WAIT_S = 2.0  # longest wait between variants for another sweep that publishes to the same store
_SLOW_S = 10.0  # a transfer that took longer is the last before the end: the sweep does not wait for a slow server


class Publishing:
    """Publish records between variants, when nothing is being measured.

    After the first failure this sweep publishes nothing more: the records are on disk, and ``sweep publish`` sends them
    later. A server that is slow gets the remaining records at the end.

    Args:
        tracking: MLflow's store and experiment, and whether to publish at all.
        settings: settings of the sweep.
        labels: names of the runs by the keys of their records; None labels them by the axes that differ between
            the records of one transfer.
    """

    def __init__(self, tracking: Tracking, settings: Settings, labels: Mapping[str, str] | None = None) -> None:
        self._enabled = tracking.enabled
        self._labels = labels
        self._store = Store(settings.root)
        self._tracking, self._results = tracking, settings.results
        self._uri = resolve_uri(tracking.uri, settings.results) if tracking.enabled else ""
        artifacts = settings.results / "mlartifacts"
        self._publisher = Publisher(self._uri, tracking.experiment, settings.name, artifacts=artifacts)
        self._pending: list[Record] = []
        self._last_s = 0.0
        self._slow = False
        self._problem: str | None = None
        self._busy: str | None = None
        self._notes: list[str] = []

    def finished(self, record: Record) -> None:
        """Publish a record that is on disk, now or together with the next ones."""
        if not self._enabled or self._problem or self._slow:
            return
        self._pending.append(record)
        if time.monotonic() - self._last_s >= _EVERY_S and self._send(self._pending, _WAIT_S) is not None:
            self._pending = []

    def conclude(self, records: Sequence[Record]) -> str:
        """Publish the remaining records; return the line to print: the link, or the command that sends them later."""
        if not self._enabled:
            return f"MLflow   not asked for; `{self._publish_command()}` sends the records"
        outcome = None if self._problem else self._send(records, LOCK_TIMEOUT_S)
        notes = "".join(f"note: {note}\n" for note in self._notes)
        problem = self._problem or self._busy
        if problem:
            return f"{notes}MLflow   {problem}; nothing is lost, `{self._publish_command()}` sends the records"
        ui = (outcome and outcome.ui) or ui_address(self._uri)
        served = "" if ui.port is None else f"  (once `{self._command('ui', *ui.words)}` runs)"
        return f"{notes}MLflow   {(outcome and outcome.url) or ''}{served}"

    def _publish_command(self) -> str:
        experiment = self._tracking.experiment
        return self._command("publish", *([] if experiment == Tracking().experiment else ["--experiment", experiment]))

    def _command(self, name: str, *options: str) -> str:
        """Return the command ``name`` for this store and results folder, as the user can type it."""
        uri = ["--uri", without_password(self._tracking.uri)] if self._tracking.uri else []
        return command_line.format_command(name, *command_line.results_words(self._results), *uri, *options)

    def _send(self, records: Sequence[Record], wait_s: float) -> Published | None:
        """Publish records and return the outcome; None if they were not sent, with the reason kept.

        Args:
            records: records to publish.
            wait_s: longest wait for another sweep that publishes to the same store, s.
        """
        start_s = time.monotonic()
        self._busy = None
        problem = reachable(self._uri)
        if problem is not None:
            self._problem = f"{without_password(self._uri)} cannot be written: {problem}"
            return None
        try:
            outcome = self._publisher.publish(records, self._store, self._labels, wait_s=wait_s)
        except TrackingBusyError as error:
            self._busy = str(error)
            return None
        except TrackingError as error:
            self._problem = str(error)
            return None
        finally:
            self._last_s = time.monotonic()
            self._slow = self._last_s - start_s > _SLOW_S
        self._notes += outcome.notes
        return outcome
