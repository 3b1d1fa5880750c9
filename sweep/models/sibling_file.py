"""Check that a typed file is a sibling of a network: another file that takes and gives the same tensors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sweep.errors import ModelError
from sweep.models import onnx_file
from sweep.models.input_shapes import UNKNOWN_RANK
from sweep.models.resolution import signature
from sweep.models.signatures import BATCH, render_shape
from sweep.spec import InputFix, ModelRef

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sweep.models.signatures import OutputSpec, TensorSpec

    Shape = tuple[int | str, ...]

_ADVICE = "give a file of the same network, with the same inputs and outputs"


def sibling_ref(model: ModelRef, path: str, batch: int) -> ModelRef:
    """Return the reference to a file that has types of its own, whose inputs and outputs are those of `model`.

    Args:
        model: the fp32 network.
        path: the file, as the user named it.
        batch: samples per inference; a file of another batch may fix it.

    Returns:
        The reference, with the file's digest. Its inputs are fixed at the shapes and ranges of the network's.

    Raises:
        ModelError: the file cannot be read, or its inputs or outputs are others; the message names the first.
    """
    file = Path(path).expanduser().resolve()
    try:
        declared, digest = onnx_file.inputs(file), onnx_file.file_digest(file)
    except ModelError as error:
        raise ModelError(str(error).replace("model.path", "precision.path")) from error
    expected = {spec.name: spec for spec in signature(model).inputs}
    _check_names(path, "input", [spec.name for spec in declared], list(expected))
    fixes = tuple(_fix(path, spec, expected[spec.name], batch) for spec in declared)
    _check_outputs(path, onnx_file.outputs(file), model, batch)
    ref = ModelRef(name=model.name, path=str(file), digest=digest, inputs=fixes)
    signature(ref)
    return ref


def _check_names(path: str, kind: str, names: Iterable[str], expected: Iterable[str]) -> None:
    if set(names) != set(expected):
        raise ModelError(
            f"precision.path={path} has the {kind}s {', '.join(names)}, the network has {', '.join(expected)}; "
            f"{_ADVICE}"
        )


def _fix(path: str, spec: TensorSpec, expected: TensorSpec, batch: int) -> InputFix:
    """Return the shape and range of an input, as far as the file leaves them open those of the network."""
    if spec.dtype != expected.dtype:
        raise ModelError(
            f"precision.path={path}: input {spec.name!r} is {spec.dtype}, that of the network {expected.dtype}; "
            f"{_ADVICE}"
        )
    if spec.shape == UNKNOWN_RANK:
        return InputFix(name=spec.name, shape=expected.shape, low=expected.low, high=expected.high)
    _check_shape(f"precision.path={path}: input {spec.name!r}", spec.shape, expected.shape, batch)
    shape = tuple(own if isinstance(own, int) else size for own, size in zip(spec.shape, expected.shape, strict=True))
    return InputFix(name=spec.name, shape=shape, low=expected.low, high=expected.high)


def _check_shape(what: str, shape: Shape, expected: Shape, batch: int) -> None:
    """Refuse a shape of another rank, or with another size where both have one; the batch is a size."""
    sizes = [batch if size == BATCH else size for size in expected]
    both = [pair for pair in zip(shape, sizes, strict=False) if all(isinstance(size, int) for size in pair)]
    if len(shape) != len(expected) or any(own != size for own, size in both):
        at_batch = f" at batch={batch}" if BATCH in expected else ""
        raise ModelError(
            f"{what} is {render_shape(shape)}, that of the network {render_shape(expected)}{at_batch}; {_ADVICE}"
        )


def _check_outputs(path: str, outputs: tuple[OutputSpec, ...], model: ModelRef, batch: int) -> None:
    _check_names(path, "output", [spec.name for spec in outputs], signature(model).outputs)
    if model.path is None:  # a network that is built here declares the names of its outputs alone
        return
    expected = {spec.name: spec for spec in onnx_file.outputs(Path(model.path))}
    for spec in outputs:
        what, other = f"precision.path={path}: output {spec.name!r}", expected[spec.name]
        if spec.is_float != other.is_float:
            kinds = [f"of {'floats' if is_float else 'no floats'}" for is_float in (spec.is_float, other.is_float)]
            raise ModelError(f"{what} is {kinds[0]}, that of the network {kinds[1]}; {_ADVICE}")
        if spec.shape is not None and other.shape is not None:
            _check_shape(what, spec.shape, other.shape, batch)
