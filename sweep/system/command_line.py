"""Format the project's own commands in the form that the user of this process can type."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

NAME = "sweep"
_DEFAULT_RESULTS = "results"


def program() -> str:
    """Return the words that start this program again.

    Returns:
        ``sweep`` for the console script on PATH, its path for a script elsewhere, and ``python -m sweep``, with the
        interpreter as it was typed, for every other start.
    """
    script = Path(sys.argv[0])
    if script.name == NAME and script.is_file():
        on_path = shutil.which(NAME)
        return NAME if on_path is not None and Path(on_path).samefile(script) else shlex.quote(str(script))
    interpreter = sys.orig_argv[0] if sys.orig_argv and sys.orig_argv[0] else sys.executable
    return f"{shlex.quote(interpreter)} -m {NAME}"


def format_command(*words: str) -> str:
    """Return the command line of ``words``, quoted for a shell, e.g. ``sweep publish results``."""
    return " ".join([program(), *map(shlex.quote, words)])


def results_words(results: Path) -> list[str]:
    """Return the words that name a results folder: none for ``results`` in the working directory."""
    return [] if results.resolve() == Path(_DEFAULT_RESULTS).resolve() else [str(results)]
