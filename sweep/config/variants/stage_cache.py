"""Make each part of a variant once for all configs that agree in what the part is made of.

The configs of a sweep share the sections that do not vary (`sweep.config.combinations`), and a part of a variant
depends on few of them: 100,000 variants of 1,000 batches and 100 numbers of streams have 1,100 distinct parts.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable

    from sweep.config.schema import Config

_Part = TypeVar("_Part")
_MOST = 10_000  # parts in one table; a sweep with more of them seldom meets one of them again


class _ReadNames:
    """Stand in for a config and record which of its sections and values are read."""

    __slots__ = ("_config", "names")

    def __init__(self, config: Config) -> None:
        self._config = config
        self.names: dict[str, None] = {}

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._config, name)
        self.names[name] = None
        return value


class StageCache(Generic[_Part]):
    """Cache the results of `make`, which has to depend on its config and on files that do not change meanwhile.

    Two configs share a result if every section that `make` read of the first is the same object in the second: `make`
    would take the same path again. Objects are compared by identity, so that 1 and 1.0 stay apart as they do in a key.

    Args:
        make: config -> part of a variant.
    """

    def __init__(self, make: Callable[[Config], _Part]) -> None:
        self._make = make
        # By the names that `make` read, which may depend on the values; then by the identities of what they named.
        # An entry keeps those objects alive, so that no other object gets the identity of one.
        self._tables: dict[tuple[str, ...], dict[Any, tuple[Any, _Part]]] = {}
        self._readers: dict[tuple[str, ...], Callable[[Config], Any]] = {}

    def __call__(self, config: Config) -> _Part:
        """Return the part for `config`; makes it if no earlier config agrees with this one.

        Raises:
            SweepError: what `make` raises; nothing is cached then.
        """
        for names, table in self._tables.items():
            entry = table.get(_identity(self._readers[names](config)))
            if entry is not None:
                return entry[1]
        reads = _ReadNames(config)
        part = self._make(cast("Config", reads))
        names = tuple(reads.names)
        if names not in self._tables:
            self._tables[names], self._readers[names] = {}, _reader(names)
        table = self._tables[names]
        if len(table) >= _MOST:
            table.clear()
        values = self._readers[names](config)
        table[_identity(values)] = (values, part)
        return part


def _reader(names: tuple[str, ...]) -> Callable[[Config], Any]:
    """Return a function that reads `names` of a config as a tuple."""
    if len(names) > 1:
        return cast("Callable[[Config], Any]", attrgetter(*names))
    return lambda config: tuple(getattr(config, name) for name in names)


def _identity(values: tuple[Any, ...]) -> tuple[int, ...]:
    return tuple(map(id, values))
