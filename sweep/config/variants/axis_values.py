"""Read the axes that are typed as they are from a composed config, each with its check."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

from sweep import spec

if TYPE_CHECKING:
    from sweep.config.schema import Config


def checked(config: Config, prefix: str) -> dict[str, Any]:
    """Return the values that are typed for the axes whose keys start with `prefix`, by the names of their fields.

    Args:
        config: composed by Hydra, which has checked the types.
        prefix: of the axes' places in a variant, as in ``engine`` or ``session.script``.

    Raises:
        ConfigError: the check of an axis refuses its value; one line.
    """
    values = {}
    for key, axis in spec.keyed().items():
        if ".".join(axis.path[:-1]) == prefix:
            value = operator.attrgetter(key)(config)
            if value is not None and axis.info.check is not None:
                axis.info.check(key, value)
            values[axis.name] = tuple(value) if isinstance(value, list) else value
    return values
