"""Spell a variant as the words of the command line that plan it and no other."""

from __future__ import annotations

import functools
import operator
import re
from typing import TYPE_CHECKING, Any

from sweep import spec
from sweep.backends import registry
from sweep.config import compose
from sweep.config.conf_files import choices
from sweep.spec import LoadAxes, plain_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sweep.config.schema import Config
    from sweep.spec import Axis, Variant

_ALWAYS = ("batch", "streams")  # spelled out even at their defaults, as people compare them
_GROUPS = {"model.name": "model", "precision.name": "precision", "backend.name": "backend", "load.kind": "load"}
_PLAIN = re.compile(r"[A-Za-z_/.][A-Za-z0-9_/.:@+-]*")  # text that Hydra's grammar takes as it is
_NOT_TEXT = frozenset({"null", "true", "false", "nan", "inf"})


def overrides(variant: Variant, varying: Iterable[Axis] = ()) -> tuple[str, ...]:
    """Return the words of the command line that plan `variant` alone, as Hydra reads them.

    They are the choice of each group, `batch` and `streams`, every axis of `varying`, and whatever else differs from
    what these choices set.

    Args:
        variant: to spell.
        varying: axes to spell out in any case.
    """
    axes, groups = spec.keyed(), _groups(variant)
    config = _composed(tuple(_word(key, value) for key, value in groups.items()))
    always = {*_ALWAYS, *(axis.info.key for axis in varying)}
    for key, default in (("backend.name", registry.resolve("auto")[0]), ("load.kind", LoadAxes().kind)):
        if axes[key].read(variant) == default and key not in always:
            groups.pop(_GROUPS[key], None)
    words: dict[str, Any] = {}
    for axis in spec.by_place():
        group = _GROUPS.get(axis.info.key or "")
        if group is not None:
            words |= {key: value for key, value in groups.items() if key.partition(".")[0] == group}
        elif not _follows(axis, variant):
            typed = axis.overrides(axis.read(variant))
            words = _merged(words, {key: value for key, value in typed.items() if _differs(config, key, value, always)})
    if variant.session.script is None and config.backend.script is not None:
        words["backend.script"] = None
    return tuple(_word(key, value) for key, value in words.items())


@functools.cache  # a plan has many variants and few choices of groups
def _composed(words: tuple[str, ...]) -> Config:
    request = compose.read(words)
    assert request is not None  # noqa: S101 - only flags have no request; tells mypy
    return request.configs[0]


def _groups(variant: Variant) -> dict[str, Any]:
    """Return the choice of each group: its file in conf/, else the name that has none."""
    names = {"precision": variant.onnx.precision.name, "backend": variant.backend, "load": variant.load.kind}
    if variant.onnx.model.path is None:
        names["model"] = variant.onnx.model.name
    keys = {group: group if name in choices(group) else f"{group}.{_name_key(group)}" for group, name in names.items()}
    return {keys[group]: names[group] for group in ("model", "precision", "backend", "load") if group in names}


def _name_key(group: str) -> str:
    return next(key for key, own in _GROUPS.items() if own == group).partition(".")[2]


def _follows(axis: Axis, variant: Variant) -> bool:
    """Tell whether other words already say it: the path of an exported model, the script of another backend."""
    if axis.path == ("onnx", "model", "path"):
        return variant.onnx.model.path is None or variant.onnx.model.made_from is not None
    return axis.path[:2] == ("session", "script") and variant.session.script is None


def _differs(config: Config, key: str, value: Any, always: set[str | None]) -> bool:
    if key in always:
        return True
    try:
        return bool(operator.attrgetter(key)(config) != value)
    except AttributeError:  # a key of the script, which these choices leave out
        return True


def _merged(words: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Return the words of both; tables of one key are joined, those of `more` inside."""
    joined = dict(words)
    for key, value in more.items():
        both = isinstance(value, dict) and isinstance(joined.get(key), dict)
        joined[key] = _merged(joined[key], value) if both else value
    return joined


def _word(key: str, value: Any) -> str:
    added = "+" if isinstance(value, dict) else ""  # an open table, whose keys the schema does not have
    return f"{added}{key}={_text(value)}"


def _text(value: Any) -> str:
    """Return `value` in Hydra's grammar."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{_key(key)}:{_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(_text, value))}]"
    if not isinstance(value, str) or (_PLAIN.fullmatch(value) and value.lower() not in _NOT_TEXT):
        return plain_text(value)
    return "'" + re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), value) + "'"


def _key(name: str) -> str:
    """Return the name of an input as a key of a table: what would end it is escaped."""
    return re.sub(r"([\\()\[\]{}:=, \t])", r"\\\1", name)
