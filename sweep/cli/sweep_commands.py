"""Write the command lines that make a sweep, and each of its variants alone, for its page."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

from sweep.config import reproduce
from sweep.errors import SweepError
from sweep.system import command_line, regular_files

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from sweep.spec import Axis, Variant

_MOST_BYTES = 1 << 20  # of a config.json


def of_sweep(overrides: Sequence[str]) -> str:
    """Return the command line of a sweep, quoted for a shell."""
    return f"{command_line.NAME} {shlex.join(overrides)}".rstrip()


def of_folder(root: Path) -> str | None:
    """Return the command line of the sweep in a folder, by its config.json; None where that says nothing."""
    try:
        content: Any = json.loads(regular_files.read_text(root / "config.json", follow=False, most=_MOST_BYTES))
        words = content.get("command", content["overrides"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return of_sweep(list(map(str, words))) if isinstance(words, list) else None


def of_variants(variants: Mapping[str, Variant], axes: Iterable[Axis]) -> dict[str, str]:
    """Return the command line of each variant by its key, without those that this version cannot write.

    Args:
        variants: by the keys of their records.
        axes: written even at their defaults.
    """
    axes = tuple(axes)
    words = {key: words_of(variant, axes) for key, variant in variants.items()}
    return {key: of_sweep(own) for key, own in words.items() if own is not None}


def words_of(variant: Variant, axes: Iterable[Axis]) -> tuple[str, ...] | None:
    """Return the words of the command line that plan a variant alone; None where this version cannot write them.

    Args:
        variant: to write.
        axes: written even at their defaults.
    """
    try:
        return reproduce.overrides(variant, axes)
    except (SweepError, AttributeError, KeyError, TypeError, ValueError):
        # a record of another version may hold values that no axis of this one takes
        return None
