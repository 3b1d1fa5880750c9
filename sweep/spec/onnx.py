"""Axes of the graph: change one of these and the typed ONNX is made again."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - get_type_hints
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from sweep.spec.axis import axis, plain_text
from sweep.spec.base import NOT_IN_KEY, source_name, source_override
from sweep.spec.checks import one_of

_DTYPES = ("fp32", "tf32", "fp16", "bf16", "int8", "fp8")
_GRAPH_PASS, _METHOD, _CALIBRATION, _TOOL = 10, 11, 12, 13  # places of the words that say how the graph came about


@dataclass(frozen=True, slots=True, kw_only=True)
class InputFix:
    """What the user says of one input of their model.

    Attributes:
        name: the ONNX input's name.
        shape: one entry per dimension, an int or the word ``batch``; None leaves the file's own shape.
        low: smallest value drawn (inclusive); None means the dtype's default.
        high: largest value drawn (inclusive for integers); None means the dtype's default.
    """

    name: str
    shape: tuple[int | str, ...] | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportInput:
    """Describe one example argument that a PyTorch module was exported with.

    Attributes:
        name: of the argument.
        shape: one entry per dimension, an int or the word ``batch``.
        dtype: element type, such as float32.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str


def _inputs_cell(inputs: tuple[InputFix, ...]) -> str:
    """Return what the user fixed about the inputs, as in ``x[batch,512] sr=16000..16000``."""
    words = []
    for fix in inputs:
        shape = "" if fix.shape is None else plain_text(fix.shape)
        drawn = "" if (fix.low, fix.high) == (None, None) else f"={plain_text(fix.low)}..{plain_text(fix.high)}"
        words.append(f"{fix.name}{shape}{drawn}")
    return ",".join(words) or "null"


def _inputs_overrides(inputs: tuple[InputFix, ...]) -> Mapping[str, Any]:
    """Return what asks for `inputs`."""
    fixed = {fix.name: {"shape": fix.shape and list(fix.shape), "low": fix.low, "high": fix.high} for fix in inputs}
    return {
        "model.inputs": {
            name: {key: value for key, value in fix.items() if value is not None} for name, fix in fixed.items()
        }
    }


