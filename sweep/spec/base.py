"""What the classes of axes share."""

from __future__ import annotations

from typing import Any

NOT_IN_KEY = {"key": False}  # of a field that identifies nothing, as the path of a file whose digest is there
JsonDict = dict[str, Any]
