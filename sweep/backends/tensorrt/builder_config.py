"""Translate engine axes into the library's builder config.

An axis at None keeps the library's default; an option that the library lacks is named in the error.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from sweep.backends.tensorrt import io_layout
from sweep.errors import BuildError, UnsupportedError

if TYPE_CHECKING:
    import tensorrt

    from sweep.backends.tensorrt.library import Library
    from sweep.spec import EngineAxes, JsonDict

_KIB, _MIB = 1 << 10, 1 << 20
_FLAGS = {"refit": "REFIT", "weight_streaming": "WEIGHT_STREAMING", "version_compatible": "VERSION_COMPATIBLE"}


def apply(library: Library, config: tensorrt.IBuilderConfig, axes: EngineAxes, *, tf32: bool) -> None:
    """Set every option of ``axes`` that is not None.

    Args:
        library: created ``config``.
        config: changed in place.
        axes: the builder options.
        tf32: whether float32 products may run in TF32; the library's own default is yes.

    Raises:
        UnsupportedError: the library or version lacks an option, or silently changes its value; with the option's name.
    """
    # The proof of the precision is read from detailed engines; detail costs a few kilobytes and no time.
    verbosity = (axes.profiling_verbosity or "detailed").upper()
    config.profiling_verbosity = member(library, "profiling_verbosity", "ProfilingVerbosity", verbosity)
    _set_tf32(library, config, on=tf32)
    _set_compute_capability(library, config, axes.compute_capability)
    _set_searches(library, config, axes)
    _set_flags(library, config, axes)
    _set_choices(library, config, axes)
    if axes.workspace_mib is not None:
        pool = member(library, "workspace_mib", "MemoryPoolType", "WORKSPACE")
        config.set_memory_pool_limit(pool, axes.workspace_mib * _MIB)
    if axes.hardware_compatibility is not None:
        level = axes.hardware_compatibility.upper()
        value = member(library, "hardware_compatibility", "HardwareCompatibilityLevel", level)
        _assign(library, config, "hardware_compatibility_level", value, axis="hardware_compatibility")


def _set_compute_capability(library: Library, config: tensorrt.IBuilderConfig, requested: str | None) -> None:
    """Build for the GPUs of one compute capability; None leaves the library's default, all that it supports widely."""
    if requested is None:
        return
    name = f"SM{requested.replace('.', '')}"
    if not library.has("ComputeCapability", name) or not hasattr(config, "set_compute_capability"):
        members = getattr(getattr(library.trt, "ComputeCapability", None), "__members__", {})
        known = ", ".join(f"{item[2:-1]}.{item[-1]}" for item in members if item.startswith("SM")) or "none by name"
        raise UnsupportedError(
            f"{library.label} does not have compute_capability={requested}: it builds for {known}; "
            "compute_capability=null builds for all that it supports by default"
        )
    config.num_compute_capabilities = 1
    if not config.set_compute_capability(library.member("ComputeCapability", name), 0):
        raise UnsupportedError(f"{library.label} does not take compute_capability={requested}: {library.log.tail()}")


def _set_searches(library: Library, config: tensorrt.IBuilderConfig, axes: EngineAxes) -> None:
    _assign(library, config, "builder_optimization_level", axes.builder_optimization_level)
    _assign(library, config, "max_aux_streams", axes.max_aux_streams)
    _assign(library, config, "max_num_tactics", axes.max_tactics, axis="max_tactics")
    _assign(library, config, "build_route", axes.build_route)
    if axes.tiling_l2_limit_kib is not None:
        limit = axes.tiling_l2_limit_kib * _KIB
        _assign(library, config, "l2_limit_for_tiling", limit, axis="tiling_l2_limit_kib")
    if axes.tiling is not None:
        level = member(library, "tiling", "TilingOptimizationLevel", axes.tiling.upper())
        _assign(library, config, "tiling_optimization_level", level, axis="tiling")


def _set_choices(library: Library, config: tensorrt.IBuilderConfig, axes: EngineAxes) -> None:
    """Set the sources of tactics and the preview features, by the names that the library has for them."""
    if axes.tactic_sources is not None:
        names = () if axes.tactic_sources.lower() == "none" else _split(axes.tactic_sources)
        sources = [_choice(library, "tactic_sources", "TacticSource", name) for name in names]
        bits = sum(1 << int(source) for source in sources)
        if not config.set_tactic_sources(bits) or config.get_tactic_sources() != bits:
            raise UnsupportedError(f"{library.label} does not take tactic_sources={axes.tactic_sources}")
    for name in _split(axes.preview_features or ""):
        feature = _choice(library, "preview_features", "PreviewFeature", name)
        config.set_preview_feature(feature, True)  # noqa: FBT003 - the library's own signature
        if not config.get_preview_feature(feature):
            raise UnsupportedError(f"{library.label} does not take preview_features={name}")


def _split(names: str) -> list[str]:
    return list(filter(None, names.split("+")))


