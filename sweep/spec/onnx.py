"""Axes of the graph: change one of these and the typed ONNX is made again."""

from __future__ import annotations

from dataclasses import dataclass, field

from sweep.spec.base import NOT_IN_KEY


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
    """

    name: str
    revision: int | None = None
    path: str | None = field(default=None, metadata=NOT_IN_KEY)
    digest: str | None = None
    inputs: tuple[InputFix, ...] = ()
    batch_dim: str | None = None
    made_from: str | None = field(default=None, metadata=NOT_IN_KEY)


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

    name: str
    dtype: str
    keep_io: bool = True
    rest: str | None = None
    wide: bool | None = None
    guard: bool | None = None
    quantize_ops: tuple[str, ...] = ()
    per_channel: bool = True
    calibration_batches: int | None = None
    calibration_method: str | None = None
    calibration_percentile: float | None = None
    tool: str | None = None


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
    prune: str | None = None
    graph: GraphPass | None = None
    calibration: CalibrationData | None = None
