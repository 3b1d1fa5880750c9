"""Read a user's ONNX file: its signature, its size and its digest.

The weights in external files are hashed and measured, never loaded. What was read is kept for as
long as the file stays as it is, since a plan asks for the same file once per variant.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import stat
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from sweep.errors import ModelError, shorten
from sweep.models import external_data
from sweep.models.input_shapes import UNKNOWN_RANK, UNNAMED, fixes_by_samples, reopened, settle
from sweep.models.normal_form import fixes_sizes, is_irregular
from sweep.models.signatures import OutputSpec, Signature, TensorSpec
from sweep.system import element_type, nested_graphs, regular_files

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import onnx

    from sweep.spec import InputFix, ModelRef

_DTYPES = {"FLOAT": "float32", "DOUBLE": "float64", "FLOAT16": "float16", "BOOL": "bool"} | {
    f"{sign}INT{bits}": f"{sign}int{bits}".lower() for sign in ("", "U") for bits in (8, 16, 32, 64)
}
_FLOATS = ("FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16")
_NO_WEIGHTS = ("INT64", "BOOL", "STRING")  # shapes, indices and flags
_LFS_POINTER = b"version https://git-lfs"
_MOST_BYTES = (1 << 31) - 1  # of a protobuf message
_SETTLED_NS = 2_000_000_000
_FRESH = itertools.count(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """Hold an ONNX file without its weights.

    Attributes:
        inputs: as in the file: symbolic dimensions by name, unnamed ones as ``?``.
        outputs: the graph outputs.
        external: the external files that hold its weights.
        parameters: number of weights.
        opset: version of the standard operators; None where the file names none.
        feeds_weights: it lists weights among its inputs, as files before IR 4 had to.
        ir_version: version of the file format.
        irregular: libraries read it in different ways (``normal_form.is_irregular``).
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[OutputSpec, ...]
    external: tuple[external_data.ExternalFile, ...]
    parameters: int
    opset: int | None
    feeds_weights: bool
    ir_version: int
    irregular: bool


def inspect(path: Path, ref: ModelRef) -> Signature:
    """Read inputs and outputs of a user's file, with the batch axis detected and the user's fixes applied.

    Args:
        path: the ONNX file.
        ref: what the user says of it: ``inputs``, ``batch_dim`` and the name that errors call it by.

    Raises:
        ModelError: the file or its external data cannot be read, or an input's shape or range is
            not settled by the file and the fixes together.
    """
    header = _header(path)
    external_data.check(path, header.external)
    return Signature(inputs=settle(header.inputs, ref), outputs=tuple(spec.name for spec in header.outputs))


def declared_inputs(path: Path) -> tuple[TensorSpec, ...]:
    """Return the inputs as the file declares them: symbolic dimensions by name, unnamed ones as ``?``.

    Raises:
        ModelError: the file cannot be read.
    """
    return _header(path).inputs


def settle_by_samples(path: Path, ref: ModelRef, shapes: Mapping[str, tuple[int, ...]]) -> tuple[InputFix, ...]:
    """Return what is fixed about the inputs of a user's file, with the sizes that arrays for it settle.

    Args:
        path: the ONNX file.
        ref: what the user fixed.
        shapes: of an array per input.

    Raises:
        ModelError: the file cannot be read.
    """
    return fixes_by_samples(_header(path).inputs, ref, shapes)