def _choice(library: Library, axis: str, enum: str, name: str) -> Any:
    """Return the member of an enumeration whose members users name.

    Raises:
        UnsupportedError: the library has no such member; with those that it has.
    """
    members = getattr(getattr(library.trt, enum, None), "__members__", {})
    if name.upper() not in members:
        known = ", ".join(map(str.lower, members)) or "none"
        raise UnsupportedError(f"{library.label} does not have {axis}={name.lower()}; there are: {known}")
    return members[name.upper()]


def set_io_format(library: Library, network: tensorrt.INetworkDefinition, io_format: str | None) -> None:
    """Fix the layout of the inputs and outputs that have four dimensions; None leaves them linear.

    Raises:
        UnsupportedError: the library has no such layout, or no input or output has four dimensions.

    Source:
        *Supported Data Types and Tensor Formats* of the TensorRT developer guide.
    """
    if io_format is None:
        return
    value = member(library, "io_format", "TensorFormat", io_format.upper())
    tensors = [
        *(network.get_input(number) for number in range(network.num_inputs)),
        *(network.get_output(number) for number in range(network.num_outputs)),
    ]
    images = [tensor for tensor in tensors if len(tensor.shape) == io_layout.DIMENSIONS]
    if not images:
        raise UnsupportedError(f"io_format={io_format}: no input or output of the network has four dimensions")
    for tensor in images:
        tensor.allowed_formats = 1 << int(value)


def _set_flags(library: Library, config: tensorrt.IBuilderConfig, axes: EngineAxes) -> None:
    for axis, flag in _FLAGS.items():
        value = getattr(axes, axis)
        if value is not None:
            _set_flag(library, config, axis, flag, on=value)
    if axes.sparsity is not None:
        _set_flag(library, config, "sparsity", "SPARSE_WEIGHTS", on=True)
    if axes.timing_cache is False:
        _set_flag(library, config, "timing_cache", "DISABLE_TIMING_CACHE", on=True)


def _set_flag(library: Library, config: tensorrt.IBuilderConfig, axis: str, name: str, *, on: bool) -> None:
    flag = member(library, axis, "BuilderFlag", name)
    (config.set_flag if on else config.clear_flag)(flag)


def _set_tf32(library: Library, config: tensorrt.IBuilderConfig, *, on: bool) -> None:
    if not library.has("BuilderFlag", "TF32"):
        if on:
            raise UnsupportedError(f"{library.label} has no TF32 flag")
        return
    _set_flag(library, config, "tf32", "TF32", on=on)


def member(library: Library, axis: str, enum: str, name: str) -> Any:
    """Return the member of an enumeration that ``axis`` needs.

    Raises:
        UnsupportedError: the library has no such member; with the axis's name.
    """
    if not library.has(enum, name):
        raise UnsupportedError(f"{library.label} does not have {axis}: it has no {enum}.{name}")
    return library.member(enum, name)


def _assign(
    library: Library, config: tensorrt.IBuilderConfig, attribute: str, value: Any, axis: str | None = None
) -> None:
    """Set a property of the builder config and check that it took effect; the library silently clamps some."""
    if value is None:
        return
    if not hasattr(config, attribute):
        raise UnsupportedError(f"{library.label} does not have {axis or attribute}")
    setattr(config, attribute, value)
    actual = getattr(config, attribute)
    if actual != value:
        requested_name, actual_name = (getattr(item, "name", item) for item in (value, actual))
        raise UnsupportedError(
            f"{library.label} does not take {axis or attribute}={requested_name}: it made it {actual_name}"
        )


@functools.cache
def load_plugins(library: Library, paths: tuple[str, ...]) -> None:
    """Register the plugins of shared libraries, once per process.

    Raises:
        BuildError: the library could not load one; with its own last messages.
    """
    builder = library.trt.Builder(library.logger)  # The library has no logger before its first builder exists.
    for path in paths:
        library.log.clear()
        if library.trt.get_plugin_registry().load_library(path) is None:
            raise BuildError(f"{library.label} cannot load the plugins of {path}: {library.log.tail()}")
    del builder


def read_engine_config(engine: Any) -> JsonDict:
    """Read the builder options that a loaded engine remembers; None where this version does not report one."""
    level = getattr(engine, "hardware_compatibility_level", None)
    streamable = getattr(engine, "streamable_weights_size", None)
    return {
        "refit": getattr(engine, "refittable", None),
        "hardware_compatibility": None if level is None else level.name.lower(),
        "aux_streams": getattr(engine, "num_aux_streams", None),
        "streamable_weights_bytes": None if streamable is None else int(streamable),
    }


def mismatch(axes: EngineAxes, engine_config: JsonDict) -> str | None:
    """Return how the options of a loaded engine differ from the request, in one line; None if they do not.

    Args:
        axes: the request.
        engine_config: from ``read_engine_config``.
    """
    for axis in ("refit", "hardware_compatibility"):
        requested, actual = getattr(axes, axis), engine_config.get(axis)
        if requested is not None and actual is not None and requested != actual:
            return f"asked for {axis}={requested}, but the engine says {actual}"
    if axes.weight_streaming and engine_config.get("streamable_weights_bytes") == 0:
        return "asked for weight_streaming, but the engine has no weights that it can stream"
    return None
