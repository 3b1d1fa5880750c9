"""Define the numbers of a record by unit and bounds.

The bounds are wide: they refuse what no machine produces and no reader could print.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

_INT_MAX = 1 << 62
_FLOAT_MAX = 1e18

# A union of `int` and `float`, because JSON that Python did not write has 2 where Python writes 2.0: a record that is
# rewritten keeps what it had.
_AnyInt = Annotated[int, Meta(ge=-_INT_MAX, le=_INT_MAX)]
_NoNegativeInt = Annotated[int, Meta(ge=0, le=_INT_MAX)]
_PositiveInt = Annotated[int, Meta(ge=1, le=_INT_MAX)]
_NoNegativeFloat = Annotated[float, Meta(ge=0, le=_FLOAT_MAX)]
Number = _AnyInt | Annotated[float, Meta(ge=-_FLOAT_MAX, le=_FLOAT_MAX)]
Count = _NoNegativeInt
Bytes = _NoNegativeInt
Rate = _NoNegativeInt | _NoNegativeFloat
PositiveRate = _PositiveInt | Annotated[float, Meta(gt=0, le=_FLOAT_MAX)]
Milliseconds = _NoNegativeInt | _NoNegativeFloat
Seconds = _NoNegativeInt | _NoNegativeFloat
Share = Annotated[int, Meta(ge=0, le=1)] | Annotated[float, Meta(ge=0, le=1)]
Magnitude = _NoNegativeInt | Annotated[float, Meta(ge=0)]
RateInterval = Annotated[list[PositiveRate], Meta(min_length=2, max_length=2)]
LatencyInterval = Annotated[list[Milliseconds], Meta(min_length=2, max_length=2)]
