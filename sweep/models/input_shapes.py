"""Settle the shapes of the inputs: which axis is the batch, what the user fixed, what is still open."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from typing import TYPE_CHECKING

from sweep.errors import ModelError
from sweep.models.signatures import BATCH, Signature, TensorSpec, render_shape
from sweep.models.value_ranges import check_range
from sweep.spec import is_plain_key, quote, shape_text, table_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sweep.spec import InputFix, ModelRef

UNNAMED = "?"
"""A dynamic dimension without a name."""
UNKNOWN_RANK = ("...",)
"""Shape of an input whose file does not even say how many dimensions it has."""

SAMPLES_ADVICE = "model.samples=inputs.npz, with an array per input"
"""Name the way to bring real inputs, in the words of messages."""

_EXAMPLE_SIZE = 128
_BATCH_NAMES = (
    re.compile(r"\w*batch\w*|bs", re.IGNORECASE),
    re.compile(r"b", re.IGNORECASE),
    re.compile(r"n", re.IGNORECASE),
)
_NOT_BATCH = re.compile(r"seq|len|time|height|width|chan", re.IGNORECASE)
_BARE_WORD = re.compile(r"[\w.+=,\[\]-]+", re.ASCII)

Bindings = dict[str, set[int | str]]
Fixes = dict[str, "InputFix"]


def settle(specs: tuple[TensorSpec, ...], ref: ModelRef) -> tuple[TensorSpec, ...]:
    """Return the inputs with every dimension an int or the word ``batch``, in the order given.

    A symbol that the user fixed in one input has that value in the inputs that they did not fix, unless they gave it
    several: exporters call unrelated dimensions alike (``?``, ``unk__10``). The batch is, of the symbols left:
    ``ref.batch_dim``; else what is called batch, bs, b or n; else what stands first. In an input that has its symbol
    twice, the first is the batch.

    Args:
        specs: inputs as their file declares them; other words than ``batch`` are symbolic sizes.
        ref: what the user says of the inputs, and the model's name for errors.

    Raises:
        ModelError: a fix names no input or contradicts the file, or a dimension stays open; the message has every
            override that is missing.
    """
    specs = set_dimensions(specs, ref)
    fixes = _fixes_by_name(specs, ref)
    for spec in specs:
        fix = fixes.get(spec.name)
        if fix is not None and fix.shape is not None:
            _check_fix(spec, fix.shape, ref.name)
    _check_batch_dim(specs, ref)
    rivals = [] if ref.batch_dim is not None else _batch_symbols(specs, fixes, None)[1]
    if rivals:
        words = [f"+model.batch_dim={quote(rivals[0])}", *_advice(specs, fixes, rivals[0])[1]]
        raise ModelError(
            f"model {ref.name!r} has several symbolic first dimensions ({', '.join(rivals)}); "
            f"say which is the batch: {' '.join(map(_shell_word, words))}"
        )
    settled = _settle(specs, fixes, ref.batch_dim)
    if any(_is_open(spec) for spec in settled):
        inputs, words = _advice(specs, fixes, ref.batch_dim)
        raise ModelError(
            f"model {ref.name!r} leaves sizes open: {', '.join(inputs)}; "
            f"fix them, with the word batch at the batch axis, for example {' '.join(map(_shell_word, words))}"
        )
    for spec in settled:
        check_range(spec, ref.name)
    return settled


def set_dimensions(specs: tuple[TensorSpec, ...], ref: ModelRef) -> tuple[TensorSpec, ...]:
    """Return the inputs with the dimensions that ``shape=`` names at its sizes.

    Args:
        specs: inputs as their file declares them.
        ref: its ``shape``, and the model's name for errors.

    Raises:
        ModelError: the file has no dimension of that name.
    """
    if not ref.shape:
        return specs
    sizes = {item.name: item.size for item in ref.shape}
    symbols = _symbols(specs)
    batch = _batch_symbols(specs, _fixes_by_name(specs, ref), ref.batch_dim)[0]
    for item in ref.shape:
        if item.name in batch:
            raise ModelError(f"shape={shape_text(ref.shape)}: {item.name} is the batch; batch={item.size} sets it")
        if item.name not in symbols:
            raise no_dimension(ref, item.name, symbols - batch)
    return tuple(
        spec
        if spec.shape == UNKNOWN_RANK
        else replace(spec, shape=tuple(sizes.get(size, size) if isinstance(size, str) else size for size in spec.shape))
        for spec in specs
    )


def reopened(
    declared: Iterable[TensorSpec], settled: Iterable[TensorSpec], names: Iterable[str]
) -> tuple[TensorSpec, ...]:
    """Return settled inputs with the dimensions of those names open again.

    Args:
        declared: the inputs with symbolic sizes, in the same order.
        settled: the inputs with every size known.
        names: of dimensions.
    """
    kept_open = frozenset(names)
    return tuple(
        replace(
            spec,
            shape=tuple(
                own if isinstance(own, str) and own in kept_open else size
                for own, size in zip(before.shape, spec.shape, strict=True)
            )
            if len(before.shape) == len(spec.shape)
            else spec.shape,
        )
        for before, spec in zip(declared, settled, strict=True)
    )


def dimensions(specs: tuple[TensorSpec, ...], ref: ModelRef) -> tuple[str, ...]:
    """Return the names of the dimensions that ``shape=`` can set, in the order of the inputs.

    Args:
        specs: inputs as their file declares them.
        ref: what the user says of the inputs; its ``shape`` is ignored.
    """
    fixes = _fixes_by_name(specs, ref)
    taken = _batch_symbols(specs, fixes, ref.batch_dim)[0] | _bindings(specs, fixes).keys() | {UNNAMED, BATCH}
    sizes = (size for spec in specs if spec.shape != UNKNOWN_RANK for size in spec.shape)
    return tuple(dict.fromkeys(size for size in sizes if isinstance(size, str) and size not in taken))


def no_dimension(ref: ModelRef, name: str, names: Iterable[str]) -> ModelError:
    """Return the error that a network has no dimension of that name; it lists those that it has."""
    known = ", ".join(sorted(names)) or "none"
    return ModelError(
        f"shape={shape_text(ref.shape)}: model {ref.name!r} has no dimension {name!r} that can be set (it has: {known})"
    )


def fixes_by_samples(
    specs: tuple[TensorSpec, ...], ref: ModelRef, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[InputFix, ...]:
    """Return the fixes of `ref` with those that arrays of samples add: the sizes that nothing else settles.

    Where no rule names the batch, it is the first symbolic dimension of an input, the one along which samples lie.

    Args:
        specs: inputs as their file declares them.
        ref: what the user says of the inputs.
        shapes: of an array of samples per input; of an input without a batch, that of one value or of a row of them.
    """
    from sweep.spec import InputFix

    fixes = {fix.name: fix for fix in ref.inputs}
    by_user = dict(fixes)
    rivals = [] if ref.batch_dim is not None else _batch_symbols(specs, by_user, None)[1]
    if not rivals and not any(_is_open(spec) for spec in _settle(specs, by_user, ref.batch_dim)):
        return ref.inputs
    for declared, settled in zip(specs, _settle(specs, by_user, ref.batch_dim), strict=True):
        known, shape = fixes.get(declared.name), shapes.get(declared.name)
        if shape is None or (known is not None and known.shape is not None) or not (_is_open(settled) or rivals):
            continue
        sizes = _sizes_of_samples(settled, shape)
        if sizes is not None:
            fixes[declared.name] = replace(known or InputFix(name=declared.name), shape=sizes)
    return tuple(fixes[name] for name in sorted(fixes))


def _sizes_of_samples(spec: TensorSpec, shape: tuple[int, ...]) -> tuple[int | str, ...] | None:
    """Return the shape of an input that is fed with samples of this shape; None where they cannot be its samples."""
    if spec.shape == UNKNOWN_RANK:
        return (BATCH, *shape[1:]) if shape else ()
    axis, first = spec.batch_axis, spec.shape[0] if spec.shape else 0
    if axis is None and isinstance(first, str) and not _NOT_BATCH.search(first):
        axis = 0
    actual = shape
    if len(shape) == len(spec.shape) + 1 and axis is None:
        actual = shape[1:]  # a row of values
    elif len(shape) == len(spec.shape) - 1 and axis is not None:
        actual = (*shape[:axis], 1, *shape[axis:])  # one sample
    if len(actual) != len(spec.shape):
        return None
    inner = [size for place, size in enumerate(spec.shape) if place != axis]
    for lies_at in (axis,) if axis is None else (axis, 0):  # the samples lie along the batch axis, or come first
        sizes = [size for place, size in enumerate(actual) if place != lies_at]
        if all(isinstance(declared, str) or declared == size for declared, size in zip(inner, sizes, strict=True)):
            return tuple(sizes) if axis is None else (*sizes[:axis], BATCH, *sizes[axis:])
    return None


def _settle(specs: tuple[TensorSpec, ...], fixes: Fixes, batch_dim: str | None) -> tuple[TensorSpec, ...]:
    """Return the inputs with the fixes and the batch applied; what neither settles is left symbolic."""
    bindings = _bindings(specs, fixes)
    for symbol in _batch_symbols(specs, fixes, batch_dim)[0]:
        bindings.setdefault(symbol, {BATCH})
    return tuple(_apply(spec, fixes.get(spec.name), bindings) for spec in specs)


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


def _check_fix(spec: TensorSpec, shape: tuple[int | str, ...], model: str) -> None:
    """Check the fixed shape against the file's."""
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


