"""Make the reference to the network from `model`, with its revision or digest."""

from __future__ import annotations

import dataclasses
import re
from functools import cache as cache_results
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sweep import models, spec
from sweep.config.schema import InputConfig
from sweep.config.variants.samples import settled_inputs
from sweep.errors import ConfigError
from sweep.spec import Dimension, ExportInput, InputFix, ModelRef, plain_text
from sweep.storage.cache import Cache

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sweep.config.schema import ModelConfig

_DTYPES = ("float32", "float64", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")
_MODEL_FILE = "model.onnx"
_DIMENSION = re.compile(r"(.+?):(\d+)(?:\+|$)")
Sizes = tuple[tuple[str | None, int], ...]
_SOURCES = ("torch", "saved_model", "path")
_MOST_SIZE = 2**31 - 1  # of a dimension, as of every count


def model_ref(config: ModelConfig, cache: Path, shape: object = None) -> ModelRef:
    """Return the network: by name, from a file, or exported from PyTorch or TensorFlow into the cache.

    Args:
        config: of the model.
        cache: root folder of the cache.
        shape: `shape`, as composed.

    Raises:
        ConfigError: keys contradict each other, or a value is out of its range; one line.
        ModelError: the model cannot be read or exported; one line.
    """
    sizes = read_shape(shape)
    tables = _tables_by_name(config)
    inputs = _fixes(tables)
    _refuse_several(config)
    if config.torch is not None:
        if sizes:
            raise ConfigError("shape: a module is exported at the sizes of model.inputs; set them there")
        return export_torch(config.torch, inputs, tuple(_examples(tables, inputs)), cache)
    if config.saved_model is not None:
        folder = Path(config.saved_model).expanduser().resolve()
        return convert_saved_model(folder, inputs, config.batch_dim, cache, config.samples, sizes)
    if inputs and config.path is None:
        raise ConfigError(f"model.inputs: {config.name} is built here and its inputs are fixed; give model.path too")
    _refuse_dtypes(tables)
    return resolve(config.name, config.path, inputs, config.batch_dim, config.samples, sizes)


def read_shape(value: object) -> tuple[tuple[str | None, int], ...]:
    """Return name and size of each dimension of `shape`, sorted by name; None for the only one that has a name.

    Args:
        value: a table of names and sizes, text such as ``h:224+w:320``, a size alone, or None.

    Raises:
        ConfigError: it is none of these; one line.
    """
    if value is None:
        return ()
    text = plain_text(value)
    if isinstance(value, str):
        pairs: list[tuple[Any, Any]] = [(match[1], int(match[2])) for match in _DIMENSION.finditer(value)]
        if "".join(match[0] for match in _DIMENSION.finditer(value)) != value:
            pairs = []
    elif isinstance(value, dict):
        pairs = list(value.items())
    else:
        pairs = [(None, value)]
    sizes = dict(pairs)
    if not pairs or len(sizes) < len(pairs):
        raise ConfigError(f"shape={text}: give each dimension a size, as in shape=seq:128 or shape=h:224+w:320")
    for name, size in pairs:
        if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= _MOST_SIZE:
            place = name or "a dimension"
            raise ConfigError(f"shape={text}: {size!r} is no size of {place}; give a whole number of 1 to {_MOST_SIZE}")
    return tuple(sorted((None if name is None else str(name), size) for name, size in pairs))


def input_fixes(config: ModelConfig) -> tuple[InputFix, ...]:
    """Return what the user says of the inputs of a plan, whose names and types are known once it is loaded.

    Raises:
        ConfigError: a value is out of its range, or a type is given; one line.
    """
    tables = _tables_by_name(config)
    fixes = _fixes(tables)
    _refuse_dtypes(tables)
    return fixes


def _fixes(tables: Mapping[str, Any]) -> tuple[InputFix, ...]:
    return tuple(_input_fix(name, table) for name, table in sorted(tables.items()))


def _refuse_dtypes(tables: Mapping[str, Any]) -> None:
    with_dtype = [name for name, table in tables.items() if table.get("dtype") is not None]
    if with_dtype:
        raise ConfigError(f"model.inputs.{with_dtype[0]}.dtype: the file says the type; only model.torch needs it")


def _tables_by_name(config: ModelConfig) -> dict[str, Any]:
    """Return the table of each input by the input's name: the table's own ``name``, else its key."""
    tables: dict[str, Any] = {}
    for key, table in config.inputs.items():
        name = (table.get("name") if isinstance(table, dict) else None) or key
        if not isinstance(name, str):
            raise ConfigError(f"model.inputs.{key}.name={name}: must be text; write it in quotes")
        if name in tables:
            raise ConfigError(f"model.inputs names {name!r} twice; give one table for each input")
        tables[name] = table
    return tables


def _refuse_several(config: ModelConfig) -> None:
    sources = [f"model.{name}={value}" for name in _SOURCES if (value := getattr(config, name)) is not None]
    if len(sources) > 1:
        raise ConfigError(f"{' and '.join(sources)}: give one of them")


@cache_results
def export_torch(
    reference: str, inputs: tuple[InputFix, ...], examples: tuple[models.torch_export.Example, ...], root: Path
) -> ModelRef:
    """Export a model from PyTorch, once per process; the cached export is taken if nothing it depends on has changed.

    Args:
        reference: ``package.module:factory``.
        inputs: what the user fixed about the inputs.
        examples: arguments to export with.
        root: folder of the cache.
    """
    name = models.torch_export.factory_name(reference)
    with models.torch_export.TorchExport(reference, examples) as child:

        def build(folder: Path) -> spec.JsonDict:
            return child.write(folder / _MODEL_FILE)

        entry = _process_cache(root).get(
            "models", spec.digest("torch", child.key), build, {"model": f"{name} from PyTorch"}
        )
    limits = tuple(dataclasses.replace(fix, shape=None) for fix in inputs if (fix.low, fix.high) != (None, None))
    exported = resolve(name, str(entry.path / _MODEL_FILE), limits, None)
    arguments = tuple(ExportInput(name=item.name, shape=item.shape, dtype=item.dtype) for item in examples)
    return dataclasses.replace(exported, name=name, made_from=f"torch {reference}", export_inputs=arguments)


@cache_results
def convert_saved_model(
    folder: Path,
    inputs: tuple[InputFix, ...],
    batch_dim: str | None,
    root: Path,
    samples: str | None = None,
    shape: Sizes = (),
) -> ModelRef:
    """Convert a TensorFlow SavedModel, once per process; only if its files or the tools have changed."""
    key = spec.digest("saved_model", models.saved_model.content(folder), models.saved_model.OPSET)

    def build(entry: Path) -> spec.JsonDict:
        return models.saved_model.convert(folder, entry / _MODEL_FILE)

    entry = _process_cache(root).get("models", key, build, {"model": f"{folder.name} from TensorFlow"})
    converted = resolve(folder.name, str(entry.path / _MODEL_FILE), inputs, batch_dim, samples, shape)
    return dataclasses.replace(converted, name=folder.name, made_from=f"saved_model {folder}")


@cache_results
def _process_cache(root: Path) -> Cache:
    """Return the cache at `root`, one object per process, so that the models exported into it are not evicted."""
    return Cache(root)


def _examples(tables: Mapping[str, Any], inputs: tuple[InputFix, ...]) -> Iterator[models.torch_export.Example]:
    for fix in inputs:
        dtype = tables[fix.name].get("dtype") or "float32"
        if dtype not in _DTYPES:
            raise ConfigError(f"model.inputs.{fix.name}.dtype={dtype}: must be one of {', '.join(_DTYPES)}")
        if fix.shape is not None:
            yield models.torch_export.Example(name=fix.name, shape=fix.shape, dtype=dtype, fill=_fill(fix, dtype))


def _fill(fix: InputFix, dtype: str) -> float | None:
    """Return the value that fills an example of an integer input, in its range; a model may fail outside of it."""
    return None if np.dtype(dtype).kind == "f" else fix.low


@cache_results
def check_batch(model: ModelRef, batch: int) -> None:
    """Refuse a batch that the model does not take; cached, because variants share a model and a batch."""
    models.check_batch(models.signature(model), batch, model.name)


@cache_results
def resolve(
    name: str,
    path: str | None,
    inputs: tuple[InputFix, ...],
    batch_dim: str | None,
    samples: str | None = None,
    shape: Sizes = (),
) -> ModelRef:
    """Return the model with its revision or digest; a file is read once per process, however many variants share it.

    Args:
        name: of a network that is built in.
        path: of a file; None for a network that is built in.
        inputs: what the user fixed about the inputs.
        batch_dim: name of the dimension that is the batch; None detects it.
        samples: ``model.samples``, which settles sizes that the file and the user leave open; None for none.
        shape: name and size of each dimension that is set; None names the only one that can be.
    """
    if path is None:
        ref = ModelRef(name=name, revision=models.zoo.entry(name).revision, inputs=inputs, batch_dim=batch_dim)
        ref = dataclasses.replace(ref, shape=_named(shape, ref))
        models.signature(ref)
        return ref
    file = Path(path).expanduser().resolve()
    ref = ModelRef(name=file.stem, path=str(file), inputs=inputs, batch_dim=batch_dim)
    ref = dataclasses.replace(ref, shape=_named(shape, ref))
    ref = dataclasses.replace(ref, inputs=settled_inputs(samples, ref))
    models.signature(ref)
    return dataclasses.replace(ref, digest=models.file_digest(file))


def _named(shape: Sizes, ref: ModelRef) -> tuple[Dimension, ...] | None:
    """Return the dimensions that are set, with their names; None where none is.

    Raises:
        ConfigError: a size is given without a name, and the network has no dimension, or several.
    """
    if not shape:
        return None
    if not any(name is None for name, _ in shape):
        return tuple(Dimension(name=str(name), size=size) for name, size in shape)
    names = models.dimensions(ref)
    size = shape[0][1]
    if len(names) != 1:
        known = ", ".join(names) or "none"
        advice = f"name them, as in shape={names[0]}:{size}" if names else "leave shape out"
        raise ConfigError(f"shape={size}: model {ref.name} has these dimensions to set: {known}; {advice}")
    return (Dimension(name=names[0], size=size),)


def _input_fix(name: str, table: object) -> InputFix:
    """Return ``model.inputs.NAME``, checked here because Hydra has no schema for names that are the model's."""
    keys = {item.name for item in dataclasses.fields(InputConfig)}
    if not isinstance(table, dict) or not set(table) <= keys:
        unknown = ", ".join(sorted(set(table) - keys)) if isinstance(table, dict) else table
        raise ConfigError(f"model.inputs.{name}: {unknown} is not known; there are: {', '.join(sorted(keys))}")
    shape, low, high = table.get("shape"), table.get("low"), table.get("high")
    for key, value in (("low", low), ("high", high)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ConfigError(f"model.inputs.{name}.{key}={value}: must be a number")
    if shape is not None and not isinstance(shape, list):
        raise ConfigError(f"model.inputs.{name}.shape={shape}: must be a list, as in [batch,512]")
    for size in shape or ():
        if size != "batch" and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
            raise ConfigError(f"model.inputs.{name}.shape: {size!r} is neither a size nor the word batch")
    return InputFix(
        name=name,
        shape=None if shape is None else tuple(shape),
        low=None if low is None else float(low),
        high=None if high is None else float(high),
    )
