"""Make the JSON Schema of a sweep's YAML from the schema of the command line, for editors."""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from typing import TYPE_CHECKING, Any

from sweep.config.conf_files import choices
from sweep.config.constraints import HEADS
from sweep.config.schema import GROUPS, UNMEASURED, Config

if TYPE_CHECKING:
    from collections.abc import Callable

_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}
_SWEPT = {"allOf": [{"$ref": "#/definitions/swept"}]}
_TABLES = ("sweep", "where", "exclude")  # keys of the schema that have a form of their own in a file
_TEXTS = {"type": ["string", "array"], "items": {"type": "string"}}


def schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 7) of the file that ``sweep run`` reads."""
    sections = {name: value for name, value in _properties(Config).items() if name not in _TABLES}
    measured = {name: value for name, value in sections.items() if name not in UNMEASURED}
    groups = {name: {"type": "string", "examples": choices(name)} for name in GROUPS if name in sections}
    whole = _object(sections, groups)
    groups = {name: choice for name, choice in groups.items() if name in HEADS}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "A sweep, as `sweep run FILE` reads it",
        "definitions": {"swept": _object(measured, groups, lambda value: {"anyOf": [value, _list_of(value)]})},
        **whole,
        "properties": whole["properties"]
        | {
            "sweep": {"description": "what is swept: every combination of these values", **_SWEPT},
            "where": {**_TEXTS, "description": "keep combinations for which this holds, as batch * streams <= 64"},
            "exclude": {
                "type": "array",
                "items": _SWEPT,
                "description": "combinations to leave out; a list stands for any of its values",
            },
            "include": {
                "type": "array",
                "items": _object(measured, groups),
                "description": "combinations to add, one by one",
            },
            "per_model": {
                "type": "object",
                "additionalProperties": _SWEPT,
                "description": "values of single models, by the name of the model",
            },
        },
    }


def _object(
    sections: dict[str, Any], groups: dict[str, Any], form: Callable[[dict[str, Any]], dict[str, Any]] = dict
) -> dict[str, Any]:
    """Return a table of keys, each as a dotted name or in the table of its section.

    Args:
        sections: keys and sections at the top of the schema.
        groups: what the name of a group may be set to, by the name.
        form: property of a key -> what may stand there.
    """
    properties = {key: form(value) for key, value in _flat(sections, "").items()}
    for name, value in sections.items():
        inner = _inner(value)
        if inner is not None:
            section = _object(inner, {}, form)
            null = [{"type": "null"}] if "anyOf" in value else []
            properties[name] = {"anyOf": [section, *null]} if null else section
    for name, choice in groups.items():
        own = [properties[name]] if name in properties else []
        properties[name] = {"anyOf": [form({**choice, "description": "a choice of conf/, by its name"}), *own]}
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _inner(value: dict[str, Any]) -> dict[str, Any] | None:
    """Return the properties of a section; None for a key."""
    parts = [value, *value.get("anyOf", [])]
    return next((part["properties"] for part in parts if "properties" in part), None)


def _properties(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {item.name: _property(item, hints[item.name]) for item in dataclasses.fields(kind)}


def _property(item: dataclasses.Field[Any], hint: Any) -> dict[str, Any]:
    if dataclasses.is_dataclass(item.default_factory):
        return _section(typing.cast("type", item.default_factory))
    inner = next((kind for kind in typing.get_args(hint) if dataclasses.is_dataclass(kind)), None)
    if inner is not None:
        return {"anyOf": [_section(typing.cast("type", inner)), {"type": "null"}]}
    default = item.default_factory() if callable(item.default_factory) else item.default
    return {**_type(hint), "description": item.metadata["help"], "default": default}


def _section(kind: type) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": _properties(kind)}


def _type(hint: Any) -> dict[str, Any]:
    """Return the JSON type of a hint; {} for anything."""
    origin = typing.get_origin(hint)
    if origin in {typing.Union, types.UnionType}:
        parts = [_type(part) for part in typing.get_args(hint)]
        return {} if {} in parts else {"anyOf": parts}
    if origin is list:
        return {"type": "array", "items": _type(typing.get_args(hint)[0])}
    if origin is typing.Literal:
        return {"enum": list(typing.get_args(hint))}
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return {"enum": [str(member.value) for member in hint]}
    return {"type": _TYPES[hint]} if hint in _TYPES else {}


def _list_of(value: dict[str, Any]) -> dict[str, Any]:
    item = {key: inner for key, inner in value.items() if key not in {"description", "default"}}
    return {"type": "array", "items": item, "minItems": 1, "description": value.get("description", "")}


def _flat(properties: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Return the properties of the keys by dotted name."""
    values: dict[str, Any] = {}
    for name, value in properties.items():
        inner = _inner(value)
        values |= {f"{prefix}{name}": value} if inner is None else _flat(inner, f"{prefix}{name}.")
    return values