def _bindings(specs: tuple[TensorSpec, ...], fixes: Fixes) -> Bindings:
    """Return the sizes that the fixes give to each symbol of the file."""
    bindings: Bindings = {}
    for spec in specs:
        shape = fixes[spec.name].shape if spec.name in fixes else None
        if shape is not None and spec.shape != UNKNOWN_RANK:
            for declared, size in zip(spec.shape, shape, strict=True):
                if isinstance(declared, str) and declared != UNNAMED:
                    bindings.setdefault(declared, set()).add(size)
    return bindings


def _check_batch_dim(specs: tuple[TensorSpec, ...], ref: ModelRef) -> None:
    symbols = _symbols(specs)
    if ref.batch_dim is not None and ref.batch_dim not in symbols:
        have = ", ".join(sorted(symbols)) or "none"
        raise ModelError(
            f"model.batch_dim={ref.batch_dim}: model {ref.name!r} has no such symbolic dimension "
            f"(it has: {have}); name one of these, or leave it out"
        )


def _batch_symbols(specs: tuple[TensorSpec, ...], fixes: Fixes, batch_dim: str | None) -> tuple[set[str], list[str]]:
    """Return the symbolic dimensions that are the batch, by the first rule that names any; else several rivals."""
    if batch_dim is not None:
        return {batch_dim}, []
    unfixed = [spec for spec in specs if spec.name not in fixes or fixes[spec.name].shape is None]
    bindings = _bindings(specs, fixes)
    open_symbols = _symbols(unfixed) - bindings.keys()
    for pattern in _BATCH_NAMES:
        matches = {symbol for symbol in open_symbols if pattern.fullmatch(symbol)}
        if matches:
            return matches, []
    first = {spec.shape[0] for spec in unfixed if spec.shape and spec.shape != UNKNOWN_RANK}
    symbols = {size for size in first if isinstance(size, str) and size not in bindings and not _NOT_BATCH.search(size)}
    names = sorted(symbols - {UNNAMED})
    return (set(), names) if len(names) > 1 else (symbols, [])


