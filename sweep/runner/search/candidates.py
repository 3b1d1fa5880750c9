"""Describe the variants of a grid as points: what a search knows of them before anything is measured."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sweep import spec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sweep.analysis import Floats
    from sweep.spec import Variant

_BITS = {"fp32": 32, "tf32": 24, "fp16": 16, "bf16": 16, "int8": 8, "fp8": 8}  # of an operand; tf32 lies between


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """Describe a variant that the search may measure.

    Attributes:
        key: key of its record.
        engine: key of the engine that it shares.
        label: short name, unique among the candidates.
        axes: value of each axis that differs among the candidates, in plain text or numbers.
    """

    key: str
    engine: str
    label: str
    axes: Mapping[str, Any]


def candidates_of(variants: Mapping[str, Variant], engines: Mapping[str, str]) -> list[Candidate]:
    """Return the candidates of a plan.

    Args:
        variants: by the key of the record.
        engines: key of the engine, by the key of the record.
    """
    labels = spec.compare(dict(variants)).labels
    flat = {key: flat_axes(spec.flat(variant)) for key, variant in variants.items()}
    return of_tables(flat, engines, labels)


def of_tables(
    tables: Mapping[str, Mapping[str, Any]], engines: Mapping[str, str], labels: Mapping[str, str]
) -> list[Candidate]:
    """Return the candidates of tables of axes, as a record's ``variant`` has them (flat)."""
    names = sorted(set().union(*tables.values())) if tables else []
    varying = [name for name in names if len({_hashable(table.get(name)) for table in tables.values()}) > 1]
    return [
        Candidate(
            key=key,
            engine=engines[key],
            label=labels[key],
            axes={name: _hashable(table.get(name)) for name in varying},
        )
        for key, table in tables.items()
    ]


def flat_axes(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return the axes of a record's ``variant`` without its label and without what follows from another axis."""
    axes = {name: value for name, value in table.items() if name not in {"label", "model_ref", "precision_recipe"}}
    load = axes.pop("load", None)
    return {**axes, **{f"load.{name}": value for name, value in (load or {}).items()}}


def _hashable(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | type(None)) else repr(value)


@dataclass(frozen=True, slots=True)
class Features:
    """Hold the candidates as points of the model.

    Attributes:
        doublings: axes of numbers, in powers of two, centred; shape (candidates, axes).
        doubled: their names.
        words: axes of words, as codes; shape (candidates, axes).
    """

    doublings: Floats
    doubled: tuple[str, ...]
    words: np.ndarray[Any, np.dtype[np.int64]]


def features(candidates: Sequence[Candidate]) -> Features:
    """Return the points of the candidates: numbers above 0 by their logarithm, anything else by equality.

    The precision is both: a word, and the width of its operands.
    """
    numbers: dict[str, list[float]] = {}
    words: dict[str, list[int]] = {}
    for name in candidates[0].axes if candidates else ():
        values = [candidate.axes[name] for candidate in candidates]
        if all(isinstance(value, int | float) and not isinstance(value, bool) and value > 0 for value in values):
            numbers[name] = [math.log2(value) for value in values]
            continue
        codes = {value: number for number, value in enumerate(sorted(set(values), key=repr))}
        words[name] = [codes[value] for value in values]
        if name == "precision":
            numbers["narrowness"] = [math.log2(32 / _bits(str(value))) for value in values]
    count = len(candidates)
    doublings = np.array(list(numbers.values()), dtype=np.float64).reshape(len(numbers), count).T
    codes_of_words = np.array(list(words.values()), dtype=np.int64).reshape(len(words), count).T
    return Features(doublings - doublings.mean(axis=0, keepdims=True), tuple(numbers), codes_of_words)


def _bits(precision: str) -> int:
    """Return the bits of an operand by the name of a precision; recipes have names such as ``int8_fp16``."""
    return next((bits for name, bits in _BITS.items() if precision.startswith(name)), 32)
