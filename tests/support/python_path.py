"""Make PYTHONPATH for the processes that tests start."""

from __future__ import annotations

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def python_path(*first: Path | str) -> str:
    """Return PYTHONPATH with `first` before this checkout, and what it has already after it."""
    return os.pathsep.join([*map(str, first), str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])])