def _source_overrides(made_from: str | None) -> Mapping[str, Any]:
    """Return what asks for a model that was exported from `made_from`, such as ``torch nets:small``."""
    kind, _, source = (made_from or "").partition(" ")
    return {f"model.{kind}": source} if source else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRef:
    """A network, by name (built here) or by path (a user's own ONNX).

    Attributes:
        name: zoo name, or the file's stem.
        revision: the zoo's revision of that network; None for a file.
        path: absolute path of a user's file; None for the zoo. Not in the key: ``digest`` is.
        digest: sha256 of the user's file and its external data; None for the zoo.
        inputs: what the user fixed about the inputs.
        batch_dim: name of the symbolic dimension that is the batch; None means found by rule.
        made_from: what the file was exported from, such as ``torch nets:small``. Not in the key: ``digest`` is.
        export_inputs: example arguments that PyTorch exported with. Not in the key: ``digest`` is.
    """

    name: str = axis(
        key="model.name",
        help="network built here, or the label of a file; model=NAME sets it",
        cli_default="tiny_cnn",
        word=str,
        place=0,
        column="model",
    )
    revision: int | None = axis(None, key=None, place=0)
    path: str | None = axis(
        None,
        key="model.path",
        help="your own .onnx, with or without external data; wins over the name",
        place=0,
        cell=lambda path: "null" if path is None else PurePath(path).name,
        in_key=False,
    )
    digest: str | None = axis(None, key=None, place=0)
    inputs: tuple[InputFix, ...] = axis(
        (),
        key="model.inputs",
        help="per input: shape, low, high, as in +model.inputs.x.shape=[batch,512]",
        cli_default={},
        hint=dict[str, Any],
        place=0,
        cell=_inputs_cell,
        overrides=_inputs_overrides,
    )
    batch_dim: str | None = axis(
        None,
        key="model.batch_dim",
        help="name of the ONNX dimension that is the batch; null finds it",
        place=0,
    )
    made_from: str | None = axis(None, key=None, place=0, overrides=_source_overrides, in_key=False)
    export_inputs: tuple[ExportInput, ...] = axis(
        (),
        key=None,
        place=0,
        cell=lambda inputs: ",".join(f"{item.name}{plain_text(item.shape)}" for item in inputs) or "null",
        overrides=lambda inputs: {
            "model.inputs": {item.name: {"shape": list(item.shape), "dtype": item.dtype} for item in inputs}
        },
        in_key=False,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """A precision recipe: the types that the ONNX graph will carry.

    Attributes:
        name: what the table and MLflow show.
        dtype: fp32, tf32, fp16, bf16, int8 or fp8.
        keep_io: inputs and outputs stay float32, so that all precisions share one I/O contract.
        rest: type of what int8 and fp8 leave unquantised, fp16 or bf16; None leaves it float32.
        wide: products with a quantised weight give float32 whatever the rest is (mixes only), and in int8 beside
            bfloat16 the Softmax that is quantised does too.
        guard: nodes that touch what overflows float16 over the calibration data stay float32 (fp16 only).
        quantize_ops: op types whose inputs get Q/DQ (int8 and fp8 only).
        per_channel: per-channel weight scales, as TensorRT wants them.
        calibration_batches: how many batches the ranges of the activations are drawn from.
        calibration_method: how: ``percentile`` or ``entropy``; None takes the largest value.
        calibration_percentile: in percent, for ``percentile`` only.
        tool: ``none`` where the file has the types already and is checked against them; ``modelopt`` has NVIDIA's
            Model Optimizer convert; None converts with the own converters.
    """

    name: str = axis(
        key="precision.name",
        help="label of the recipe; precision=NAME sets it",
        cli_default="fp32",
        word=str,
        place=1,
        column="precision",
    )
    dtype: str = axis(
        key="precision.dtype",
        help="fp32, tf32, fp16, bf16, int8 or fp8",
        cli_default="fp32",
        check=one_of(*_DTYPES, wanted=f"no such type; there are: {', '.join(_DTYPES)}"),
        place=1,
    )
    keep_io: bool = axis(
        default=True,
        key="precision.keep_io",
        help="inputs and outputs stay float32 whatever is inside",
        place=1,
    )
    rest: str | None = axis(
        None,
        key="precision.rest",
        help="type of what int8 and fp8 leave unquantised: fp16 or bf16 (null: fp32)",
        check=one_of("fp16", "bf16"),
        place=1,
    )
    wide: bool | None = axis(
        None,
        key="precision.wide",
        help="quantised products give float32, whatever precision.rest is",
        cli_default=False,
        hint=bool,
        place=1,
    )
    guard: bool | None = axis(
        None,
        key="precision.guard",
        help="what overflows float16 over the calibration data stays float32 (fp16)",
        cli_default=False,
        hint=bool,
        place=1,
    )
    quantize_ops: tuple[str, ...] = axis(
        (),
        key="precision.quantize_ops",
        help="op types that get Q/DQ (int8, fp8)",
        place=1,
    )
    per_channel: bool = axis(
        default=True,
        key="precision.per_channel",
        help="weight scales per output channel, as TensorRT wants them",
        place=1,
    )
    calibration_batches: int | None = axis(
        None,
        key="precision.calibration_batches",
        help="most batches of 8 samples that set ranges (int8, fp8, guard)",
        place=1,
    )
    calibration_method: str | None = axis(
        None,
        key="precision.calibration_method",
        help="range of an activation (int8, fp8): max, percentile or entropy",
        cli_default="max",
        hint=str,
        check=one_of("max", "percentile", "entropy"),
        word=lambda method: "" if method == "percentile" else method,
        place=_METHOD,
    )
    calibration_percentile: float | None = axis(
        None,
        key="precision.calibration_percentile",
        help="share of |x| inside the range, percent, for method percentile",
        cli_default=99.99,
        hint=float,
        word=lambda percent: f"percentile{plain_text(percent)}",
        place=_METHOD,
    )
    tool: str | None = axis(
        None,
        key="precision.tool",
        help="builtin converts; modelopt: NVIDIA's converts; none: the file is typed, and is checked",
        cli_default="builtin",
        hint=str,
        check=one_of("builtin", "none", "modelopt"),
        word=lambda tool: "as-it-is" if tool == "none" else tool,
        place=_TOOL,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphPass:
    """A pass over the fp32 graph before its precision.

    Attributes:
        name: ``simplify``, or ``package.module:function`` of a user.
        digest: sha256 of the function's source file; None for ``simplify``, whose version the cache counts.
    """

    name: str
    digest: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationData:
    """A user's own samples, which ranges are drawn from.

    Attributes:
        kind: npz, npy (a folder), images (a folder), tokens (a file) or function.
        name: of the function; None for files.
        path: absolute path of the files; None for a function. Not in the key: ``digest`` is.
        digest: sha256 of the files, or of the function's source file.
    """

    kind: str
    name: str | None = None
    path: str | None = field(default=None, metadata=NOT_IN_KEY)
    digest: str | None = None

    @property
    def source(self) -> str:
        """What messages and records call it."""
        return str(self.name if self.path is None else self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxAxes:
    """Change one of these and the typed ONNX is made again.

    Attributes:
        model: the network.
        precision: the types that its graph will carry.
        prune: ``2:4`` zeroes two of each four weights before anything else; set by sparsity=force.
        calibration: samples that ranges are drawn from, where the precision draws any; None takes seeded random ones.
        graph: pass over the fp32 graph, pruned or not, before its precision; the accuracy reference does without.
    """

    model: ModelRef
    precision: Precision
    prune: str | None = axis(None, key=None)
    graph: GraphPass | None = axis(
        None,
        key="graph",
        help="pass over the fp32 graph: none, simplify, or your own package.module:function",
        cli_default="none",
        hint=str,
        word=lambda made: made.name.rpartition(".")[2],
        place=_GRAPH_PASS,
        cell=lambda made: "none" if made is None else made.name,
        overrides=lambda made: {"graph": "none" if made is None else made.name},
    )
    calibration: CalibrationData | None = axis(
        None,
        key="model.calibration",
        help="samples for ranges: an .npz, a folder of .npy, images:FOLDER, tokens:FILE, package.module:function",
        hint=str | None,
        word=lambda data: f"calibrated-{PurePath(data.source).name}",
        place=_CALIBRATION,
        cell=source_name,
        overrides=lambda data: {"model.calibration": source_override(data, prefixes=("images", "tokens"))},
    )
