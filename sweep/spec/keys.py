"""Axes -> keys: hashes of what identifies a typed ONNX, an engine, a record."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Hashable

    from sweep.spec.base import JsonDict
    from sweep.spec.variant import Variant

_AS_THEY_ARE = frozenset({str, int, float, bool, dict})
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


def projection(axes: Any) -> JsonDict:
    """The part of ``axes`` that identifies it: nested plain values, None and NOT_IN_KEY fields left out."""
    values = [(name, getattr(axes, name)) for name in _keyed(cast("Hashable", type(axes)))]
    return {name: _plain(value) for name, value in values if value is not None}


@functools.cache
def _keyed(kind: Hashable) -> tuple[str, ...]:
    """Names of the fields that identify; looked up once a class, for a plan has a hundred thousand variants."""
    return tuple(item.name for item in dataclasses.fields(cast("Any", kind)) if item.metadata.get("key", True))


def _plain(value: Any) -> Any:
    if type(value) in _AS_THEY_ARE:
        return value
    if dataclasses.is_dataclass(value):
        return projection(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def digest(*parts: Any) -> str:
    """16 hex digits of the sha256 of the parts' canonical JSON; dataclasses count by their projection."""
    text = _CANONICAL.encode([_plain(part) for part in parts])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def onnx_key(variant: Variant) -> str:
    """Key of the typed ONNX: model and precision."""
    return digest("onnx", variant.onnx)


def engine_key(variant: Variant) -> str:
    """Key of what is built: backend, typed ONNX and engine axes. Backends add library and device to it.

    An engine with a range profile is the same for every batch in the range.
    """
    return _engine_key(projection(variant))


def variant_key(variant: Variant) -> str:
    """Key of the record: every axis."""
    return digest("variant", variant)


def both_keys(variant: Variant) -> tuple[str, str]:
    """``variant_key`` and ``engine_key``, in half the time that they take one by one."""
    whole = projection(variant)
    return digest("variant", whole), _engine_key(whole)


def _engine_key(whole: JsonDict) -> str:
    """From the projection of the variant."""
    built = dict(whole["engine"])
    if "profile" in built:
        del built["batch"]
    return digest("engine", whole["backend"], digest("onnx", whole["onnx"]), built)


def flat(variant: Variant) -> JsonDict:
    """The record's ``variant``: every axis under its own name, model and precision by name."""
    onnx, load = variant.onnx, dataclasses.asdict(variant.load)
    session = dataclasses.asdict(variant.session)
    return {
        "label": variant.label,
        "backend": variant.backend,
        "model": onnx.model.name,
        "model_ref": dataclasses.asdict(onnx.model),
        "precision": onnx.precision.name,
        "precision_recipe": dataclasses.asdict(onnx.precision),
        "prune": onnx.prune,
        "graph": None if onnx.graph is None else onnx.graph.name,
        "graph_digest": None if onnx.graph is None else onnx.graph.digest,
        "tool": onnx.precision.tool,
        "calibration_method": onnx.precision.calibration_method,
        "calibration": None if onnx.calibration is None else dataclasses.asdict(onnx.calibration),
        **dataclasses.asdict(variant.engine),
        **session,
        "load": load,
        "repeats": load.pop("repeats"),
        "seed": load.pop("seed"),
    }
