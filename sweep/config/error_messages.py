"""What Hydra and OmegaConf raise, in one line: what was asked, what was found, what to do."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

from hydra.errors import OverrideParseException

from sweep.config.schema import GROUPS, help_lines
from sweep.system import command_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hydra.errors import MissingConfigException


def one_line(error: BaseException) -> str:
    """The first line of a message that carries more."""
    return str(error).strip().splitlines()[0].strip() if str(error).strip() else type(error).__name__


def explained(error: Exception, argv: Sequence[str]) -> str:
    """What was wrong with the words, from what Hydra or OmegaConf raised."""
    if isinstance(error, OverrideParseException):
        return f"{error.override}: cannot be read ({' '.join(str(error).splitlines()[1:2])})"
    cause = error.__cause__ or error
    text = f"{error}\n{cause}"
    unknown = re.search(r"Could not override '([^']+)'|Key '([^']+)' not in|Key '([^']+)' is not in struct", text)
    if unknown:
        full = re.search(r"full_key: (\S+)", text)
        return unknown_key(full.group(1) if full else next(name for name in unknown.groups() if name))
    asked = re.search(r"Error merging override ([^=\s]+)", str(error))
    key = asked.group(1).lstrip("+") if asked else None
    word = next((item for item in argv if key and item.lstrip("+").startswith(f"{key}=")), asked and asked.group(1))
    return f"{word}: {one_line(cause)}" if word else f"{' '.join(argv)}: {one_line(cause)}"


def unknown_key(key: str) -> str:
    """That there is no such key, and which was likely meant."""
    if key == "experiment":
        return "experiment: put a + before it, as in +experiment=quickstart"
    known = [*GROUPS, *(line.split()[0] for line in help_lines())]
    near = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"`{command_line.format_command('--help')}` lists the keys"
    return f"{key}: no such key; {hint}"


def missing_choice(error: MissingConfigException) -> str:
    """That a group has no such choice, and which it has."""
    missing = error.missing_cfg_file or ""
    group, _, choice = missing.rpartition("/")
    options = ", ".join(error.options or ())
    if not group:
        return one_line(error)
    return f"{group}={choice}: no such {group}; there are: {options}"
