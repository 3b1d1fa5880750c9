"""Axes of the graph: change one of these and the typed ONNX is made again."""

from __future__ import annotations

from dataclasses import dataclass, field

from sweep.axes.base import NOT_IN_KEY


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
        wide: products with a quantised weight give float32 whatever the rest is (mixes only).
        guard: nodes that touch what overflows float16 over the calibration data stay float32 (fp16 only).
        quantize_ops: op types whose inputs get Q/DQ (int8 and fp8 only).
        per_channel: per-channel weight scales, as TensorRT wants them.
        calibration_batches: how many seeded random batches the ranges of the activations are drawn from.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxAxes:
    """Change one of these and the typed ONNX is made again.

    Attributes:
        model: the network.
        precision: the types that its graph will carry.
        prune: ``2:4`` zeroes two of each four weights before anything else; set by sparsity=force.
    """

    model: ModelRef
    precision: Precision
    prune: str | None = None
