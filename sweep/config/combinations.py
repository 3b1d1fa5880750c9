"""Hold every combination of a sweep's values without holding a config for each."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from sweep.config.schema import Config

    Finish = Mapping[str, Callable[[Any], Any]]


class Value(NamedTuple):
    """Hold one value of a swept key, converted to the type of the key."""

    key: str
    value: Any


class Grid:
    """Make the configs of every combination of `values` on `base`, in the order of `itertools.product`.

    Configs share each section that is the same in both, as one object. A config costs a microsecond to make and is not
    kept, so that a sweep of 100,000 needs no memory for them.

    Args:
        base: the config that all have in common.
        values: for each swept key, its values.
        finish: by the name of a section: what is done to it once its values are set.
    """

    def __init__(self, base: Config, values: Sequence[Sequence[Value]], finish: Finish) -> None:
        self._base = finished(base, finish)
        self._counts = [len(options) for options in values]
        heads = list(dict.fromkeys(options[0].key.partition(".")[0] for options in values if options))
        self._sections = [_Section(base, head, values, finish.get(head)) for head in heads] if all(self._counts) else []
        self._steps = [self._steps_of(number, options) for number, options in enumerate(values)]

    def _steps_of(self, number: int, options: Sequence[Value]) -> list[tuple[int, int]]:
        """Return for each value of key `number` its section's place, and what it adds to the number of the variety."""
        place = next((place for place, section in enumerate(self._sections) if number in section.strides), 0)
        stride = self._sections[place].strides[number] if self._sections else 0
        return [(place, index * stride) for index in range(len(options))]

    def __len__(self) -> int:
        return math.prod(self._counts)

    def __iter__(self) -> Iterator[Config]:
        return map(self._config, itertools.product(*self._steps))

    def __getitem__(self, number: int) -> Config:
        """Return one config; a negative `number` counts from the end."""
        if not -len(self) <= number < len(self):
            raise IndexError(number)
        number %= len(self)
        steps = []
        for options in reversed(self._steps):
            number, index = divmod(number, len(options))
            steps.append(options[index])
        return self._config(tuple(reversed(steps)))

    def distinct(self, name: str) -> Iterator[Any]:
        """Yield every value of the section or key `name` at the top of a config, each once."""
        section = next((section for section in self._sections if section.head == name), None)
        if section is not None:
            yield from map(section.variety, range(section.count))
        elif len(self):
            yield getattr(self._base, name)

    def _config(self, steps: tuple[tuple[int, int], ...]) -> Config:
        numbers = [0] * len(self._sections)
        for place, step in steps:
            numbers[place] += step
        config = object.__new__(type(self._base))
        config.__dict__ = {
            **vars(self._base),
            **{section.head: section.variety(number) for section, number in zip(self._sections, numbers, strict=True)},
        }
        return config


class _Section:
    """Make the varieties of one section, or of one key, at the top of the config.

    Attributes:
        head: its name.
        strides: by the number of each swept key in it: what one step of the key adds to the number of the variety.
        count: of the varieties.
    """

    def __init__(
        self, base: Config, head: str, values: Sequence[Sequence[Value]], finish: Callable[[Any], Any] | None
    ) -> None:
        self.head = head
        self._finish = finish
        self._base = getattr(base, head)
        self._values = {
            number: options for number, options in enumerate(values) if options[0].key.partition(".")[0] == head
        }
        self.strides: dict[int, int] = {}
        self.count = 1
        for number, options in reversed(self._values.items()):
            self.strides[number] = self.count
            self.count *= len(options)
        total = math.prod(map(len, values))
        self._made: dict[int, Any] | None = {} if self.count < total or total == 1 else None

    def variety(self, number: int) -> Any:
        """Return variety `number`; one that several configs share is made once."""
        if self._made is None:
            return self._make(number)
        if number not in self._made:
            self._made[number] = self._make(number)
        return self._made[number]

    def _make(self, number: int) -> Any:
        made = self._base
        for key_number, options in self._values.items():
            key, value = options[number // self.strides[key_number] % len(options)]
            rest = key.partition(".")[2]
            made = replace(made, {rest: value}) if rest else value
        return made if self._finish is None else self._finish(made)


class Listed:
    """Hold configs that share nothing, as those whose values refer to others."""

    def __init__(self, configs: Sequence[Config]) -> None:
        self._configs = tuple(configs)

    def __len__(self) -> int:
        return len(self._configs)

    def __iter__(self) -> Iterator[Config]:
        return iter(self._configs)

    def __getitem__(self, number: int) -> Config:
        """Return one config; a negative `number` counts from the end."""
        return self._configs[number]

    def distinct(self, name: str) -> Iterator[Any]:
        """Yield the value of the section or key `name` of each config."""
        return (getattr(config, name) for config in self._configs)


class Combinations:
    """Join grids: one for each combination of what Hydra has to compose, such as groups.

    Args:
        parts: in the order of the request.
    """

    def __init__(self, parts: Sequence[Grid | Listed | Combinations]) -> None:
        self._parts = tuple(parts)

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def __iter__(self) -> Iterator[Config]:
        return itertools.chain.from_iterable(self._parts)

    def __getitem__(self, number: int) -> Config:
        """Return one config; a negative `number` counts from the end."""
        if number < 0:
            number += len(self)
        for part in self._parts:
            if 0 <= number < len(part):
                return part[number]
            number -= len(part)
        raise IndexError(number)

    def distinct(self, name: str) -> Iterator[Any]:
        """Yield every value of the section or key `name` at the top of a config, each at least once."""
        return itertools.chain.from_iterable(part.distinct(name) for part in self._parts)


def finished(config: Config, finish: Finish) -> Config:
    """Return `config` with the sections that `finish` names as it makes them."""
    changed = {name: make(getattr(config, name)) for name, make in finish.items()}
    return dataclasses.replace(config, **changed) if changed else config


def replace(config: Any, values: Mapping[str, Any]) -> Any:
    """Return a copy of the dataclass `config` with `values` at their dotted keys."""
    for key, value in values.items():
        head, _, rest = key.partition(".")
        inner = replace(getattr(config, head), {rest: value}) if rest else value
        config = dataclasses.replace(config, **{head: inner})
    return config
