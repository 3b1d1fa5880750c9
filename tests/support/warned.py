"""What a test was warned of."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def warned(recorder: pytest.WarningsRecorder) -> list[str]:
    """Return the warnings that were recorded; that an object of an earlier test is collected now is none of them."""
    return [str(item.message) for item in recorder.list if not issubclass(item.category, ResourceWarning)]
