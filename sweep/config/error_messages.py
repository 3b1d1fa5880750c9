"""Turn what Hydra and OmegaConf raise into one line: what was requested, what it met, what to do."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

from hydra.errors import OverrideParseException

from sweep.config.schema import GROUPS, help_lines
from sweep.errors import shorten
from sweep.system import command_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hydra.errors import MissingConfigException


def one_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its class if it has none."""
    return str(error).strip().splitlines()[0].strip() if str(error).strip() else type(error).__name__


def explain(error: Exception, argv: Sequence[str]) -> str:
    """Return what is wrong with the command line.

    Args:
        error: what Hydra or OmegaConf raised while composing.
        argv: the command line, to quote the override at fault.
    """
    if isinstance(error, OverrideParseException):
        return f"{error.override}: cannot be read ({' '.join(str(error).splitlines()[1:2])})"
    cause = error.__cause__ or error
    text = f"{error}\n{cause}"
    unknown = re.search(r"Could not override '([^']+)'|Key '([^']+)' not in|Key '([^']+)' is not in struct", text)
    if unknown:
        full = re.search(r"full_key: (\S+)", text)
        return unknown_key(full.group(1) if full else next(name for name in unknown.groups() if name))
    match = re.search(r"Error merging override ([^=\s]+)", str(error))
    if match is None:
        return f"{shorten(' '.join(argv))}: {shorten(one_line(cause))}"
    key = match.group(1)
    override = next((item for item in argv if item.lstrip("+").startswith(f"{key.lstrip('+')}=")), key)
    return f"{override}: {one_line(cause)}"


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
    return f"{group}={choice}: no such {group}; there are: {options}"
