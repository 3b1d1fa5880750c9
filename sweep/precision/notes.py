"""Word the notes that a conversion adds to its record."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_MAX_NAMES = 5


def count_of(count: int, noun: str) -> str:
    """Word a count, such as ``1 node`` or ``2 nodes``.

    Args:
        count: number of things, 0 or more.
        noun: their name in the singular.

    Returns:
        The count and the noun.
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def first_names(names: Sequence[str]) -> str:
    """List the first five names, with an ellipsis where there are more.

    Args:
        names: node names, in graph order.

    Returns:
        The names with commas between them.
    """
    return ", ".join(names[:_MAX_NAMES]) + (", ..." if len(names) > _MAX_NAMES else "")
