"""Read and check the axes whose values a composed config holds as they are."""

from __future__ import annotations

import functools
import operator
from typing import TYPE_CHECKING, Any

from sweep import spec

if TYPE_CHECKING:
    from collections.abc import Callable

    from sweep.config.schema import Config


def checked(config: Config, prefix: str) -> dict[str, Any]:
    """Return the checked values of the axes at `prefix` in a variant, by the names of their fields; lists as tuples.

    Args:
        config: composed by Hydra, which has checked the types.
        prefix: dotted path of the class in a variant, as in ``engine`` or ``session.script``.

    Raises:
        ConfigError: the check of an axis refuses its value; one line.
    """
    values = {}
    for key, axis, read in _axes(prefix):
        value = read(config)
        if value is not None and axis.info.check is not None:
            axis.info.check(key, value)
        values[axis.name] = tuple(value) if isinstance(value, list) else value
    return values


@functools.cache
def _axes(prefix: str) -> list[tuple[str, spec.Axis, Callable[[Config], Any]]]:
    """Return the key, the declaration and the reader of each axis at `prefix`."""
    return [
        (key, axis, operator.attrgetter(key))
        for key, axis in spec.keyed().items()
        if ".".join(axis.path[:-1]) == prefix
    ]
