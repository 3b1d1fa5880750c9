"""Describe how one engine serves the shapes of a load: by a range of sizes, or by a profile for each shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sweep.spec.network_inputs import Dimension
from sweep.spec.shape_mix import Shape  # noqa: TC001 - get_type_hints

PER_ENGINE, RANGE, PER_SHAPE = WAYS = ("per_engine", "range", "per_shape")
"""Name the ways to serve the shapes of a load: an engine each, one profile over all, or one profile for each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeProfiles:
    """Describe the optimization profiles of one engine over several shapes.

    Attributes:
        way: ``range``: one profile over all shapes; ``per_shape``: a profile for each shape.
        shapes: the shapes that it serves, the smallest first.
        best: way ``range``: the shape that the builder optimizes for; None for ``per_shape``.
    """

    way: str
    shapes: tuple[Shape, ...]
    best: Shape | None = None

    @property
    def limits(self) -> tuple[tuple[Shape, Shape, Shape], ...]:
        """Return the smallest, best and largest shape of each profile."""
        if self.best is None:
            return tuple((shape, shape, shape) for shape in self.shapes)
        sizes = list(zip(*self.shapes, strict=True))
        least, most = (
            tuple(Dimension(name=own[0].name, size=limit(item.size for item in own)) for own in sizes)
            for limit in (min, max)
        )
        return ((least, self.best, most),)


def profiles_cell(profiles: Any) -> str:
    """Return the way in a cell of a table, also of a record's table."""
    if profiles is None:
        return PER_ENGINE
    return str(profiles["way"] if isinstance(profiles, dict) else profiles.way)
