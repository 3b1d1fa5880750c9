"""Settle the shapes of the inputs: which axis is the batch, what the user fixed, what is still open."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from sweep.errors import ModelError
from sweep.models.signatures import BATCH, Signature, TensorSpec, render_shape
from sweep.models.value_ranges import check_range

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sweep.spec import InputFix, ModelRef

UNNAMED = "?"
"""A dynamic dimension without a name."""
UNKNOWN_RANK = ("...",)
"""Shape of an input whose file does not even say how many dimensions it has."""

_EXAMPLE_SIZE = 128
_BATCH_NAMES = (
    re.compile(r"\w*batch\w*|bs", re.IGNORECASE),
    re.compile(r"b", re.IGNORECASE),
    re.compile(r"n", re.IGNORECASE),
)
_NOT_BATCH = re.compile(r"seq|len|time|height|width|chan", re.IGNORECASE)
_PLAIN_KEY = re.compile(r"[A-Za-z_][\w-]*")

Bindings = dict[str, int | str]


def settle(specs: tuple[TensorSpec, ...], ref: ModelRef) -> tuple[TensorSpec, ...]:
    """Return the inputs with every dimension an int or the word ``batch``, in the order given.

    A symbol that the user fixed in one input has that value in the others. The batch is, of the
    symbols left: ``ref.batch_dim``; else what is called batch, bs, b or n; else what stands first.

    Args:
        specs: inputs as their file declares them; other words than ``batch`` are symbolic sizes.
        ref: what the user says of the inputs, and the model's name for errors.

    Raises:
        ModelError: a fix names no input or contradicts the file, or a dimension stays open.
    """
    fixes = _fixes_by_name(specs, ref)
    bindings: Bindings = {}
    for spec in specs:
        fix = fixes.get(spec.name)
        if fix is not None and fix.shape is not None:
            _bind(spec, fix.shape, bindings, ref.name)
    unfixed = [spec for spec in specs if spec.name not in fixes or fixes[spec.name].shape is None]
    for symbol in _batch_symbols(specs, unfixed, bindings, ref):
        bindings.setdefault(symbol, BATCH)
    settled = tuple(_apply(spec, fixes.get(spec.name), bindings) for spec in specs)
    _refuse_open(settled, ref.name)
    for spec in settled:
        check_range(spec, ref.name)
    return settled


def check_batch(signature: Signature, batch: int, name: str) -> None:
    """Make sure that the network can take ``batch`` samples at once; 1 it always can.

    A network without a batch axis still takes the batch that all its inputs (scalars aside) are
    exported with as first dimension.

    Args:
        signature: the network's inputs.
        batch: samples per inference.
        name: the model's name, for the error.

    Raises:
        ModelError: it cannot.
    """
    if batch == 1 or any(spec.batch_axis is not None for spec in signature.inputs):
        return
    shaped = [spec for spec in signature.inputs if spec.shape]
    if shaped and all(spec.shape[0] == batch for spec in shaped):
        return
    found = f"input {shaped[0].name!r} is {render_shape(shaped[0].shape)}" if shaped else "all inputs are scalars"
    raise ModelError(
        f"model {name!r} has no batch axis ({found}) and was asked for batch {batch}; "
        "ask for batch=1 or export with a dynamic first dimension"
    )


def _fixes_by_name(specs: Iterable[TensorSpec], ref: ModelRef) -> dict[str, InputFix]:
    names = [spec.name for spec in specs]
    for fix in ref.inputs:
        if fix.name not in names:
            raise ModelError(
                f"model.inputs names {fix.name!r}, but model {ref.name!r} has {', '.join(names)}; correct the name"
            )
    return {fix.name: fix for fix in ref.inputs}


def _bind(spec: TensorSpec, shape: tuple[int | str, ...], bindings: Bindings, model: str) -> None:
    """Check the fixed shape against the file's and note what it says of the file's symbols."""
    request = f"model.inputs.{spec.name}.shape={render_shape(shape)}"
    declaration = f"model {model!r} declares it {render_shape(spec.shape)}"
    for size in shape:
        if size != BATCH and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
            raise ModelError(f"{request}: {size!r} is no size; give a whole number above 0, or the word batch")
    if spec.shape == UNKNOWN_RANK:
        return
    if len(shape) != len(spec.shape):
        raise ModelError(f"{request} has {len(shape)} dimensions, but {declaration}; give {len(spec.shape)}")
    for axis, (declared, size) in enumerate(zip(spec.shape, shape, strict=True)):
        if isinstance(declared, int) and declared != size:
            raise ModelError(f"{request} wants {size} at axis {axis}, but {declaration}; keep {declared} there")
        if isinstance(declared, str) and declared != UNNAMED and bindings.setdefault(declared, size) != size:
            raise ModelError(
                f"{request} makes {declared!r} {size}, but another place in model.inputs makes it "
                f"{bindings[declared]}; give both the same"
            )


def _batch_symbols(
    specs: tuple[TensorSpec, ...], unfixed: list[TensorSpec], bindings: Bindings, ref: ModelRef
) -> set[str]:
    """Return the symbolic dimensions that are the batch, by the first rule that names any."""
    if ref.batch_dim is not None:
        symbols = _symbols(specs)
        if ref.batch_dim not in symbols:
            have = ", ".join(sorted(symbols)) or "none"
            raise ModelError(
                f"model.batch_dim={ref.batch_dim}: model {ref.name!r} has no such symbolic dimension "
                f"(it has: {have}); name one of these, or leave it out"
            )
        return {ref.batch_dim}
    open_symbols = _symbols(unfixed) - bindings.keys()
    for pattern in _BATCH_NAMES:
        matches = {symbol for symbol in open_symbols if pattern.fullmatch(symbol)}
        if matches:
            return matches
    return _first_symbols(unfixed, bindings, ref.name)


def _first_symbols(unfixed: list[TensorSpec], bindings: Bindings, model: str) -> set[str]:
    first = {spec.shape[0] for spec in unfixed if spec.shape and spec.shape != UNKNOWN_RANK}
    symbols = {size for size in first if isinstance(size, str) and size not in bindings and not _NOT_BATCH.search(size)}
    names = sorted(symbols - {UNNAMED})
    if len(names) > 1:
        raise ModelError(
            f"model {model!r} has several symbolic first dimensions ({', '.join(names)}); "
            f"say which is the batch: +model.batch_dim={names[0]}"
        )
    return symbols


def _symbols(specs: Iterable[TensorSpec]) -> set[str]:
    sizes = {size for spec in specs if spec.shape != UNKNOWN_RANK for size in spec.shape}
    return {size for size in sizes if isinstance(size, str) and size != UNNAMED}


def _apply(spec: TensorSpec, fix: InputFix | None, bindings: Bindings) -> TensorSpec:
    """Return the spec with its fix and the bindings; what neither settles is left symbolic, and never ``batch``."""
    shape = tuple(_size(size, axis, bindings) for axis, size in enumerate(spec.shape))
    if fix is None:
        return replace(spec, shape=shape)
    return replace(
        spec,
        shape=shape if fix.shape is None else fix.shape,
        low=spec.low if fix.low is None else fix.low,
        high=spec.high if fix.high is None else fix.high,
    )


def _size(size: int | str, axis: int, bindings: Bindings) -> int | str:
    if isinstance(size, int):
        return size
    if size == UNNAMED:  # each its own: only a first one can be the batch
        return bindings.get(UNNAMED, UNNAMED) if axis == 0 else UNNAMED
    return bindings.get(size, UNNAMED if size == BATCH else size)


def _refuse_open(specs: tuple[TensorSpec, ...], model: str) -> None:
    """Raise when a dimension is neither an int nor the batch, with the overrides to type."""
    overrides, inputs, reported = [], [], set[str]()
    for spec in specs:
        open_sizes = {size for size in spec.shape if isinstance(size, str) and size != BATCH}
        if open_sizes - reported:
            reported |= open_sizes - {UNNAMED, *UNKNOWN_RANK}
            inputs.append(f"input {spec.name!r} is {render_shape(spec.shape)}")
            overrides.append(override(spec.name, "shape", render_shape(_example(spec))))
    if overrides:
        raise ModelError(
            f"model {model!r} leaves sizes open: {', '.join(inputs)}; "
            f"fix them, with the word batch at the batch axis, for example {' '.join(overrides)}"
        )


def _example(spec: TensorSpec) -> tuple[int | str, ...]:
    """Return a shape that would do: the first open dimension is the batch if there is none yet."""
    if spec.shape == UNKNOWN_RANK:
        return (BATCH, _EXAMPLE_SIZE)
    shape: list[int | str] = []
    for size in spec.shape:
        is_batch = size == BATCH or (
            isinstance(size, str) and BATCH not in spec.shape and BATCH not in shape and not _NOT_BATCH.search(size)
        )
        shape.append(BATCH if is_batch else size if isinstance(size, int) else _EXAMPLE_SIZE)
    return tuple(shape)


def override(name: str, field: str, value: str) -> str:
    """Spell the words that fix a field of an input; quoted for the shell where the name needs Hydra's dict form."""
    if _PLAIN_KEY.fullmatch(name):
        return f"+model.inputs.{name}.{field}={value}"
    key = re.sub(r"([\\,:=(){}\[\]])", r"\\\1", name)
    return f"'+model.inputs={{{key}:{{{field}:{value}}}}}'"
