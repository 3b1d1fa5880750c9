"""Keep the commands of 0.1 alive for one release: ``python -m sweep.doctor``, with the arguments that it took.

``sweep.__path__`` holds this folder, so that its modules answer to their old names (decision 35).
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from sweep import __main__
from sweep.system import command_line

if TYPE_CHECKING:
    from collections.abc import Sequence

_COMMANDS = {
    "doctor": "doctor",
    "tracking": "publish",
    "cache": "cache",
    "restat": "recompute",
    "bisect": "bisect",
    "trtexec": "trtexec",
}
_OPTIONS = {
    "restat": ("write",),
    "bisect": ("rows", "gate_db", "batch", "cache", "json"),
    "trtexec": ("parity", "binary", "cache", "timeout_s"),
}
_ACTION = "prune"  # of the cache, which stood behind the results folder


def run(module: str) -> NoReturn:
    """Run the command that ``python -m sweep.<module>`` was, after one line on stderr with its new form.

    Args:
        module: last part of the old name, e.g. ``restat``.
    """
    words = translated(module, sys.argv[1:])
    old = shlex.join(["python", "-m", f"sweep.{module}"])
    sys.stderr.write(f"{old} is now: {command_line.format_command(*words)}\n")
    sys.argv[1:] = words
    __main__.main()


def translated(module: str, words: Sequence[str]) -> list[str]:
    """Return the new command line of an old one.

    Args:
        module: last part of the old name.
        words: its arguments; options are key=value.
    """
    moved = [words[1], words[0], *words[2:]] if module == "cache" and words[1:2] == [_ACTION] else list(words)
    new = [part for word in moved for part in _option(word, _OPTIONS.get(module, ()))]
    return [_COMMANDS[module], *new]


def _option(word: str, keys: Sequence[str]) -> list[str]:
    """Return ``key=value`` as an option, if ``key`` is one of ``keys``, and any other word as it is."""
    key, assigned, value = word.partition("=")
    if not assigned or key not in keys or Path(word).exists():
        return [word]
    name = f"--{key.replace('_', '-')}"
    if value in {"true", "false"}:
        return [name] if value == "true" else []
    return [f"{name}={value}"]
