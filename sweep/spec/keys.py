"""Compute keys: hashes of the axes that identify a typed ONNX, an engine or a record."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from typing import TYPE_CHECKING, Any, cast

from sweep.spec.variant import Variant

if TYPE_CHECKING:
    from collections.abc import Hashable

    from sweep.spec.base import JsonDict

_PLAIN_TYPES = frozenset({str, int, float, bool, dict})
_MOST_TEXTS = 50_000  # of `KeyMaker`; a plan with more parts seldom meets one of them again
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


def projection(axes: Any) -> JsonDict:
    """Return the fields of a dataclass that identify it, as nested plain values, without None and NOT_IN_KEY fields."""
    values = [(name, getattr(axes, name)) for name in _key_fields(cast("Hashable", type(axes)))]
    return {name: _plain(value) for name, value in values if value is not None}


@functools.cache
def _key_fields(kind: Hashable) -> tuple[str, ...]:
    """Return the names of the fields in the key; cached by class, as a plan may have 100,000 variants."""
    return tuple(item.name for item in dataclasses.fields(cast("Any", kind)) if item.metadata.get("key", True))


def _plain(value: Any) -> Any:
    if type(value) in _PLAIN_TYPES:
        return value
    if dataclasses.is_dataclass(value):
        return projection(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def digest(*parts: Any) -> str:
    """Return 16 hex digits of the sha256 of canonical JSON of `parts`; a dataclass counts as its `projection`."""
    return _hash(_CANONICAL.encode([_plain(part) for part in parts]))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def onnx_key(variant: Variant) -> str:
    """Return the key of the typed ONNX: every axis of the graph."""
    return digest("onnx", variant.onnx)


def engine_key(variant: Variant) -> str:
    """Return the key of the engine: backend, typed ONNX and engine axes. Backends add library and device to it.

    An engine with a range profile is the same for every batch in the range, and a plan for every batch that it takes.
    """
    projected = projection(variant)
    engine = dict(projected["engine"])
    if "profile" in engine or "plan" in engine:
        del engine["batch"]
    stages = [projected["pipeline"]] if "pipeline" in projected else []
    return digest("engine", projected["backend"], digest("onnx", projected["onnx"]), engine, *stages)


def variant_key(variant: Variant) -> str:
    """Return the key of the record: every axis."""
    return digest("variant", variant)


class KeyMaker:
    """Compute the keys of many variants, each part of the text that is hashed once for the variants that share it.

    Variants share a part if it is the same object in both, as in those of `sweep.config.variants.from_configs`.
    """

    def __init__(self) -> None:
        self._fields = sorted(_key_fields(cast("Hashable", Variant)))
        self._texts: dict[int, tuple[Any, str]] = {}  # by identity; with the object, so that no other one gets it
        self._engine_keys: dict[tuple[int, int, int, str], tuple[Variant, str]] = {}

    def keys(self, variant: Variant) -> tuple[str, str]:
        """Return `variant_key` and `engine_key`."""
        values = [(name, getattr(variant, name)) for name in self._fields]
        parts = ",".join([f'"{name}":{self._text(value)}' for name, value in values if value is not None])
        place = (id(variant.onnx), id(variant.engine), id(variant.pipeline), variant.backend)
        entry = self._engine_keys.get(place)
        if entry is None:
            entry = self._engine_keys[place] = (variant, engine_key(variant))
        return _hash(f'["variant",{{{parts}}}]'), entry[1]

    def _text(self, part: Any) -> str:
        """Return the canonical JSON of one part of a variant."""
        entry = self._texts.get(id(part))
        if entry is None:
            if len(self._texts) >= _MOST_TEXTS:
                self._texts.clear()
                self._engine_keys.clear()
            entry = self._texts[id(part)] = (part, _CANONICAL.encode(_plain(part)))
        return entry[1]


def flat(variant: Variant) -> JsonDict:
    """Return the record's ``variant``: every axis under its own name, model and precision also by name."""
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
        "pipeline": None if variant.pipeline is None else dataclasses.asdict(variant.pipeline),
        "repeats": load.pop("repeats"),
        "seed": load.pop("seed"),
    }
