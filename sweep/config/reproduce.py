"""Write a variant as the overrides of the command line that plan it and no other."""

from __future__ import annotations

import functools
import operator
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser

from sweep import spec
from sweep.backends import registry
from sweep.config import compose
from sweep.config.conf_files import choices
from sweep.config.value_text import value_text
from sweep.spec import LoadAxes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sweep.config.schema import Config
    from sweep.spec import Axis, Variant

_ALWAYS = ("batch", "streams")  # written even at their defaults, because they are what people compare
_GROUPS = {"model.name": "model", "precision.name": "precision", "backend.name": "backend", "load.kind": "load"}


def overrides(variant: Variant, varying: Iterable[Axis] = ()) -> tuple[str, ...]:
    """Return the overrides of the command line that plan `variant` alone, in Hydra's grammar.

    They are the choice of each group, `batch` and `streams`, every axis of `varying`, and every other value that
    differs from what these choices set.

    Args:
        variant: to write.
        varying: axes to write even at their defaults.
    """
    axes, groups = spec.keyed(), _group_choices(variant)
    config = _compose(tuple(_override(key, value) for key, value in groups.items()))
    always = {*_ALWAYS, *(axis.info.key for axis in varying)}
    for key, default in (("backend.name", registry.resolve("auto")[0]), ("load.kind", LoadAxes().kind)):
        if axes[key].read(variant) == default and key not in always:
            groups.pop(_GROUPS[key], None)
    values: dict[str, Any] = {}
    for axis in spec.by_place():
        group = _GROUPS.get(axis.info.key or "")
        if group is not None:
            values |= {key: value for key, value in groups.items() if key.partition(".")[0] == group}
        elif not _is_implied(axis, variant):
            settings = _beside(variant) if axis.name == "beside" else axis.overrides(axis.read(variant))
            values = _merge(
                values, {key: value for key, value in settings.items() if _differs(config, key, value, always)}
            )
    if variant.session.script is None and config.backend.script is not None:
        values["backend.script"] = None
    return tuple(_override(key, value) for key, value in values.items())


def _beside(variant: Variant) -> dict[str, Any]:
    """Return the key that sets the networks beside the measured one: a table of settings each."""
    if variant.session.beside is None:
        return {"beside": None}
    parser = OverridesParser.create()
    tables = []
    for neighbour, own in zip(variant.session.beside, spec.members_of(variant)[1:], strict=True):
        settings = [parser.parse_override(word) for word in overrides(own)]
        table = {str(setting.key_or_group): setting.value() for setting in settings}
        if neighbour.slo is not None:
            name, _, limit = neighbour.slo.partition(":")
            table["slo"] = {name: float(limit)}
        tables.append(table)
    return {"beside": tables}


@functools.cache  # a plan has many variants but few choices of groups, and composing costs 0.1 s
def _compose(arguments: tuple[str, ...]) -> Config:
    request = compose.read(arguments)
    assert request is not None  # noqa: S101 - for mypy: only flags such as --help give no request
    return request.configs[0]


def _group_choices(variant: Variant) -> dict[str, Any]:
    """Return the choice of each group: ``model=NAME`` where conf/ has a file for it, else ``model.name=NAME``."""
    names = {"backend": variant.backend, "load": variant.load.kind}
    if variant.engine.plan is None:  # whose types nothing but the plan decides
        names["precision"] = variant.onnx.precision.name
    if variant.onnx.model.path is None and variant.reference is not None and variant.pipeline is None:
        names["model"] = variant.onnx.model.name
    keys = {group: group if name in choices(group) else f"{group}.{_name_key(group)}" for group, name in names.items()}
    return {keys[group]: names[group] for group in ("model", "precision", "backend", "load") if group in names}


def _name_key(group: str) -> str:
    return next(key for key, name in _GROUPS.items() if name == group).partition(".")[2]


def _is_implied(axis: Axis, variant: Variant) -> bool:
    """Tell whether other overrides imply the axis.

    They do for the path of an exported model, the script of another backend, the precision of a plan and the share of a
    network that has others beside it.
    """
    if axis.name in {"mps", "sm_count"} and variant.session.beside is not None:
        return True
    if axis.path[:2] == ("onnx", "precision") and variant.engine.plan is not None:
        return True
    if axis.path == ("onnx", "model", "path"):
        return variant.onnx.model.path is None or variant.onnx.model.made_from is not None
    return axis.path[:2] == ("session", "script") and variant.session.script is None


def _differs(config: Config, key: str, value: Any, always: set[str | None]) -> bool:
    if key in always:
        return True
    try:
        return bool(operator.attrgetter(key)(config) != value)
    except AttributeError:  # the config has no script, and the key is one of the script's
        return True


def _merge(values: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Return `values` updated with `more`; where both have a table at a key, the tables are merged likewise."""
    merged = dict(values)
    for key, value in more.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _override(key: str, value: Any) -> str:
    plus = "+" if isinstance(value, dict) else ""  # the schema lacks the keys of a table, so Hydra wants them added
    return f"{plus}{key}={value_text(value)}"