def file_digest(path: Path) -> str:
    """Compute the SHA-256, in hex, of the file and its external data.

    Without external data this is what ``sha256sum`` prints; with it, the sha256 of one line for the
    file and one per external file, by name. Files are streamed.

    Raises:
        ModelError: the file or its external data cannot be read.
    """
    files = _header(path).external
    external_data.check(path, files)
    own = _sha256(path, _stamp(path))
    if not files:
        return own
    parts = [(item.location, path.parent / item.location) for item in files]
    lines = [own, *(f"{_sha256(data, _stamp(data))}  {location}" for location, data in parts)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def dynamic_inputs(path: Path) -> frozenset[str]:
    """List the inputs that have a symbolic dimension in the file.

    Raises:
        ModelError: the file cannot be read.
    """
    return frozenset(spec.name for spec in _header(path).inputs if any(isinstance(size, str) for size in spec.shape))


def inputs(path: Path) -> tuple[TensorSpec, ...]:
    """Return the graph inputs that are fed as the file declares them: symbolic dimensions by name.

    Raises:
        ModelError: the file cannot be read.
    """
    return _header(path).inputs


def outputs(path: Path) -> tuple[OutputSpec, ...]:
    """Return the graph outputs with their shapes, as far as the file gives them.

    Raises:
        ModelError: the file cannot be read.
    """
    return _header(path).outputs


def parameters(path: Path) -> int:
    """Count the weights in the file, subgraphs and Constant nodes included.

    Scalars and int64 are left out: they are factors, shapes and indices.

    Raises:
        ModelError: the file cannot be read.
    """
    return _header(path).parameters


def opset(path: Path) -> int | None:
    """Return the version of the standard operators that the file uses, or None if it names none.

    Raises:
        ModelError: the file cannot be read.
    """
    return _header(path).opset


def ir_version(path: Path) -> int:
    """Return the version of the file format that the file is written in.

    Raises:
        ModelError: the file cannot be read.
    """
    return _header(path).ir_version


def feeds_weights(path: Path) -> bool:
    """Tell whether the file lists weights among its inputs: a caller could replace them, so nothing may be folded.

    Raises:
        ModelError: the file cannot be read.
    """
    return _header(path).feeds_weights


def needs_normal_form(path: Path, ref: ModelRef) -> bool:
    """Tell whether the file has to be written in another form for all libraries to read it alike.

    Args:
        path: the ONNX file.
        ref: what the user says of its inputs.

    Raises:
        ModelError: as ``inspect``.
    """
    header = _header(path)
    settled = reopened(header.inputs, settle(header.inputs, ref), ref.open_dimensions or ())
    return header.irregular or fixes_sizes(header.inputs, settled)


def _header(path: Path) -> Header:
    return _read_header(path, _stamp(path))


def _stamp(path: Path) -> tuple[int, ...]:
    """Return what changes when the file does. A file younger than two seconds gets a new stamp each time.

    Two writes within one tick of the clock leave the same times.
    """
    try:
        stat = path.stat()
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}; give model.path the path of an ONNX file") from error
    changed = max(stat.st_mtime_ns, stat.st_ctime_ns)
    settled = time.time_ns() - changed > _SETTLED_NS
    return (stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, 0 if settled else next(_FRESH))


@lru_cache(maxsize=64)
def _sha256(path: Path, _: tuple[int, ...]) -> str:
    with regular_files.open_input(path, follow=True) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache(maxsize=64)
def _read_header(path: Path, _: tuple[int, ...]) -> Header:
    model = _load(path)
    graph = model.graph
    if not all(isinstance(text, str) for text in _texts(model)):  # protobuf gives bytes where it is no UTF-8
        raise ModelError(f"{path} holds a name that is no UTF-8; download or export it again")
    if not graph.output:
        raise ModelError(f"{path} has no graph outputs; is it an ONNX model, and was it exported whole?")
    weights = {tensor.name for tensor in graph.initializer}
    weights |= {tensor.values.name for tensor in graph.sparse_initializer}
    inputs = tuple(_input(path, value) for value in graph.input if value.name not in weights)
    if not inputs:
        raise ModelError(f"{path} has no inputs besides its weights, so there is nothing to feed it; export it again")
    tensors = list(external_data.tensors(model))
    for tensor in tensors:
        _type_name(path, f"weight {tensor.name!r}", tensor.data_type)
    return Header(
        inputs=inputs,
        outputs=tuple(_output(value) for value in graph.output),
        external=external_data.files(path, tensors),
        parameters=sum(math.prod(tensor.dims) for tensor in tensors if _is_weight(tensor)),
        opset=next((item.version for item in model.opset_import if item.domain in {"", "ai.onnx"}), None),
        feeds_weights=len(inputs) < len(graph.input),
        ir_version=model.ir_version,
        irregular=is_irregular(model),
    )


