"""Spell the names of inputs on the command line, whatever characters an exporter put in them.

Hydra's grammar has no quotes for keys: a key of digits is read as a number, and a blank, a quote or an accent ends it.
A value may be quoted. An input whose name is no key is therefore named inside its table, under a key of its own:
``+model.inputs.called_0={name:'0',shape:[batch,16]}``.
"""

from __future__ import annotations

import re

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_NO_KEYS = frozenset({"null", "true", "false", "nan", "inf"})  # Hydra reads them as values
_PREFIX = "called_"
_NO_QUOTES_NEEDED = re.compile(r"[A-Za-z_/.][A-Za-z0-9_/.:@+-]*")


def is_plain_key(name: str) -> bool:
    """Tell whether the name of an input can stand as a key of ``model.inputs``, and is no key of another one."""
    return bool(_KEY.fullmatch(name)) and name.lower() not in _NO_KEYS and not name.startswith(_PREFIX)


def table_key(name: str) -> str:
    """Return the key of an input's table: its name, or another word for it, different for each name."""
    if is_plain_key(name):
        return name
    letters = (char if re.fullmatch("[A-Za-z0-9_]", char) else f"-{ord(char):x}-" for char in name)
    return f"{_PREFIX}{''.join(letters)}"


def quote(text: str) -> str:
    """Return `text` as a value in Hydra's grammar, in quotes unless it needs none."""
    if _NO_QUOTES_NEEDED.fullmatch(text) and text.lower() not in _NO_KEYS:
        return text
    escaped = re.sub(r"(\\*)('|$)", lambda match: match[1] * 2 + ("\\'" if match[2] else ""), text)
    return f"'{escaped}'"
