"""Declare the axes of the graph: if one changes, the typed ONNX is made again."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - get_type_hints
from dataclasses import dataclass, field, fields
from pathlib import PurePath
from typing import Any

from sweep.spec.axis import axis, plain_text
from sweep.spec.base import NOT_IN_KEY, source_name, source_override
from sweep.spec.checks import one_of
from sweep.spec.gates import Gates  # noqa: TC001 - get_type_hints
from sweep.spec.network_inputs import (
    Dimension,
    ExportInput,
    InputFix,
    inputs_cell,
    inputs_overrides,
    shape_text,
    shape_word,
)

_DTYPES = ("fp32", "tf32", "fp16", "bf16", "int8", "fp8", "native")
_SAMPLES = "samples"  # kind of calibration data that model.samples gives
_GRAPH_PASS, _METHOD, _CALIBRATION, _TOOL, _KEEP = 10, 11, 12, 13, 14  # places of their words in the label
SEARCH_EVALUATIONS = 32
"""Limit the conversions that a search of nodes to keep judges, unless the user says otherwise."""


def _source_overrides(made_from: str | None) -> Mapping[str, Any]:
    """Return the keys that select a model exported from `made_from`, such as ``torch nets:small``."""
    kind, _, source = (made_from or "").partition(" ")
    return {f"model.{kind}": source} if source else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRef:
    """Identify a network, by name (built-in) or by path (a user's own ONNX).

    Attributes:
        name: zoo name, or the file's stem.
        revision: the zoo's revision of that network; None for a file.
        path: absolute path of a user's file; None for the zoo. Not in the key: ``digest`` is.
        digest: sha256 of the user's file and its external data; None for the zoo.
        inputs: what the user fixed about the inputs.
        batch_dim: name of the symbolic dimension that is the batch; None detects it.
        shape: sizes of named dimensions, by name; a dimension that is not in it keeps its own size. None sets none.
        open_dimensions: names of the dimensions that the graph leaves open, so that one engine takes several sizes;
            None leaves open what the file does and ``shape`` does not set.
        made_from: source that the file was exported from, such as ``torch nets:small``. Not in the key: ``digest`` is.
        export_inputs: example arguments that PyTorch exported with. Not in the key: ``digest`` is.
    """

    name: str = axis(
        key="model.name",
        help="built-in network, which model=NAME sets; a model of your own is named after its file or function",
        cli_default="tiny_cnn",
        word=str,
        place=0,
        column="model",
    )
    revision: int | None = axis(None, key=None, place=0)
    path: str | None = axis(
        None,
        key="model.path",
        help="ONNX file of your own, with or without external data; replaces model.name",
        place=0,
        cell=lambda path: "null" if path is None else PurePath(path).name,
        in_key=False,
    )
    digest: str | None = axis(None, key=None, place=0)
    inputs: tuple[InputFix, ...] = axis(
        (),
        key="model.inputs",
        help="shape and value range of the inputs of your own model, as in +model.inputs.x.shape=[batch,512]",
        cli_default={},
        hint=dict[str, Any],
        place=0,
        cell=inputs_cell,
        overrides=inputs_overrides,
    )
    batch_dim: str | None = axis(
        None,
        key="model.batch_dim",
        help="name of the ONNX dimension that is the batch (null: detected)",
        place=0,
    )
    shape: tuple[Dimension, ...] | None = axis(
        None,
        key="shape",
        help="sizes of named dimensions of the network, as in shape=seq:64,128 or shape=h:224+w:320 (null: its own)",
        cli_default=None,
        hint=Any,
        word=shape_word,
        place=0,
        cell=shape_text,
        overrides=lambda shape: {"shape": shape_text(shape) if shape else None},
    )
    open_dimensions: tuple[str, ...] | None = axis(None, key=None, place=0)
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
class NodeSearch:
    """Request the fewest nodes in float32 with which a recipe reaches the accuracy gates.

    Attributes:
        gates: what the outputs have to reach; at least one is set.
        evaluations: most conversions that are run and judged.
    """

    gates: Gates
    evaluations: int = SEARCH_EVALUATIONS


def _set_gates(search: NodeSearch) -> dict[str, float]:
    """Return the gates that are set, by name."""
    values = {item.name: getattr(search.gates, item.name) for item in fields(search.gates)}
    return {name: value for name, value in values.items() if value is not None}


def _search_word(search: NodeSearch) -> str:
    """Return the word of the label, such as ``search-min_sqnr_db30``."""
    return "-".join(["search", *(f"{name}{plain_text(value)}" for name, value in _set_gates(search).items())])


def _search_overrides(search: NodeSearch | None) -> Mapping[str, Any]:
    """Return the keys that request `search`."""
    if search is None:
        return {"precision.search": False}
    gates = {f"accuracy.{name}": value for name, value in _set_gates(search).items()}
    return {"precision.search": True, "precision.search_evaluations": search.evaluations, **gates}


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """Describe a precision recipe: the element types of the ONNX graph.

    Attributes:
        name: of the recipe, in tables and MLflow.
        dtype: fp32, tf32, fp16, bf16, int8, fp8, or native: the file as it is, whatever its types.
        path: absolute path of a file of the network that has types of its own; None converts the fp32 graph, or takes
            it as it is. Not in the key: ``digest`` is.
        digest: sha256 of that file and its external data.
        keep_io: inputs and outputs stay float32, so that all precisions share one I/O contract.
        rest: type of the nodes that int8 and fp8 leave unquantized, fp16 or bf16; None is float32.
        wide: products with a quantized weight give float32 whatever ``rest`` is; with int8 and bf16 a quantized Softmax
            does too.
        guard: nodes with a value that overflows float16, or whose rounding destroys the outputs, stay float32 (fp16
            and bf16 only).
        keep: names, patterns of names or op types of nodes that stay float32, quantized in no precision either.
        search: search for the fewest further nodes that have to stay float32; None searches none.
        quantize_ops: op types whose inputs get Q/DQ (int8 and fp8 only).
        per_channel: one weight scale per output channel, which TensorRT expects, instead of one per tensor.
        calibration_batches: most batches that the ranges of the activations are computed from.
        calibration_method: how a range is computed: ``percentile`` or ``entropy``; None takes the largest value.
        calibration_percentile: share of absolute values inside the range, percent (``percentile`` only).
        tool: ``none`` if the file has the types already, which are checked; ``modelopt`` converts with NVIDIA's Model
            Optimizer; None with the built-in converters.
    """

    name: str = axis(
        key="precision.name",
        help="name of the recipe in tables and records; precision=NAME sets all keys of a recipe",
        cli_default="fp32",
        word=str,
        place=1,
        column="precision",
    )
    dtype: str = axis(
        key="precision.dtype",
        help="element type of the compute nodes: fp32, tf32, fp16, bf16, int8, fp8, or native: as the file has them",
        cli_default="fp32",
        check=one_of(*_DTYPES, rule=f"no such type; there are: {', '.join(_DTYPES)}"),
        place=1,
    )
    path: str | None = axis(
        None,
        key="precision.path",
        help=(
            "precision=qat, native, tool=none: file of the same network with types of its own (Q/DQ), judged against "
            "the fp32 graph of model"
        ),
        place=1,
        cell=lambda path: "null" if path is None else PurePath(path).name,
        in_key=False,
    )
    digest: str | None = axis(None, key=None, place=1)
    keep_io: bool = axis(
        default=True,
        key="precision.keep_io",
        help="keep inputs and outputs in float32",
        place=1,
    )
    rest: str | None = axis(
        None,
        key="precision.rest",
        help="int8, fp8: element type of the nodes that are not quantized: fp16 or bf16 (null: fp32)",
        check=one_of("fp16", "bf16"),
        place=1,
    )
    wide: bool | None = axis(
        None,
        key="precision.wide",
        help="with precision.rest: products with a quantized weight give float32",
        cli_default=False,
        hint=bool,
        place=1,
    )
    guard: bool | None = axis(
        None,
        key="precision.guard",
        help="fp16, bf16: keep nodes in float32 that overflow it, or whose rounding destroys the outputs",
        cli_default=False,
        hint=bool,
        place=1,
    )
    keep: tuple[str, ...] | None = axis(
        None,
        key="precision.keep",
        help="nodes that stay in float32: names, patterns of names such as /head/*, or op types",
        cli_default=[],
        hint=list[str],
        word=lambda keep: f"keep-{'-'.join(keep)}",
        place=_KEEP,
    )
    search: NodeSearch | None = axis(
        None,
        key="precision.search",
        help="search for the fewest nodes in float32 with which the recipe reaches the accuracy gates (accuracy.*)",
        cli_default=False,
        hint=bool,
        word=_search_word,
        place=_KEEP,
        overrides=_search_overrides,
    )
    quantize_ops: tuple[str, ...] = axis(
        (),
        key="precision.quantize_ops",
        help="int8, fp8: op types whose inputs are quantized (Q/DQ nodes)",
        place=1,
    )
    per_channel: bool = axis(
        default=True,
        key="precision.per_channel",
        help="int8, fp8: one weight scale per output channel, which TensorRT expects; false: one per tensor",
        place=1,
    )
    calibration_batches: int | None = axis(
        None,
        key="precision.calibration_batches",
        help="int8, fp8, guard: most batches of calibration data, 8 samples each",
        place=1,
    )
    calibration_method: str | None = axis(
        None,
        key="precision.calibration_method",
        help="int8, fp8: how the range of an activation is computed: max, percentile or entropy",
        cli_default="max",
        hint=str,
        check=one_of("max", "percentile", "entropy"),
        word=lambda method: "" if method == "percentile" else method,
        place=_METHOD,
    )
    calibration_percentile: float | None = axis(
        None,
        key="precision.calibration_percentile",
        help="calibration_method=percentile: share of absolute values inside the range, percent",
        cli_default=99.99,
        hint=float,
        word=lambda percent: f"percentile{plain_text(percent)}",
        place=_METHOD,
    )
    tool: str | None = axis(
        None,
        key="precision.tool",
        help="converter: builtin, modelopt (NVIDIA Model Optimizer), or none for a file that has the types already",
        cli_default="builtin",
        hint=str,
        check=one_of("builtin", "none", "modelopt"),
        word=lambda tool: "as-it-is" if tool == "none" else tool,
        place=_TOOL,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphPass:
    """Identify a pass over the fp32 graph before its conversion.

    Attributes:
        name: ``simplify``, or ``package.module:function`` of a user.
        digest: sha256 of the function's source file; None for ``simplify``.
    """

    name: str
    digest: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationData:
    """Describe a user's own samples, from which ranges are computed.

    Attributes:
        kind: npz, npy (a folder), images (a folder), tokens (a file) or function; or samples, which are those of
            ``model.samples``.
        name: of the function; None for files.
        path: absolute path of the files; None for a function. Not in the key: ``digest`` is.
        digest: sha256 of the files, or of the function's source file.
        first: kind samples: number of the first samples that calibrate.
    """

    kind: str
    name: str | None = None
    path: str | None = field(default=None, metadata=NOT_IN_KEY)
    digest: str | None = None
    first: int | None = None

    @property
    def source(self) -> str:
        """Return the name of the samples in messages and records."""
        return str(self.name if self.path is None else self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxAxes:
    """Hold the axes of the graph: if one changes, the typed ONNX is made again.

    Attributes:
        model: the network.
        precision: the element types of its graph.
        prune: ``2:4`` zeroes two of each four weights first; set by sparsity=force.
        graph: pass over the fp32 graph, after pruning and before its conversion; the accuracy reference has none.
        calibration: samples that ranges are computed from, if the precision has ranges; None takes those of the model,
            else seeded random ones.
    """

    model: ModelRef
    precision: Precision
    prune: str | None = axis(None, key=None)
    graph: GraphPass | None = axis(
        None,
        key="graph",
        help="pass over the fp32 graph before its conversion: none, simplify, or your own package.module:function",
        cli_default="none",
        hint=str,
        word=lambda graph_pass: graph_pass.name.rpartition(".")[2],
        place=_GRAPH_PASS,
        cell=lambda graph_pass: "none" if graph_pass is None else graph_pass.name,
        overrides=lambda graph_pass: {"graph": "none" if graph_pass is None else graph_pass.name},
    )
    calibration: CalibrationData | None = axis(
        None,
        key="model.calibration",
        help=(
            "calibration samples: an .npz, a folder of .npy, images:FOLDER, tokens:FILE or "
            "package.module:function (null: the model's own, else random)"
        ),
        hint=str | None,
        word=lambda data: "" if data.kind == _SAMPLES else f"calibrated-{PurePath(data.source).name}",
        place=_CALIBRATION,
        cell=source_name,
        overrides=lambda data: {
            "model.calibration": source_override(
                None if data is not None and data.kind == _SAMPLES else data, prefixes=("images", "tokens")
            )
        },
    )