def _load(path: Path) -> onnx.ModelProto:
    import onnx
    from google.protobuf.message import DecodeError

    _check_kind(path)
    try:
        with regular_files.open_input(path, follow=True) as file:
            start = file.read(len(_LFS_POINTER))
            if not start:
                raise ModelError(f"{path} is empty (0 bytes); download or export it again")
            if start == _LFS_POINTER:
                raise ModelError(f"{path} is a Git LFS pointer, not the model itself; run `git lfs pull`")
            file.seek(0)
            return onnx.load(file, format="protobuf", load_external_data=False)
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}; give model.path a readable ONNX file") from error
    except DecodeError as error:
        raise ModelError(f"{path} is no ONNX model (broken protobuf); download or export it again") from error


def _texts(model: onnx.ModelProto) -> Iterator[str | bytes]:
    """Yield the names in a model: of nodes and what they connect, of inputs, outputs, sizes, weights, their files."""
    for graph in nested_graphs(model.graph):
        for node in graph.node:
            yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        for value in (*graph.input, *graph.output):
            yield value.name
            yield from (dim.dim_param for dim in value.type.tensor_type.shape.dim)
    for tensor in external_data.tensors(model):
        yield tensor.name
        for item in tensor.external_data:
            yield from (item.key, item.value)
    for operators in model.opset_import:
        yield operators.domain


def _check_kind(path: Path) -> None:
    """Refuse what cannot be read to its end, before it is opened: a pipe would wait for ever."""
    if path.is_dir():
        raise ModelError(f"{path} is a folder; give model.path the ONNX file in it")
    stats = path.stat()
    if not stat.S_ISREG(stats.st_mode):
        raise ModelError(f"{path} is a pipe, socket or device, not a file; give model.path an ONNX file")
    if stats.st_size > _MOST_BYTES:
        raise ModelError(
            f"{path} has {stats.st_size} bytes and an ONNX file at most {_MOST_BYTES}; save it with external data"
        )


def _is_weight(tensor: onnx.TensorProto) -> bool:
    return bool(tensor.dims) and element_type(tensor.data_type) not in _NO_WEIGHTS


def _type_name(path: Path, owner: str, number: int) -> str:
    """Return ONNX's name of an element type; refuse a number that the installed onnx does not know."""
    name = element_type(number)
    if name is None:
        raise ModelError(
            f"{path}: {shorten(owner, 100)} is of element type {number}, which the installed onnx does not know; "
            "export the model again, or update onnx"
        )
    return name


def _input(path: Path, value: onnx.ValueInfoProto) -> TensorSpec:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        raise ModelError(f"{path}: input {value.name!r} is a {kind or 'value of no type'}; only tensors can be fed")
    tensor = value.type.tensor_type
    dtype = _type_name(path, f"input {value.name!r}", tensor.elem_type)
    if dtype not in _DTYPES:
        dtypes = ", ".join(_DTYPES.values())
        raise ModelError(f"{path}: input {value.name!r} is of type {dtype}; export it with one of {dtypes}")
    shape = tuple(_dimension(dim) for dim in tensor.shape.dim) if tensor.HasField("shape") else UNKNOWN_RANK
    return TensorSpec(name=value.name, dtype=_DTYPES[dtype], shape=shape)


def _output(value: onnx.ValueInfoProto) -> OutputSpec:
    from onnx import TensorProto

    tensor = value.type.tensor_type
    has_shape = value.type.WhichOneof("value") == "tensor_type" and tensor.HasField("shape")
    return OutputSpec(
        name=value.name,
        is_float=tensor.elem_type in {TensorProto.DataType.Value(name) for name in _FLOATS},
        shape=tuple(_dimension(dim) for dim in tensor.shape.dim) if has_shape else None,
    )


def _dimension(dim: onnx.TensorShapeProto.Dimension) -> int | str:
    if dim.HasField("dim_value") and dim.dim_value > 0:  # exporters write -1 and 0 for "any"
        return int(dim.dim_value)
    return dim.dim_param or UNNAMED
