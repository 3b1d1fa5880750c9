"""``only=`` and ``skip=``: some of what was asked, by words of the label or by axis:value.

A condition is a word of the label (``fp16``, ``b8``) or ``axis:value``; ``|`` separates alternatives, and ``&`` joins
conditions into one that asks for all of them. ``only`` keeps what every one of its conditions holds for, ``skip``
drops what any of its own does.
"""

from __future__ import annotations

import dataclasses
import difflib
from typing import TYPE_CHECKING, Any

from sweep import spec
from sweep.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sweep.runner.plan import Plan, Work


def of(made: Plan, only: Sequence[str], skip: Sequence[str]) -> Plan:
    """The plan with the chosen works alone.

    Raises:
        ConfigError: a condition names no axis, or holds for no variant, or nothing is left.
    """
    if not only and not skip:
        return made
    known = {work.key: _values(work) for work in made.works}
    for key, conditions in (("only", only), ("skip", skip)):
        for condition in (part for whole in conditions for part in _single(whole, known)):
            if not any(_holds(condition, work, known[work.key]) for work in made.works):
                raise ConfigError(f"{key}={condition}: {_why_none(condition, list(known.values()))}")
    works = tuple(
        work
        for work in made.works
        if all(_holds(condition, work, known[work.key]) for condition in only)
        and not any(_holds(condition, work, known[work.key]) for condition in skip)
    )
    if not works:
        asked = [f"{key}=[{','.join(words)}]" for key, words in (("only", only), ("skip", skip)) if words]
        raise ConfigError(f"{' '.join(asked)}: leaves none of {len(made.works)} variants")
    return dataclasses.replace(made, works=works)


def _single(condition: str, known: Mapping[str, Mapping[str, str]]) -> list[str]:
    """What of a condition has to hold for some variant: all of it, but of a joined one only axes that no variant has.

    An experiment may leave out combinations that its user does not ask for.
    """
    parts = condition.split("&")
    return parts if len(parts) == 1 else [part for part in parts if not _names_an_axis(part, known)]


def _names_an_axis(part: str, known: Mapping[str, Mapping[str, str]]) -> bool:
    axis, colon, _ = part.partition(":")
    return bool(colon) and any(axis in values for values in known.values())


def _holds(condition: str, work: Work, values: Mapping[str, str]) -> bool:
    return all(_part_holds(part, work, values) for part in condition.split("&"))


def _part_holds(condition: str, work: Work, values: Mapping[str, str]) -> bool:
    axis, colon, wanted = condition.partition(":")
    if colon:
        return values.get(axis) in _alternatives(wanted)
    return not _alternatives(condition).isdisjoint(word.lower() for word in work.variant.label.split())


def _alternatives(text: str) -> set[str]:
    return {word.strip().lower() for word in text.split("|")}


def _values(work: Work) -> dict[str, str]:
    """Every axis that has one value, as it is typed on the command line; those of the load under ``load.`` too."""
    flat = spec.flat(work.variant)
    load = flat.pop("load")
    named: dict[str, Any] = {**flat, **{f"load.{name}": value for name, value in load.items()}, "load": load["kind"]}
    return {name: _typed(value) for name, value in named.items() if not isinstance(value, (dict, list, tuple))}


def _typed(value: Any) -> str:
    if value is None:
        return "null"
    return f"{value:g}" if isinstance(value, float) else str(value).lower()


def _why_none(condition: str, known: Sequence[Mapping[str, str]]) -> str:
    axis, colon, _ = condition.partition(":")
    if not colon:
        return "no variant has that word in its label; axis:value, as in batch:8, names an axis"
    names = sorted(set().union(*known))
    if axis not in names:
        near = difflib.get_close_matches(axis, names, n=1)
        return f"no such axis; {f'did you mean {near[0]}?' if near else 'batch, precision and streams are some'}"
    return f"no variant has it; {axis} is {', '.join(sorted({values[axis] for values in known if axis in values}))}"
