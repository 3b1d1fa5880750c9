"""Find the batch from which a device is full: throughput that still grows with the batch shows idle units.

A device at batch 2b that is full at batch b needs twice the time, so that its throughput does not grow; one that is
idle half of the time needs the same time, and its throughput doubles. The exponent of the growth between two batches,
log(ratio of throughputs) / log(ratio of batches), is 1 for linear growth and 0 for a full device.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

FULL_BELOW = 0.15
"""Exponent of the growth below which the device counts as full: doubling the batch adds less than 11%."""
_LEAST = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class FullBatch:
    """Say from which batch a device is full.

    Attributes:
        batch: least batch from which no larger one grows throughput by ``FULL_BELOW`` or more; None where the
            throughput still grows at the largest batch that was measured, or fewer than two were.
        low: greatest measured batch at which it was not full; None where the least one was.
        high: `batch`: the answer lies between the two, above `low` and up to here.
        largest: largest batch that was measured; None without points.
        exponent: growth between the two largest batches; None with fewer than two points.
    """

    batch: int | None
    low: int | None
    high: int | None
    largest: int | None
    exponent: float | None

    def __str__(self) -> str:
        """Format it for a table, as in ``16``, ``> 64`` or ``-``."""
        if self.batch is not None:
            return str(self.batch)
        return "-" if self.exponent is None else f"> {self.largest}"


def full_from_batch(points: Mapping[int, float]) -> FullBatch:
    """Return the batch from which a device is full.

    The criterion: the exponent of the growth is below ``FULL_BELOW`` between this batch and the next larger one that
    was measured, and between all larger ones. Its uncertainty is the step between measured batches: the true one lies
    above ``low``, the next smaller measured batch, at which throughput still grew.

    Args:
        points: samples/s by batch; of one network, precision and device.
    """
    batches = sorted(batch for batch, rate in points.items() if batch > 0 and rate > 0)
    largest = batches[-1] if batches else None
    if len(batches) < _LEAST:
        return FullBatch(batch=None, low=None, high=None, largest=largest, exponent=None)
    growth = {
        small: math.log(points[large] / points[small]) / math.log(large / small)
        for small, large in itertools.pairwise(batches)
    }
    growing = [batch for batch, exponent in growth.items() if exponent >= FULL_BELOW]
    full = [batch for batch in growth if not growing or batch > growing[-1]]
    batch = full[0] if full else None
    low = growing[-1] if growing else None
    return FullBatch(batch=batch, low=low, high=batch, largest=largest, exponent=growth[batches[-2]])
