"""Make the JSON Schema of a sweep's YAML from the schema of the command line, for editors."""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from typing import Any

from sweep.config.conf_files import choices
from sweep.config.constraints import HEADS
from sweep.config.schema import GROUPS, Config

_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}
_TEXTS = {"type": ["string", "array"], "items": {"type": "string"}}


def schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 7) of the file that ``sweep run`` reads."""
    sections = _properties(Config)
    swept = {key: _list_of(value) for key, value in _flat(sections, "").items()}
    pairs: dict[str, Any] = {key: {} for key in swept} | {name: {} for name in GROUPS}
    combination = {"type": "object", "properties": pairs}
    for name in GROUPS:
        if name in HEADS:
            swept[name] = {"type": "array", "items": {"type": "string", "examples": choices(name)}, "minItems": 1}
        if name in sections:
            names = {"type": "string", "examples": choices(name), "description": "a choice of conf/, by its name"}
            sections[name] = {"anyOf": [names, sections[name]]}
    table = {"type": "object", "properties": swept, "additionalProperties": {"type": ["array", "object"]}}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "A sweep, as `sweep run FILE` reads it",
        "type": "object",
        "additionalProperties": False,
        "properties": sections
        | {
            "sweep": {**table, "description": "what is swept: every combination of these values"},
            "where": {**_TEXTS, "description": "keep combinations for which this holds, as batch * streams <= 64"},
            "exclude": {"type": "array", "items": combination, "description": "combinations to leave out"},
            "include": {"type": "array", "items": combination, "description": "combinations to add, one by one"},
            "per_model": {"type": "object", "additionalProperties": table, "description": "values of single models"},
        },
    }


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


def _list_of(property_: dict[str, Any]) -> dict[str, Any]:
    item = {key: value for key, value in property_.items() if key not in {"description", "default"}}
    return {"type": "array", "items": item, "minItems": 1, "description": property_.get("description", "")}


def _flat(properties: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Return the properties by dotted key."""
    values: dict[str, Any] = {}
    for name, value in properties.items():
        inner = value.get("properties")
        values |= _flat(inner, f"{prefix}{name}.") if inner else {f"{prefix}{name}": value}
    return values
