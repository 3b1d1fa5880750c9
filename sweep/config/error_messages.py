"""Turn what Hydra and OmegaConf raise into one line: what was requested, what it met, what to do."""

from __future__ import annotations

import difflib
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.errors import OverrideParseException

from sweep import spec
from sweep.config.schema import GROUPS, help_lines
from sweep.errors import shorten
from sweep.system import command_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hydra.errors import MissingConfigException


_PLAIN = (  # what OmegaConf says of a value: what a user reads
    (r"Value .* could not be converted to Integer$", "is no whole number"),
    (r"Value .* could not be converted to Float$", "is no number"),
    (r"Value .* is not a valid bool .*", "is neither true nor false"),
    (r"field '.*' is not Optional$", "null cannot stand here; give a value"),
    (r"Cannot convert '(dict|list)' to string: .*", "is no text"),
    (r"Invalid value assigned: \w+ is not a ListConfig, list or tuple\.$", "is no list, as in [1,2]"),
)


def one_line(error: BaseException) -> str:
    """Return the first line of an error's message in plain words, or the name of its class if it has none."""
    line = str(error).strip().splitlines()[0].strip() if str(error).strip() else type(error).__name__
    return next((plain for pattern, plain in _PLAIN if re.match(pattern, line)), line)


def explain(error: Exception, argv: Sequence[str]) -> str:
    """Return what is wrong with the command line.

    Args:
        error: what Hydra or OmegaConf raised while composing.
        argv: the command line, to quote the override at fault.
    """
    if isinstance(error, OverrideParseException):
        return _unreadable(error)
    cause = error.__cause__ or error
    text = f"{error}\n{cause}"
    unknown = re.search(r"Could not override '([^']+)'|Key '([^']+)' not in|Key '([^']+)' is not in struct", text)
    if unknown:
        full = re.search(r"full_key: (\S+)", text)
        return unknown_key(full.group(1) if full else next(name for name in unknown.groups() if name))
    match = re.search(r"Error merging override ([^=\s]+)", str(error)) or re.search(r"full_key: (\S+)", text)
    reason = shorten(_reason(cause))
    if match is not None:
        key = match.group(1)
        override = next((item for item in argv if item.lstrip("+").startswith(f"{key.lstrip('+')}=")), key)
        return f"{override}: {reason}"
    reference = re.search(r"Interpolation key '([^']+)'|Unsupported interpolation type (\S+)", text)
    name = next(filter(None, reference.groups())) if reference is not None else None
    override = next((item for item in argv if name is not None and f"${{{name}" in item), None)
    return f"{override or shorten(' '.join(argv))}: {reason}"


def _unreadable(error: OverrideParseException) -> str:
    """Return why an override cannot be read: the parser's first line without its caret, and the form that can be."""
    override, reason = str(error.override), str(error).splitlines()[0].strip()
    key, equals, value = override.partition("=")
    hint = ""
    if re.match(r"\w+Exception:|Error parsing override", reason):  # names of the parser's own, and the override again
        reason = "a character stands where none of its kind can" if equals else "a setting is KEY=VALUE"
    if equals and value[:1] != "=" and not re.search(r"[\[\]{},]|^\w+\(", value):  # a path or a name
        word = f"{key}={spec.quote(value)}"
        typed = shlex.quote(word) if set(word) & set('"$`\\!') else f'"{word}"'
        hint = f"; a text with such characters has quotes: {typed}"
    return f"{shorten(override)}: cannot be read ({reason}){hint}"


def _reason(error: BaseException) -> str:
    """Return the line of an error's message that says what is wrong: Hydra puts the file in front, without its path."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and re.match(r"In '.*': \w+ raised while composing config:$", lines[0]):
        return one_line(ValueError(lines[1]))
    return one_line(error)


def unknown_key(key: str) -> str:
    """Return the message for a key that does not exist, with the key that was likely meant."""
    if key == "experiment":
        return "experiment: put a + before it, as in +experiment=quickstart"
    keys = [*GROUPS, *(line.split()[0] for line in help_lines())]
    near = difflib.get_close_matches(key, keys, n=1)
    hint = f"did you mean {near[0]}?" if near else f"`{command_line.format_command('--help', 'all')}` lists the keys"
    return f"{shorten(key)}: no such key; {hint}"


def missing_choice(error: MissingConfigException) -> str:
    """Return the message for a choice that its group does not have, with the choices that it has."""
    missing = error.missing_cfg_file or ""
    group, _, choice = missing.rpartition("/")
    options = ", ".join(error.options or ())
    if not group:
        return one_line(error)
    head, _, rest = missing.partition("/")
    if head in GROUPS and head != group:
        return f"{head}={rest}: no such {head}; give a name, as in {head}={Path(rest).stem}"
    return f"{group}={choice}: no such {group}; there are: {options}"
