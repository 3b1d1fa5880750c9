"""From a reference to a model: its signature for the plan, its file for the build."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sweep.errors import ModelError
from sweep.models import source, zoo
from sweep.models.shapes import settle
from sweep.models.spec import Signature

if TYPE_CHECKING:
    from sweep.axes import ModelRef


def signature(ref: ModelRef) -> Signature:
    """Inputs and outputs of the network, without building or loading its weights.

    Raises:
        ConfigError: the zoo has no network of that name.
        ModelError: the user's file cannot be read, or what is said of the inputs does not fit.
    """
    if ref.path is not None:
        return source.inspect(Path(ref.path), ref)
    entry = _zoo_entry(ref)
    return Signature(inputs=settle(entry.inputs, ref), outputs=entry.outputs)


def resolve(ref: ModelRef, target: Path) -> Path:
    """The float32 ONNX file of the network.

    Args:
        ref: the network.
        target: where a zoo network is written, its folder included; a user's file stays where it is.

    Returns:
        ``target``, or the path of the user's file.

    Raises:
        ConfigError: the zoo has no network of that name.
        ModelError: the user's file cannot be read, or is no longer the one whose digest ``ref`` has;
            or ``ref`` has another revision than the zoo.
    """
    if ref.path is not None:
        return _unchanged(Path(ref.path), ref)
    import onnx

    model = _zoo_entry(ref).build()
    target.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, target, format="protobuf")
    return target


def _zoo_entry(ref: ModelRef) -> zoo.ZooEntry:
    entry = zoo.entry(ref.name)
    if ref.revision not in (None, entry.revision):
        raise ModelError(
            f"model {ref.name!r} was asked for in revision {ref.revision}, but this version of sweep builds "
            f"revision {entry.revision}; plan the sweep again"
        )
    return entry


def _unchanged(path: Path, ref: ModelRef) -> Path:
    found = source.file_digest(path)
    if ref.digest not in (None, found):
        raise ModelError(
            f"{path} has changed since it was planned (sha256 {found[:12]}, planned {str(ref.digest)[:12]}); "
            "start the sweep again"
        )
    return path
