"""``precision``: the recipe of a typed graph."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from sweep import models
from sweep.config.variants import axis_values, checks
from sweep.errors import ConfigError
from sweep.models.datasets import calibration
from sweep.precision import SIMPLIFY
from sweep.spec import GraphPass, Precision
from sweep.system import user_code

if TYPE_CHECKING:
    from sweep.config.schema import Config, PrecisionConfig
    from sweep.spec import CalibrationData, ModelRef

_DTYPES = ("fp32", "tf32", "fp16", "bf16", "int8", "fp8")
_UNCHANGED = ("fp32", "tf32")
_QUANTISED = ("int8", "fp8")
_LEAST_PERCENT, _ALL_PERCENT = 50, 100
_RESTS = ("fp16", "bf16")
_MIXES = tuple(f"{dtype}_{rest}" for dtype in _QUANTISED for rest in _RESTS)


def recipe(asked: Config) -> Precision:
    """Return the recipe, once its parts fit together and its name says what they are."""
    config = asked.precision
    values = axis_values.checked(asked, "onnx.precision")
    tool = _tool(config)
    typed = tool == "none"
    guard = config.guard and "fp16" in {config.dtype, config.rest}
    draws = (config.dtype in _QUANTISED or guard) and not typed
    if draws:
        checks.at_least(1, **{"precision.calibration_batches": config.calibration_batches or 0})
    if config.dtype not in _QUANTISED and config.rest is not None:
        raise ConfigError(f"precision.rest={config.rest}: dtype {config.dtype} leaves no rest; int8 and fp8 do")
    types = "_".join(filter(None, (config.dtype, config.rest)))
    if config.name in (*_DTYPES, *_MIXES) and config.name != types:
        raise ConfigError(f"precision.name={config.name} on dtype {types} is a wrong label; use another name")
    derived = {
        "wide": (config.wide and config.rest is not None and tool != "modelopt") or None,
        "guard": guard or None,
        "calibration_batches": config.calibration_batches if draws else None,
        "calibration_method": None,
        "calibration_percentile": None,
        **(_method(config) if config.dtype in _QUANTISED and not typed else {}),
        "tool": tool,
    }
    return Precision(**values | derived)


def _tool(config: PrecisionConfig) -> str | None:
    """Who types the graph, once it can do what is asked; None for the own converters, and where nothing is converted.

    modelopt always scales weights per channel, and clips by entropy only.
    """
    tool: str = config.tool
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
    method = config.calibration_method
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
