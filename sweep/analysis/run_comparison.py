"""Compare two measurements of the same variants, on the logarithm of the throughput.

The unit of replication is the start (or the engine, where several were built), as in ``best_comparison``: variances of
starts are moderated over the rows, and all intervals hold together, whatever the number of rows. What a round did to
all variants stays in the spread, since the rounds of two measurements are not the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy

from sweep.analysis.best_comparison import LEAST_BAND, PAIR_RISK, TABLE_RISK, Entry, start_cv
from sweep.analysis.moderation import moderate

if TYPE_CHECKING:
    from collections.abc import Sequence

_MOST_LOG = 700.0
_WITHIN_FREEDOM = 20.0  # of an error from inside the starts: ten batches or more on each side


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Hold the throughput of the new measurement over that of the old, with its simultaneous 95% interval.

    Attributes:
        ratio: new over old.
        low: lower end of the interval.
        high: upper end.
    """

    ratio: float
    low: float
    high: float

    @property
    def slower(self) -> bool:
        """Return whether the new measurement is slower by more than chance explains."""
        return self.high < 1

    @property
    def faster(self) -> bool:
        """Return whether the new measurement is faster by more than chance explains."""
        return self.low > 1


def changes(pairs: Sequence[tuple[Entry, Entry]], tables: float = 1) -> list[Change]:
    """Compare each variant with its earlier measurement.

    Args:
        pairs: old and new measurement of each variant, with a value above 0.
        tables: tables of as many tests between which the risk is shared.

    Returns:
        A change a pair. At most 5% of tables without any difference have a row that is told apart.
    """
    if not pairs:
        return []
    errors, freedom = _errors(pairs)
    result = []
    for number, (old, new) in enumerate(pairs):
        factor = factor_of(len(pairs), freedom[number], tables)
        if _is_single(old, new):
            factor = max(factor, LEAST_BAND / math.sqrt(2))
        centre, half = math.log(new.value) - math.log(old.value), factor * errors[number]
        result.append(Change(ratio=math.exp(centre), low=_exp(centre - half), high=_exp(centre + half)))
    return result


def factor_of(rows: int, freedom: float, tables: float = 1) -> float:
    """Return the standard errors by which a row has to differ from 1: Student's quantile at Sidak's risk.

    Args:
        rows: number of rows that are tested together.
        freedom: degrees of freedom of the row's standard error; infinite if it is known.
        tables: tables of as many tests between which the risk is shared.
    """
    risk = (PAIR_RISK if rows == 1 else TABLE_RISK) / tables  # that of several: the prior is estimated too
    share = -math.expm1(math.log1p(-risk) / rows)
    if math.isinf(freedom):
        return -float(scipy.special.ndtri(share / 2))
    return -float(scipy.special.stdtrit(freedom, share / 2))


def _is_single(old: Entry, new: Entry) -> bool:
    return len(old.starts) == len(new.starts) == 1


def _errors(pairs: Sequence[tuple[Entry, Entry]]) -> tuple[list[float], list[float]]:
    """Return the standard error of the log ratio of each pair, and the degrees of freedom behind it."""
    own = [len(old.starts) + len(new.starts) - 2 for old, new in pairs]
    if not any(own):
        known = [(_single_error(old), _single_error(new)) for old, new in pairs]
        return [math.hypot(a[0], b[0]) for a, b in known], [min(a[1], b[1]) for a, b in known]
    sample = [
        (_squares(old) + _squares(new)) / freedom if freedom else 0.0
        for (old, new), freedom in zip(pairs, own, strict=True)
    ]
    moderated = moderate(sample, own)
    errors, freedoms = [], []
    for number, (old, new) in enumerate(pairs):
        variance, freedom = float(moderated.variances[number]), float(moderated.freedom[number])
        if _is_single(old, new) and old.spread is not None and new.spread is not None:
            first, second = _single_error(old), _single_error(new)  # its own figures say more than the table's
            errors.append(math.hypot(first[0], second[0]))
            freedoms.append(min(first[1], second[1]))
        else:
            between = math.sqrt(variance * (1 / len(old.starts) + 1 / len(new.starts)))
            within = math.hypot(*(entry.within_error / math.sqrt(len(entry.starts)) for entry in (old, new)))
            errors.append(max(between, within))  # starts that agree by chance prove no more than each one does
            freedoms.append(max(freedom, _WITHIN_FREEDOM) if within > between else freedom)
    return errors, freedoms


def _single_error(entry: Entry) -> tuple[float, float]:
    """Return the standard error of the log throughput of a single start, and the degrees of freedom behind it."""
    cv, freedom = start_cv(entry)
    return math.hypot(cv, entry.within_error), freedom


def _squares(entry: Entry) -> float:
    """Return the sum of squares of the log throughputs of the starts around their mean."""
    logs = np.log(np.asarray(entry.starts, dtype=np.float64))
    return float(((logs - logs.mean()) ** 2).sum())


def _exp(logarithm: float) -> float:
    """Return the exponential; infinity for what a float cannot hold."""
    return math.exp(logarithm) if logarithm < _MOST_LOG else math.inf
