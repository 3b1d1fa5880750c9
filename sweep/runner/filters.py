"""Filter a plan by ``only=`` and ``skip=``: by words of the label or by axis:value.

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


def of(plan: Plan, only: Sequence[str], skip: Sequence[str]) -> Plan:
    """Return the plan with the works that pass the filters alone.

    Raises:
        ConfigError: a condition names no axis, or holds for no variant, or nothing is left.
    """
    if not only and not skip:
        return plan
    axis_values = {work.key: _values(work) for work in plan.works}
    for key, conditions in (("only", only), ("skip", skip)):
        for condition in (part for joined in conditions for part in _required_parts(joined, axis_values)):
            if not any(_holds(condition, work, axis_values[work.key]) for work in plan.works):
                raise ConfigError(f"{key}={condition}: {_no_match_reason(condition, list(axis_values.values()))}")
    works = tuple(
        work
        for work in plan.works
        if all(_holds(condition, work, axis_values[work.key]) for condition in only)
        and not any(_holds(condition, work, axis_values[work.key]) for condition in skip)
    )
    if not works:
        filters = [f"{key}=[{','.join(words)}]" for key, words in (("only", only), ("skip", skip)) if words]
        raise ConfigError(f"{' '.join(filters)}: leaves none of {len(plan.works)} variants")
    return dataclasses.replace(plan, works=works)


def _required_parts(condition: str, axis_values: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Return the parts of a condition that have to hold for some variant, else it is an error.

    That is all of it, but of a joined one only the axes that no variant has: an experiment may leave out combinations
    that its user does not ask for.
    """
    parts = condition.split("&")
    return parts if len(parts) == 1 else [part for part in parts if not _names_an_axis(part, axis_values)]


def _names_an_axis(part: str, axis_values: Mapping[str, Mapping[str, str]]) -> bool:
    axis, colon, _ = part.partition(":")
    return bool(colon) and any(axis in values for values in axis_values.values())


def _holds(condition: str, work: Work, values: Mapping[str, str]) -> bool:
    return all(_part_holds(part, work, values) for part in condition.split("&"))


def _part_holds(condition: str, work: Work, values: Mapping[str, str]) -> bool:
    axis, colon, allowed = condition.partition(":")
    if colon:
        return values.get(axis) in _alternatives(allowed)
    return not _alternatives(condition).isdisjoint(word.lower() for word in work.variant.label.split())


def _alternatives(text: str) -> set[str]:
    return {word.strip().lower() for word in text.split("|")}


def _values(work: Work) -> dict[str, str]:
    """Return every axis that has one value, as the command line spells it; those of the load under ``load.`` too."""
    flat = spec.flat(work.variant)
    load = flat.pop("load")
    axes: dict[str, Any] = {**flat, **{f"load.{name}": value for name, value in load.items()}, "load": load["kind"]}
    return {name: _typed(value) for name, value in axes.items() if not isinstance(value, (dict, list, tuple))}


def _typed(value: Any) -> str:
    if value is None:
        return "null"
    return f"{value:g}" if isinstance(value, float) else str(value).lower()


def _no_match_reason(condition: str, axis_values: Sequence[Mapping[str, str]]) -> str:
    axis, colon, _ = condition.partition(":")
    if not colon:
        return "no variant has that word in its label; axis:value, as in batch:8, names an axis"
    names = sorted(set().union(*axis_values))
    if axis not in names:
        similar = difflib.get_close_matches(axis, names, n=1)
        return f"no such axis; {f'did you mean {similar[0]}?' if similar else 'batch, precision and streams are some'}"
    occurring = sorted({values[axis] for values in axis_values if axis in values})
    return f"no variant has it; {axis} is {', '.join(occurring)}"
