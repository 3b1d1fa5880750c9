"""Describe the shapes that the requests of a load have, and the engines that take them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from sweep.spec.axis import plain_text
from sweep.spec.base import NOT_IN_KEY
from sweep.spec.network_inputs import Dimension, shape_text
from sweep.spec.shape_distribution import ShapeDistribution  # noqa: TC001 - get_type_hints

Shape = tuple[Dimension, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeShare:
    """Give the share of the requests that have one shape.

    Attributes:
        shape: sizes of the named dimensions, sorted by name.
        share: share of the requests, above 0; all shares of a mix add up to 1.
    """

    shape: Shape
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeMix:
    """Describe the shapes of the requests of a load: drawn by their shares, or replayed from a file.

    Attributes:
        entries: the distinct shapes, the smallest first.
        path: absolute path of the file whose rows are replayed in order; None draws. Not in the key: ``digest`` is.
        digest: sha256 of that file.
        distribution: distribution that the shares are of; None where they were given one by one.
    """

    entries: tuple[ShapeShare, ...]
    path: str | None = field(default=None, metadata=NOT_IN_KEY)
    digest: str | None = None
    distribution: ShapeDistribution | None = None


def elements(shape: Shape) -> int:
    """Return the elements that a shape stands for: the product of the sizes of its named dimensions."""
    return math.prod(item.size for item in shape)


def by_size(shape: Shape) -> tuple[int, tuple[int, ...]]:
    """Return the key that sorts shapes, the smallest first."""
    return elements(shape), tuple(item.size for item in shape)


def engine_shapes(mix: ShapeMix, buckets: tuple[Shape, ...] | None) -> tuple[Shape, ...]:
    """Return the shapes that have an engine, the smallest first: the buckets, or every shape of the mix."""
    shapes = [entry.shape for entry in mix.entries] if buckets is None else buckets
    return tuple(sorted(shapes, key=by_size))


def engine_of(shape: Shape, engines: tuple[Shape, ...]) -> int | None:
    """Return the place of the smallest engine that takes `shape`, padded where it is larger; None where none does.

    Args:
        shape: of a request.
        engines: shapes of the engines, the smallest first; they have the dimensions of `shape`.
    """
    for place, engine in enumerate(engines):
        if all(own.size <= bucket.size for own, bucket in zip(shape, engine, strict=True)):
            return place
    return None


def short_shape(shape: Shape) -> str:
    """Return a shape in a label: the size alone of a single dimension, as ``128``, else as in ``h224w320``."""
    return str(shape[0].size) if len(shape) == 1 else "".join(f"{item.name}{item.size}" for item in shape)


def mix_word(mix: ShapeMix) -> str:
    """Return the word of the label: ``mix64:0.5+128:0.5``, or ``mix-NAME`` of a file or a distribution."""
    if mix.path is not None:
        return f"mix-{PurePath(mix.path).stem}"
    if mix.distribution is not None:
        return f"mix-{mix.distribution.word()}"
    return f"mix{'+'.join(f'{short_shape(entry.shape)}:{plain_text(entry.share)}' for entry in mix.entries)}"


def mix_cell(mix: ShapeMix | None) -> str:
    """Return the mix in a cell of a table; null for none."""
    return "null" if mix is None else mix_word(mix).removeprefix("mix").removeprefix("-")


def mix_overrides(mix: ShapeMix | None) -> dict[str, Any]:
    """Return the keys that set `mix`."""
    if mix is None or mix.path is not None:
        return {"load.shapes": None if mix is None else mix.path}
    if mix.distribution is not None:
        return {"load.shapes": mix.distribution.table()}
    return {"load.shapes": [{"shape": shape_text(entry.shape), "share": entry.share} for entry in mix.entries]}


def buckets_word(buckets: tuple[Shape, ...]) -> str:
    """Return the word of the label, as ``buckets64+128``."""
    return f"buckets{'+'.join(map(short_shape, buckets))}"


def buckets_overrides(buckets: tuple[Shape, ...] | None) -> dict[str, Any]:
    """Return the keys that set `buckets`."""
    return {"load.buckets": None if buckets is None else [shape_text(shape) for shape in buckets]}
