"""Resolve the reference to a model: its signature for the plan, its file for the build."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.errors import ModelError
from sweep.models import onnx_file
from sweep.models.input_shapes import dimensions as open_dimensions
from sweep.models.input_shapes import no_dimension, reopened, settle
from sweep.models.random_inputs import draw
from sweep.models.signatures import Signature
from sweep.models.zoo import catalog
from sweep.spec import shape_text
from sweep.system import save_onnx

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sweep.models.datasets.labelled_arrays import DataSet, Labelled
    from sweep.models.signatures import TensorSpec
    from sweep.spec import ModelRef

    Feeds = dict[str, NDArray[Any]]

_SINGLE_FILE_BYTES = 1_500_000_000  # of weights: a protobuf ends at 2 GiB, and larger ones lie beside it
_CALIBRATION_SEED = 1_000_000  # set apart, so that what is timed was not looked at


def signature(ref: ModelRef) -> Signature:
    """Return inputs and outputs of the network, without building or loading its weights.

    Raises:
        ConfigError: the zoo has no network of that name.
        ModelError: the user's file cannot be read, or what is said of the inputs does not fit.
    """
    if ref.path is not None:
        return onnx_file.inspect(Path(ref.path), ref)
    entry = _zoo_entry(ref)
    return Signature(inputs=_zoo_inputs(entry, ref), outputs=entry.outputs)


def feeds(ref: ModelRef, batch: int, seed: int) -> Feeds:
    """Return the inputs that are timed: held-out samples where the network has data, else drawn (``draw``)."""
    samples = held_out(ref)
    return draw(signature(ref), batch, seed) if samples is None else samples.draw(batch, seed)


def has_data(ref: ModelRef) -> bool:
    """Tell whether the network brings labelled samples of its own."""
    return _data(ref) is not None


def held_out(ref: ModelRef) -> Labelled | None:
    """Return the labelled samples that the network is scored on, or None if it has no labels."""
    data = _data(ref)
    return None if data is None else data.held_out()


def calibration(ref: ModelRef, batch: int, count: int) -> list[Feeds]:
    """Return the samples that activation ranges come from: training data where there is some, else drawn at random.

    Args:
        ref: the network.
        batch: samples in a batch, at most; one where the network has no batch axis. A user's file gets them all.
        count: batches.

    Returns:
        Inputs of each batch; none of them is ever timed or scored.
    """
    data, network = _data(ref), signature(ref)
    if data is not None:
        training = data.training()
        return [training.draw(batch, _CALIBRATION_SEED + number) for number in range(count)]
    most = None if ref.path is not None else catalog.entry(ref.name).calibrate_by
    batched = any(spec.batch_axis is not None for spec in network.inputs)
    size = min(batch, most or batch) if batched else 1
    return [draw(network, size, _CALIBRATION_SEED + number) for number in range(count)]


def _data(ref: ModelRef) -> DataSet | None:
    return None if ref.path is not None or ref.inputs or ref.shape else catalog.entry(ref.name).data


def resolve(ref: ModelRef, target: Path) -> Path:
    """Return the float32 ONNX file of the network.

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
    entry = _zoo_entry(ref)
    model = entry.build(*graph_inputs(ref)) if ref.shape else entry.build()
    target.parent.mkdir(parents=True, exist_ok=True)
    large = sum(len(tensor.raw_data) for tensor in model.graph.initializer) > _SINGLE_FILE_BYTES
    save_onnx(model, target, f"{target.name}.data" if large else None)
    return target


def _zoo_entry(ref: ModelRef) -> catalog.ZooEntry:
    entry = catalog.entry(ref.name)
    if ref.revision not in (None, entry.revision):
        raise ModelError(
            f"model {ref.name!r} was asked for in revision {ref.revision}, but this version of sweep builds "
            f"revision {entry.revision}; plan the sweep again"
        )
    return entry


def dimensions(ref: ModelRef) -> tuple[str, ...]:
    """Return the names of the dimensions that ``shape=`` can set, in the order of the inputs.

    Raises:
        ConfigError: the zoo has no network of that name.
        ModelError: the user's file cannot be read.
    """
    if ref.path is None:
        return tuple(item.name for item in _zoo_entry(ref).dimensions)
    return open_dimensions(onnx_file.declared_inputs(Path(ref.path)), ref)


def graph_inputs(ref: ModelRef) -> tuple[TensorSpec, ...]:
    """Return the inputs as the graph has them: those of ``signature``, with ``ref.open_dimensions`` by their names.

    Raises:
        ConfigError: the zoo has no network of that name.
        ModelError: as ``signature``, or a dimension cannot be left open.
    """
    inputs = signature(ref).inputs
    if not ref.open_dimensions:
        return inputs
    if ref.path is not None:
        return reopened(onnx_file.declared_inputs(Path(ref.path)), inputs, ref.open_dimensions)
    entry = _zoo_entry(ref)
    fixed = [item.name for item in entry.dimensions if item.name in ref.open_dimensions and not item.open]
    if fixed:
        raise ModelError(
            f"weights of model {ref.name!r} depend on {fixed[0]}, so no engine takes several sizes of it; "
            "profiles=per_engine builds one for each"
        )
    return reopened(entry.inputs_at({name: name for name in ref.open_dimensions}), inputs, ref.open_dimensions)


def _zoo_inputs(entry: catalog.ZooEntry, ref: ModelRef) -> tuple[TensorSpec, ...]:
    """Return the inputs of a network of the zoo at the sizes of ``ref.shape``.

    Raises:
        ModelError: it has no such dimension, or does not take the size.
    """
    known = {item.name: item for item in entry.dimensions}
    for item in ref.shape or ():
        if item.name not in known:
            raise no_dimension(ref, item.name, known)
        sizes = known[item.name].refusal(item.size)
        if sizes is not None:
            raise ModelError(f"shape={shape_text(ref.shape)}: {item.name} of model {ref.name!r} takes {sizes}")
    return settle(entry.inputs_at({item.name: item.size for item in ref.shape or ()}), replace(ref, shape=None))


def _unchanged(path: Path, ref: ModelRef) -> Path:
    digest = onnx_file.file_digest(path)
    if ref.digest not in (None, digest):
        raise ModelError(
            f"{path} has changed since it was planned (sha256 {digest[:12]}, planned {str(ref.digest)[:12]}); "
            "start the sweep again"
        )
    return path
