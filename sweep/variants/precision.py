"""``precision``: the recipe of a typed graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sweep.axes import Precision
from sweep.errors import ConfigError
from sweep.variants import checks

if TYPE_CHECKING:
    from sweep.config import PrecisionConfig

_DTYPES = ("fp32", "tf32", "fp16", "bf16", "int8", "fp8")
_QUANTISED = ("int8", "fp8")
_RESTS = ("fp16", "bf16")
_MIXES = tuple(f"{dtype}_{rest}" for dtype in _QUANTISED for rest in _RESTS)


def recipe(config: PrecisionConfig) -> Precision:
    """The recipe, once its parts fit together and its name says what they are."""
    if config.dtype not in _DTYPES:
        raise ConfigError(f"precision.dtype={config.dtype}: no such type; there are: {', '.join(_DTYPES)}")
    guard = config.guard and "fp16" in {config.dtype, config.rest}
    if config.dtype in _QUANTISED or guard:
        checks.at_least(1, **{"precision.calibration_batches": config.calibration_batches or 0})
    if config.dtype not in _QUANTISED and config.rest is not None:
        raise ConfigError(f"precision.rest={config.rest}: dtype {config.dtype} leaves no rest; int8 and fp8 do")
    types = "_".join(filter(None, (config.dtype, checks.one_of("precision.rest", config.rest, _RESTS))))
    if config.name in (*_DTYPES, *_MIXES) and config.name != types:
        raise ConfigError(f"precision.name={config.name} on dtype {types} is a wrong label; use another name")
    return Precision(
        name=config.name,
        dtype=config.dtype,
        keep_io=config.keep_io,
        rest=config.rest,
        wide=(config.wide and config.rest is not None) or None,
        guard=guard or None,
        quantize_ops=tuple(config.quantize_ops),
        per_channel=config.per_channel,
        calibration_batches=config.calibration_batches if config.dtype in _QUANTISED or guard else None,
    )
