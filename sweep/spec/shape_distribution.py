"""Describe a distribution of the sizes of one dimension, and the share of the requests that each size has."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sweep.spec.axis import plain_text

if TYPE_CHECKING:
    from collections.abc import Callable

_SQRT_2 = math.sqrt(2.0)
_LEAST_SHARE = 1e-6  # sizes that are rarer are left out


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeDistribution:
    """Describe the sizes of the requests: those of a distribution, rounded to whole steps and cut off at both ends.

    Attributes:
        kind: one of ``DISTRIBUTIONS``.
        centre: its first parameter; None for ``uniform``.
        spread: its second parameter; None for ``uniform``.
        least: smallest size.
        most: largest size.
        step: difference between two sizes; they are least, least + step, ...
    """

    kind: str
    centre: float | None = None
    spread: float | None = None
    least: int
    most: int
    step: int = 1

    @property
    def parameters(self) -> dict[str, float]:
        """Return the parameters by the names that are typed."""
        named = zip(DISTRIBUTIONS[self.kind].names, (self.centre, self.spread), strict=False)
        return {name: value for name, value in named if value is not None}

    def table(self) -> dict[str, Any]:
        """Return the distribution as it is typed: ``{lognormal: {median:, sigma:, least:, most:, step:}}``."""
        return {self.kind: {**self.parameters, "least": self.least, "most": self.most, "step": self.step}}

    def word(self) -> str:
        """Return the word of a label: ``lognormal100,0.6:8..384/8``."""
        parameters = ",".join(plain_text(value) for value in self.parameters.values())
        return f"{self.kind}{parameters}:{self.least}..{self.most}{f'/{self.step}' if self.step > 1 else ''}"

    def shares(self) -> dict[int, float]:
        """Return the share of each size; they add up to 1. A size stands for the values that are nearest to it."""
        below = DISTRIBUTIONS[self.kind].below
        centre, spread = self.centre or 0.0, self.spread or 1.0
        half = self.step / 2
        masses = {
            size: below(size + half, centre, spread) - below(size - half, centre, spread)
            for size in range(self.least, self.most + 1, self.step)
        }
        whole = math.fsum(masses.values())
        kept = {size: mass for size, mass in masses.items() if whole and mass / whole >= _LEAST_SHARE}
        whole = math.fsum(kept.values())
        return {size: mass / whole for size, mass in kept.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """Declare a kind of distribution.

    Attributes:
        names: of its parameters.
        below: (value, first parameter, second parameter) -> share of the values below it, up to a constant.
    """

    names: tuple[str, ...]
    below: Callable[[float, float, float], float]


def _normal(value: float, mean: float, std: float) -> float:
    return math.erf((value - mean) / (std * _SQRT_2)) / 2


def _lognormal(value: float, median: float, sigma: float) -> float:
    return -0.5 if value <= 0 else _normal(math.log(value / median), 0.0, sigma)


DISTRIBUTIONS = {
    "uniform": Distribution(names=(), below=lambda value, _centre, _spread: value),
    "normal": Distribution(names=("mean", "std"), below=_normal),
    "lognormal": Distribution(names=("median", "sigma"), below=_lognormal),
}
"""Name the distributions that ``load.shapes`` can be drawn from."""
