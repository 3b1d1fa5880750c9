"""Write a value in the grammar of the command line."""

from __future__ import annotations

import re
from typing import Any

from sweep import spec
from sweep.spec import plain_text


def value_text(value: Any) -> str:
    """Return `value` in Hydra's grammar."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{_key(key)}:{value_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(value_text, value))}]"
    return spec.quote(value) if isinstance(value, str) else plain_text(value)


def _key(name: object) -> str:
    """Return a name as a key of a table, with the characters escaped that would end it."""
    return re.sub(r"([\\()\[\]{}:=, \t])", r"\\\1", str(name))
