"""fp32 graph -> int8 or fp8 Q/DQ graph by TensorRT's rules.

onnxruntime's static quantiser finds the ranges and places the pairs, for int8; what it leaves to do for fp8, and
for a rest in 16 bits, is done on its result: weights are stored in the type, scales made to fit.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.errors import ConversionError
from sweep.typed_onnx import evidence, folding
from sweep.typed_onnx import graph as graphs
from sweep.typed_onnx.tools import quiet
from sweep.typed_onnx.weights import channel_axis

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np
    from onnx import GraphProto, ModelProto, NodeProto

    from sweep.axes import Precision

_SHOWN = 5


def quantised(
    model: ModelProto, precision: Precision, calibration: Sequence[Mapping[str, np.ndarray]]
) -> tuple[ModelProto, tuple[str, ...]]:
    """Puts symmetric Q/DQ pairs on the inputs of the ops that ``precision`` names.

    Activation ranges are the largest |x| seen over ``calibration``; weights are int8 or fp8 initialisers
    behind a DequantizeLinear, scaled per output channel; biases and everything else stay float32.

    Args:
        model: an fp32 graph as ``prepared`` gives it; used up.
        precision: its ``dtype``, ``rest``, ``quantize_ops`` and ``per_channel`` count here.
        calibration: batches, each a dict of every graph input by name.

    Returns:
        The graph and what to tell about it.

    Raises:
        ConversionError: no ops, ops that hold no matrix product, or nothing to calibrate with.
    """
    check_calibration(precision, calibration)
    _check_ops(precision)
    options = _options(model, precision)
    with tempfile.TemporaryDirectory(prefix="sweep-quantise-") as folder:
        source, target = Path(folder, "fp32.onnx"), Path(folder, "quantised.onnx")
        graphs.save(model, source)
        with quiet():
            from onnxruntime.quantization import quantize_static

            quantize_static(source, target, _reader(calibration), **options)
        result, notes = graphs.load(target), _notes(target)
    _unshare(result.graph, precision.quantize_ops)
    folding.fold(result.graph, precision)
    graphs.order(result.graph)
    return result, notes


def _check_ops(precision: Precision) -> None:
    odd = [op for op in precision.quantize_ops if op not in evidence.COMPUTE]
    if odd or not precision.quantize_ops:
        asked = ", ".join(odd) or "nothing"
        raise ConversionError(
            f"precision {precision.name} quantises {asked}: set quantize_ops to some of {', '.join(evidence.COMPUTE)}"
        )


def check_calibration(precision: Precision, calibration: Sequence[Mapping[str, np.ndarray]]) -> None:
    """Refuses to draw ranges from nothing, or from values that are not finite.

    Raises:
        ConversionError: which batch and which input.
    """
    import numpy as np

    if not calibration:
        raise ConversionError(
            f"precision {precision.name} got no calibration batches: set calibration_batches to 1 or more"
        )
    for index, batch in enumerate(calibration):
        bad = [name for name, value in batch.items() if value.dtype.kind == "f" and not np.isfinite(value).all()]
        if bad:
            raise ConversionError(f"calibration batch {index} holds NaN or Inf in {bad[0]}: narrow that input's range")


def _options(model: ModelProto, precision: Precision) -> dict[str, Any]:
    """The tool's arguments that make its Q/DQ pairs the ones that TensorRT takes."""
    with quiet():
        from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType

    ops = list(precision.quantize_ops)
    return {
        "quant_format": QuantFormat.QDQ,
        "op_types_to_quantize": ops,
        "per_channel": precision.per_channel,
        "activation_type": QuantType.QInt8,
        "weight_type": QuantType.QInt8,
        "nodes_to_exclude": _odd(model, ops),
        "use_external_data_format": graphs.is_large(model),
        "calibrate_method": CalibrationMethod.MinMax,
        "extra_options": {
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "CalibTensorRangeSymmetric": True,
            "AddQDQPairToWeight": True,  # the weights come back as they were: they are stored in their type here
            "DedicatedQDQPair": True,
            "QuantizeBias": False,  # TensorRT refuses an int32 DequantizeLinear
            "OpTypesToExcludeOutputQuantization": ops,  # a pair behind a Conv would part it from its Relu
        },
    }


def _reader(calibration: Sequence[Mapping[str, np.ndarray]]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc] # its base ships no types
        def __init__(self) -> None:
            self.batches: Iterator[Mapping[str, np.ndarray]] = iter(calibration)

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.batches, None)
            return None if batch is None else dict(batch)

    return Reader()


def _odd(model: ModelProto, ops: Sequence[str]) -> list[str]:
    """Nodes with a constant operand that has no channel: a vector, a batch of matrices, one on the left.

    Left in float: onnxruntime's CPU cannot run a batch of matrices with a scale per channel.
    """
    ranks = {tensor.name: len(tensor.dims) for tensor in model.graph.initializer}
    return [
        node.name
        for node in model.graph.node
        for index, name in enumerate(node.input[:2])
        if node.op_type in ops and name in ranks and channel_axis(node, index, ranks[name]) is None
    ]


def _unshare(graph: GraphProto, ops: Sequence[str]) -> None:
    """Gives the float tensor back to the nodes that read a quantised one without being named in ``ops``.

    The quantiser hands a Q/DQ pair to every reader of the tensor, which would round the residual stream
    of a transformer. One reader keeps it: the Add behind a Conv, whose skip branch TensorRT fuses into
    the int8 convolution only if that branch is quantised.

    Source:
        TensorRT developer guide, "Q/DQ Layer-Placement Recommendations".
    """
    makers = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        if node.op_type in ops or _is_conv_residual(node, makers):
            continue
        for index, name in enumerate(node.input):
            quantiser = _quantiser(name, makers)
            if quantiser is not None:
                node.input[index] = quantiser.input[0]


def _is_conv_residual(node: NodeProto, makers: Mapping[str, NodeProto]) -> bool:
    return node.op_type == "Add" and any(name in makers and makers[name].op_type == "Conv" for name in node.input)


def _quantiser(name: str, makers: Mapping[str, NodeProto]) -> NodeProto | None:
    """The QuantizeLinear of the pair that ``name`` comes out of, if it does."""
    last = makers.get(name)
    if last is None or last.op_type != "DequantizeLinear":
        return None
    first = makers.get(last.input[0])
    return first if first is not None and first.op_type == "QuantizeLinear" else None


def _notes(path: Path) -> tuple[str, ...]:
    model = graphs.inferred(graphs.load(path, weights=False))
    left = [name for name, asked in evidence.compute_types(model) if asked == "fp32"]
    if not left:
        return ()
    shown = ", ".join(left[:_SHOWN]) + (", ..." if len(left) > _SHOWN else "")
    return (f"{len(left)} node{'s' * (len(left) > 1)} kept in fp32: {shown}",)
