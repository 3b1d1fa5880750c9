"""Interrupts that arrive where an exception cannot get out."""

import signal
import sys

import pytest

from sweep.system import signals


class Finalized:
    """Raise in the destructor, where nobody catches it."""

    def __init__(self, error):
        self._error = error

    def __del__(self):
        raise self._error


@pytest.mark.parametrize(
    ("arrived", "error", "reported"),
    [
        ([signal.SIGTERM], KeyboardInterrupt(), ""),
        ([], KeyboardInterrupt(), "KeyboardInterrupt"),
        ([signal.SIGTERM], ValueError("a fault"), "ValueError: a fault"),
    ],
    ids=["an interrupt", "of something else", "another error"],
)
def test_an_interrupt_in_a_destructor_or_around_a_fork_prints_no_traceback(
    monkeypatch, capsys, arrived, error, reported
):
    monkeypatch.setattr(signals, "_arrived", arrived)
    monkeypatch.setattr(sys, "unraisablehook", signals._report_lost)
    Finalized(error)  # is gone at once
    printed = capsys.readouterr().err
    assert reported in printed if reported else printed == ""
