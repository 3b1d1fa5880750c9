"""Find the external data of an ONNX file: weights that it keeps in other files of its folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from sweep.errors import ModelError, shorten
from sweep.system import subgraphs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    import onnx


_MOST_DIGITS = 18  # of an offset or a length, bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalFile:
    """Describe a file with weights.

    Attributes:
        location: its path, relative to the model's folder.
        least_bytes: how long it is at the least, for all weights to be in it.
    """

    location: str
    least_bytes: int


def tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """List every stored tensor: initializers and attributes, of the graph, its subgraphs and the functions."""
    yield from _graph_tensors(model.graph)
    for training in model.training_info:
        yield from _graph_tensors(training.initialization)
        yield from _graph_tensors(training.algorithm)
    for function in model.functions:
        yield from _node_tensors(function.node)


def files(path: Path, stored: Iterable[onnx.TensorProto]) -> tuple[ExternalFile, ...]:
    """Return the external files of those tensors, by location.

    Raises:
        ModelError: a location is missing, or leads out of the model's folder.
    """
    from onnx import TensorProto

    least: dict[str, int] = {}
    for tensor in stored:
        if tensor.data_location == TensorProto.EXTERNAL:
            entries = {item.key: item.value for item in tensor.external_data}
            location = _safe_location(path, tensor.name, entries.get("location", ""))
            end = sum(_number(path, tensor.name, entries.get(name)) for name in ("offset", "length"))
            least[location] = max(least.get(location, 0), end)
    return tuple(ExternalFile(location=location, least_bytes=least[location]) for location in sorted(least))


def check(path: Path, expected: Iterable[ExternalFile]) -> None:
    """Make sure that the files are there, whole, and inside the model's folder.

    Raises:
        ModelError: one is not.
    """
    folder = path.parent.resolve()
    for item in expected:
        data = path.parent / item.location
        target = _target(data)
        if target is None or not target.is_relative_to(folder):
            raise ModelError(
                f"{path} keeps weights in {shorten(repr(item.location), 200)}, a link out of its folder to "
                f"{target or 'itself'}; put a copy of the file there"
            )
        if not _is_file(data):
            raise ModelError(
                f"{path} keeps weights in {shorten(repr(item.location), 200)}, which is not in {folder}; put it there"
            )
        if data.samefile(path):
            raise ModelError(f"{path} names itself as the file of its weights; save the model again")
        size = data.stat().st_size
        if size < item.least_bytes:
            raise ModelError(
                f"{path} needs {item.least_bytes} bytes of {item.location!r}, which has {size}; download it again"
            )


def _target(data: Path) -> Path | None:
    """Return where a path leads; None for a link that leads to itself."""
    try:
        return data.resolve()
    except (OSError, RuntimeError):
        return None


def _is_file(data: Path) -> bool:
    """Return whether a path is that of a file; a name that is too long for the file system is that of none."""
    try:
        return data.is_file()
    except OSError:
        return False


def _safe_location(path: Path, tensor: str, location: str) -> str:
    """Return the location; refuse it unless it is a relative path that stays below the model's folder."""
    if not location:
        raise ModelError(f"{path}: weight {tensor!r} is external but names no file; export the model again")
    parts = PurePosixPath(location.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or not location.isprintable():
        raise ModelError(
            f"{path}: weight {tensor!r} is in {location!r}, outside the model's folder; "
            "save the model again with its data beside it"
        )
    return location


def _number(path: Path, tensor: str, text: str | None) -> int:
    """Return a byte count as the file has it, 0 where it has none."""
    if text and not (text.isdecimal() and len(text) <= _MOST_DIGITS):
        raise ModelError(f"{path}: weight {tensor!r} is at {shorten(text, 60)!r} of its file; export the model again")
    return int(text) if text else 0


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
        for graph in subgraphs(node):
            yield from _graph_tensors(graph)
