"""Make the recipe of a typed graph from `precision`, with its graph pass and calibration data."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from sweep import models
from sweep.analysis import accuracy_gates
from sweep.config.settings import gates
from sweep.config.variants import axis_values, checks
from sweep.errors import ConfigError
from sweep.models.datasets import calibration
from sweep.precision import NATIVE, SIMPLIFY
from sweep.spec import CalibrationData, GraphPass, NodeSearch, Precision
from sweep.system import user_code

if TYPE_CHECKING:
    from sweep.config.schema import Config, PrecisionConfig
    from sweep.spec import ModelRef, SampleData

_DTYPES = ("fp32", "tf32", "fp16", "bf16", "int8", "fp8", NATIVE)
_FP32 = ("fp32", "tf32")
_UNCHANGED = (*_FP32, NATIVE)
_QUANTIZED = ("int8", "fp8")
_MIN_PERCENTILE, _MAX_PERCENTILE = 50, 100
_RESTS = ("fp16", "bf16")
QAT = "qat"
"""Name the recipe of a file that comes with Q/DQ pairs; it needs ``precision.path``."""

_MIXES = tuple(f"{dtype}_{rest}" for dtype in _QUANTIZED for rest in _RESTS)


def recipe(config: Config, model: ModelRef | None = None) -> Precision:
    """Return the recipe; axes that have no effect on its types are None, so that they stay out of the key.

    Args:
        config: composed by Hydra.
        model: the fp32 network; None where there is none, and a file of ``precision.path`` is not read.

    Raises:
        ConfigError: keys contradict each other, or the name is that of other types; one line.
        ModelError: the file of ``precision.path`` cannot be read, or is none of `model`; one line.
    """
    precision = config.precision
    values = axis_values.checked(config, "onnx.precision")
    tool = _tool(precision)
    guard = precision.guard and "fp16" in {precision.dtype, precision.rest}
    calibrates = (precision.dtype in _QUANTIZED or guard) and tool != "none"
    if calibrates:
        checks.at_least(1, **{"precision.calibration_batches": precision.calibration_batches or 0})
    if precision.dtype not in _QUANTIZED and precision.rest is not None:
        raise ConfigError(f"precision.rest={precision.rest}: dtype {precision.dtype} leaves no rest; int8 and fp8 do")
    types = "_".join(filter(None, (precision.dtype, precision.rest)))
    if precision.name in (*_DTYPES, *_MIXES) and precision.name != types:
        raise ConfigError(f"precision.name={precision.name} on dtype {types} is a wrong label; use another name")
    derived = {
        "wide": (precision.wide and precision.rest is not None and tool != "modelopt") or None,
        "guard": guard or None,
        "keep": _keep(precision, tool),
        "search": _search(config, tool),
        "calibration_batches": precision.calibration_batches if calibrates else None,
        "calibration_method": None,
        "calibration_percentile": None,
        **(_method(precision) if precision.dtype in _QUANTIZED and tool != "none" else {}),
        "tool": tool,
        **_typed_file(config, model, tool),
    }
    return Precision(**values | derived)


def _typed_file(config: Config, model: ModelRef | None, tool: str | None) -> dict[str, str | None]:
    """Return the axes `path` and `digest`; None where the recipe converts, or takes the fp32 graph.

    Raises:
        ConfigError: the recipe needs the file and it is not named, or its weights cannot be pruned.
        ModelError: it cannot be read, or is no file of `model`.
    """
    precision = config.precision
    if tool != "none" or precision.dtype in _FP32:
        return {"path": None, "digest": None}
    if precision.path is None:
        if precision.name == QAT:
            raise ConfigError(
                f"precision={QAT}: no file is named; give precision.path=FILE, of the network of model and with Q/DQ, "
                f"or leave it out, as in precision=glob(*,exclude={QAT})"
            )
        return {"path": None, "digest": None}
    if config.backend.sparsity == "force":
        raise ConfigError(
            f"backend.sparsity=force prunes the fp32 graph, and precision.path={precision.path} is used as it came; "
            "leave one of them out"
        )
    if model is None:
        return {"path": precision.path, "digest": None}
    ref = _read_sibling(model, precision.path, config.batch)
    return {"path": ref.path, "digest": ref.digest}


@cache
def _read_sibling(model: ModelRef, path: str, batch: int) -> ModelRef:
    """Read and check a typed file; once per process, however many variants share it."""
    return models.sibling_ref(model, path, batch)


def _tool(config: PrecisionConfig) -> str | None:
    """Return the axis `tool`: modelopt, none, or None for the built-in converters and where nothing is converted.

    native is always none, for it takes the file as it is.

    Raises:
        ConfigError: modelopt cannot follow the recipe: it scales weights per channel only, and has no percentile.
    """
    tool: str = config.tool
    if config.dtype == NATIVE:
        return "none"
    if tool != "modelopt" or config.dtype in _UNCHANGED:
        return tool if tool == "none" else None
    if config.dtype in _QUANTIZED and not config.per_channel:
        raise ConfigError("precision.per_channel=false: modelopt scales weights per channel only; take tool=builtin")
    if config.dtype in _QUANTIZED and config.calibration_method == "percentile":
        raise ConfigError(
            "precision.calibration_method=percentile: modelopt has max and entropy; take one of them, or tool=builtin"
        )
    return tool


def _keep(config: PrecisionConfig, tool: str | None) -> tuple[str, ...] | None:
    """Return the axis `keep`; None where nothing is kept, or nothing is converted.

    Raises:
        ConfigError: modelopt does the conversion, which chooses by itself what stays float32.
    """
    if not config.keep or config.dtype in _UNCHANGED or tool == "none":
        return None
    if tool == "modelopt":
        raise ConfigError("precision.keep: modelopt chooses what stays in fp32 by itself; take precision.tool=builtin")
    return tuple(config.keep)


def _search(config: Config, tool: str | None) -> NodeSearch | None:
    """Return the axis `search`; None where none is requested, or nothing is converted.

    Raises:
        ConfigError: modelopt does the conversion, or no gate says what the search has to reach.
    """
    precision = config.precision
    if not precision.search or precision.dtype in _UNCHANGED or tool == "none":
        return None
    if tool == "modelopt":
        raise ConfigError(
            "precision.search: modelopt chooses what stays in fp32 by itself; take precision.tool=builtin"
        )
    checks.at_least(1, **{"precision.search_evaluations": precision.search_evaluations})
    required = gates(config.accuracy)
    if not accuracy_gates.limits(required):
        raise ConfigError(
            "precision.search=true: no gate says what to reach; give accuracy.min_sqnr_db=30, accuracy.min_top1=0.99 "
            "or another accuracy.*. What rounding explains, the limit without a gate, every recipe keeps by itself"
        )
    return NodeSearch(gates=required, evaluations=precision.search_evaluations)


def _method(config: PrecisionConfig) -> dict[str, Any]:
    """Return the axes of the calibration method; {} for max, the default, which stays out of the key."""
    method = config.calibration_method
    if method == "entropy" and config.dtype == "fp8":
        raise ConfigError(
            "precision.calibration_method=entropy weighs the even steps of int8, which fp8 has not: "
            "take max or percentile"
        )
    if method == "percentile" and not _MIN_PERCENTILE < config.calibration_percentile <= _MAX_PERCENTILE:
        raise ConfigError(
            f"precision.calibration_percentile={config.calibration_percentile:g}: above {_MIN_PERCENTILE}, up to 100"
        )
    if method == "max":
        return {}
    percentile = {"calibration_percentile": config.calibration_percentile} if method == "percentile" else {}
    return {"calibration_method": method, **percentile}


def calibration_data(
    text: str | None, samples: SampleData | None, model: ModelRef, precision: Precision
) -> CalibrationData | None:
    """Return the user's calibration samples, checked against the model's inputs; None if the precision needs none.

    Args:
        text: ``model.calibration``; None takes `samples`.
        samples: ``model.samples``, checked; None for none.
        model: that the samples are for.
        precision: its `calibration_batches` says how many batches are needed.

    Raises:
        ConfigError: the samples cannot be read or do not fit; one line.
    """
    if precision.calibration_batches is None:
        return None
    if text is None:
        if samples is None:
            return None
        first = samples.calibrating or samples.count
        return CalibrationData(kind="samples", path=samples.path, digest=samples.digest, first=first)
    return _read_calibration(text, model, precision.calibration_batches)


@cache
def _read_calibration(text: str, model: ModelRef, count: int) -> CalibrationData:
    """Read and check the samples for `count` batches; once per process, however many variants share them."""
    data = calibration.parse(text)
    calibration.check(data, models.signature(model), count)
    return data


@cache
def graph_pass(name: str) -> GraphPass | None:
    """Return the graph pass, with the digest of a user's function; None for ``none``. Read once per process.

    Args:
        name: ``none``, ``simplify`` or ``package.module:function``.

    Raises:
        ConfigError: there is no such pass.
    """
    if name == "none":
        return None
    if name == SIMPLIFY:
        return GraphPass(name=name)
    if not user_code.is_named(name):
        raise ConfigError(f"graph={name}: no such pass; there are: none, {SIMPLIFY}, or package.module:function")
    return GraphPass(name=name, digest=user_code.digest("graph", name))
