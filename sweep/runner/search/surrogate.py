"""Predict the scores of all candidates from those that were observed: a Gaussian process over the axes.

The logarithm of a throughput is nearly a sum: a line in the doublings of batch and streams that bends, an offset a
precision, and what axes do together. The kernel is the sum of these; its scales are the likeliest of a small grid.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sweep.analysis import Floats
    from sweep.runner.search.candidates import Features

_LINE, _OFFSET = 0.03, 0.12  # variance of a slope a doubling, and of the offset of a word, around what is expected
_LEVEL = 4.0  # variance of the level: the first observation decides it
_SCALES = (0.04, 0.15, 0.6)  # variance of what axes do together
_LENGTHS = (1.5, 3.0, 6.0)  # doublings over which it changes
_ALIKE = (0.4, 0.8)  # correlation left by a change of a word
_MIXES = (0.5, 2.0)  # factor on lines and offsets
_JITTER = 1e-9
_ALWAYS = 12  # observations below which the scales are chosen at each step; above, at each quarter more


@dataclass(frozen=True, slots=True)
class Posterior:
    """Hold what the observations say of the true score of each candidate.

    Attributes:
        mean: shape (candidates,).
        covariance: shape (candidates, candidates).
    """

    mean: Floats
    covariance: Floats

    @property
    def deviation(self) -> Floats:
        """Return the standard deviation of each."""
        return np.sqrt(np.maximum(np.diag(self.covariance), 0.0))

    def draws(self, count: int, rng: np.random.Generator) -> Floats:
        """Return joint draws, shape (count, candidates)."""
        root = np.linalg.cholesky(self.covariance + 1e-8 * np.eye(len(self.mean)))
        return np.asarray(self.mean + rng.standard_normal((count, len(self.mean))) @ root.T)


class Surrogate:
    """Predict scores.

    Args:
        features: the candidates as points.
        slopes: what the score is expected to gain when an axis doubles.
    """

    def __init__(self, features: Features, slopes: Mapping[str, float]) -> None:
        self._prior = features.doublings @ np.array([slopes.get(name, 0.0) for name in features.doubled])
        x, words = features.doublings, features.words
        self._square = ((x[:, None] - x[None]) ** 2).sum(axis=-1)
        differ = words[:, None] != words[None]
        self._differing = differ.sum(axis=-1)
        self._line = _LINE * (x @ x.T)
        self._offset = _OFFSET * (~differ).sum(axis=-1)
        self._scales: tuple[float, float, float, float] | None = None
        self._fitted = 0

    def posterior(self, places: Sequence[int], scores: Floats, variances: Floats) -> Posterior:
        """Return the posterior of all candidates.

        Args:
            places: candidate of each observation.
            scores: score of each.
            variances: variance of its error.
        """
        at = np.asarray(places, dtype=np.int64)
        if not len(at):
            return Posterior(self._prior, self._kernel(_SCALES[1], _LENGTHS[1], _ALIKE[0], 1.0))
        residuals = scores - self._prior[at]
        if self._scales is None or len(at) < _ALWAYS or len(at) >= self._fitted * 1.25:
            self._scales = max(
                itertools.product(_SCALES, _LENGTHS, _ALIKE, _MIXES),
                key=lambda scales: self._likelihood(scales, at, residuals, variances),
            )
            self._fitted = len(at)
        kernel = self._kernel(*self._scales)
        root = np.linalg.cholesky(kernel[np.ix_(at, at)] + np.diag(variances + _JITTER))
        solved = np.linalg.solve(root, kernel[at])
        mean = self._prior + solved.T @ np.linalg.solve(root, residuals)
        return Posterior(mean, kernel - solved.T @ solved)

    def _kernel(self, scale: float, length: float, alike: float, mix: float) -> Floats:
        together = scale * np.exp(-self._square / (2 * length**2)) * alike**self._differing
        return np.asarray(_LEVEL + mix * (self._line + self._offset) + together)

    def _likelihood(
        self, scales: tuple[float, float, float, float], at: np.ndarray, residuals: Floats, variances: Floats
    ) -> float:
        kernel = self._kernel_at(scales, at) + np.diag(variances + _JITTER)
        root = np.linalg.cholesky(kernel)
        white = np.linalg.solve(root, residuals)
        return float(-0.5 * white @ white - np.log(np.diag(root)).sum())

    def _kernel_at(self, scales: tuple[float, float, float, float], at: np.ndarray) -> Floats:
        scale, length, alike, mix = scales
        block = np.ix_(at, at)
        together = scale * np.exp(-self._square[block] / (2 * length**2)) * alike ** self._differing[block]
        return np.asarray(_LEVEL + mix * (self._line[block] + self._offset[block]) + together)


def normal_excess(mean: Floats, deviation: Floats, level: float) -> Floats:
    """Return the expected excess over ``level`` of normal variables: the expected improvement."""
    from scipy.special import ndtr

    deviation = np.maximum(deviation, 1e-12)
    z = (mean - level) / deviation
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    return np.asarray((mean - level) * ndtr(z) + deviation * density)