def _symbols(specs: Iterable[TensorSpec]) -> set[str]:
    sizes = {size for spec in specs if spec.shape != UNKNOWN_RANK for size in spec.shape}
    return {size for size in sizes if isinstance(size, str) and size != UNNAMED}


def _apply(spec: TensorSpec, fix: InputFix | None, bindings: Bindings) -> TensorSpec:
    """Return the spec with its fix and the bindings; what neither settles is left symbolic, and never ``batch``."""
    shape: list[int | str] = []
    for axis, declared in enumerate(spec.shape):
        size = _size(declared, axis, bindings)
        shape.append(UNNAMED if size == BATCH and BATCH in shape else size)
    if fix is None:
        return replace(spec, shape=tuple(shape))
    return replace(
        spec,
        shape=tuple(shape) if fix.shape is None else fix.shape,
        low=spec.low if fix.low is None else fix.low,
        high=spec.high if fix.high is None else fix.high,
    )


def _size(size: int | str, axis: int, bindings: Bindings) -> int | str:
    if isinstance(size, int):
        return size
    sizes = bindings.get(size, set())
    if size == UNNAMED:  # each its own: only a first one can be the batch
        return BATCH if sizes and axis == 0 else UNNAMED
    if len(sizes) == 1:
        return next(iter(sizes))
    return UNNAMED if size == BATCH else size


def _is_open(spec: TensorSpec) -> bool:
    return any(isinstance(size, str) and size != BATCH for size in spec.shape)


def _advice(specs: tuple[TensorSpec, ...], fixes: Fixes, batch_dim: str | None) -> tuple[list[str], list[str]]:
    """Describe the inputs that are open, and return every override that is missing.

    Each override is applied before the next is looked for, since it settles symbols of other inputs, or unsettles them.
    """
    from sweep.spec import InputFix

    inputs, words, fixes = [], [], dict(fixes)
    while spec := next(filter(_is_open, _settle(specs, fixes, batch_dim)), None):
        shape = _example(spec)
        inputs.append(f"input {spec.name!r} is {render_shape(spec.shape)}")
        words.append(override(spec.name, "shape", render_shape(shape)))
        fixes[spec.name] = InputFix(name=spec.name, shape=shape)
    return inputs, words


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
    """Return the word, in Hydra's grammar, that fixes a field of an input; not yet quoted for a shell."""
    if is_plain_key(name):
        return f"+model.inputs.{name}.{field}={value}"
    return f"+model.inputs.{table_key(name)}={{name:{quote(name)},{field}:{value}}}"


def _shell_word(word: str) -> str:
    """Quote a word for the shell where it needs that; brackets alone stay as they are."""
    return word if _BARE_WORD.fullmatch(word) else shlex.quote(word)
