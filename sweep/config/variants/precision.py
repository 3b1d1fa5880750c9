"""``precision``: the recipe of a typed graph."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from sweep import models
from sweep.errors import ConfigError
from sweep.models.datasets import calibration
from sweep.precision import SIMPLIFY
from sweep.spec import GraphPass
from sweep.system import user_code

if TYPE_CHECKING:
    from sweep.spec import CalibrationData, ModelRef, Precision

from typing import TYPE_CHECKING, Any

from sweep.config.variants import checks
from sweep.spec import Precision

if TYPE_CHECKING:
    from sweep.config.schema import PrecisionConfig

_METHODS = ("max", "percentile", "entropy")
_TOOLS = ("builtin", "none", "modelopt")
_DTYPES = ("fp32", "tf32", "fp16", "bf16", "int8", "fp8")
_UNCHANGED = ("fp32", "tf32")
_QUANTISED = ("int8", "fp8")
_LEAST_PERCENT, _ALL_PERCENT = 50, 100
_RESTS = ("fp16", "bf16")
_MIXES = tuple(f"{dtype}_{rest}" for dtype in _QUANTISED for rest in _RESTS)


def recipe(config: PrecisionConfig) -> Precision:
    """The recipe, once its parts fit together and its name says what they are."""
    if config.dtype not in _DTYPES:
        raise ConfigError(f"precision.dtype={config.dtype}: no such type; there are: {', '.join(_DTYPES)}")
    tool = _tool(config)
    typed = tool == "none"
    guard = config.guard and "fp16" in {config.dtype, config.rest}
    draws = (config.dtype in _QUANTISED or guard) and not typed
    if draws:
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
        wide=(config.wide and config.rest is not None and tool != "modelopt") or None,
        guard=guard or None,
        quantize_ops=tuple(config.quantize_ops),
        per_channel=config.per_channel,
        calibration_batches=config.calibration_batches if draws else None,
        **(_method(config) if config.dtype in _QUANTISED and not typed else {}),
        tool=tool,
    )


def _tool(config: PrecisionConfig) -> str | None:
    """Who types the graph, once it can do what is asked; None for the own converters, and where nothing is converted.

    modelopt always scales weights per channel, and clips by entropy only.
    """
    tool = checks.one_of("precision.tool", config.tool, _TOOLS)
    if tool != "modelopt" or config.dtype in _UNCHANGED:
        return tool if tool == "none" else None
    if config.dtype in _QUANTISED and not config.per_channel:
        raise ConfigError("precision.per_channel=false: modelopt scales weights per channel only; take tool=builtin")
    if config.dtype in _QUANTISED and config.calibration_method == "percentile":
        raise ConfigError(
            "precision.calibration_method=percentile: modelopt has max and entropy; take one of them, or tool=builtin"
        )
    return tool


def _method(config: PrecisionConfig) -> dict[str, Any]:
    """How ranges are drawn; nothing for the largest value."""
    method = checks.one_of("precision.calibration_method", config.calibration_method, _METHODS)
    if method == "entropy" and config.dtype == "fp8":
        raise ConfigError(
            "precision.calibration_method=entropy weighs the even steps of int8, which fp8 has not: "
            "take max or percentile"
        )
    if method == "percentile" and not _LEAST_PERCENT < config.calibration_percentile <= _ALL_PERCENT:
        raise ConfigError(
            f"precision.calibration_percentile={config.calibration_percentile:g}: above {_LEAST_PERCENT}, up to 100"
        )
    if method == "max":
        return {}
    kept = {"calibration_percentile": config.calibration_percentile} if method == "percentile" else {}
    return {"calibration_method": method, **kept}


def calibration_data(text: str | None, model: ModelRef, precision: Precision) -> CalibrationData | None:
    """The user's samples, held to the network's inputs; None where the precision draws no ranges."""
    if text is None or precision.calibration_batches is None:
        return None
    return _checked(text, model, precision.calibration_batches)


@cache
def _checked(text: str, model: ModelRef, count: int) -> CalibrationData:
    """Read once a sweep, however many variants share it."""
    data = calibration.parse(text)
    calibration.check(data, models.signature(model), count)
    return data


@cache
def graph_pass(asked: str) -> GraphPass | None:
    """The pass, a user's function with the digest of its source; None for ``none``. Read once a sweep."""
    if asked == "none":
        return None
    if asked == SIMPLIFY:
        return GraphPass(name=asked)
    if not user_code.is_named(asked):
        raise ConfigError(f"graph={asked}: no such pass; there are: none, {SIMPLIFY}, or package.module:function")
    return GraphPass(name=asked, digest=user_code.digest("graph", asked))
