"""Typed ONNX -> serialised engine. Always strongly typed: the precision is in the graph, never in a flag."""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING, Any

from sweep.errors import BuildError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import tensorrt

    from sweep.axes import EngineAxes, JsonDict
    from sweep.backends.tensorrt.library import Library

_MIB = 1 << 20


def serialised(
    library: Library,
    onnx: Path,
    axes: EngineAxes,
    shapes: Mapping[str, tuple[int, ...]],
    *,
    tf32: bool,
    timing: Path | None = None,
) -> tuple[bytes, JsonDict]:
    """Build an engine.

    Args:
        library: builds it.
        onnx: the typed ONNX; external data is found beside it.
        axes: the builder knobs; None leaves the library's default alone.
        shapes: concrete shape of each input, at which the engine's profile is static.
        tf32: float32 products may run in TF32. Cleared, they may not; the library's own default is on.
        timing: file of the timing cache that builds share; None for none.

    Returns:
        The engine, and {inputs, layers, tf32} of what was built.

    Raises:
        UnsupportedError: a knob that this library or version lacks, with its name.
        BuildError: the library refused; its own last messages.
    """
    library.log.clear()
    builder: tensorrt.Builder = library.trt.Builder(library.logger)
    network: tensorrt.INetworkDefinition = builder.create_network(_network_flags(library))
    parser = _parsed(library, network, onnx)
    config: tensorrt.IBuilderConfig = builder.create_builder_config()
    _set_knobs(library, config, axes, tf32=tf32)
    _add_profile(library, builder, network, config, shapes)
    with _timing_cache(config, timing):
        plan = builder.build_serialized_network(network, config)
    del parser  # the network's weights lie in it until the build is over
    if plan is None:
        raise BuildError(f"{library.label} built no engine: {library.log.tail()}")
    facts: JsonDict = {"inputs": network.num_inputs, "layers": network.num_layers, "tf32": tf32}
    return bytes(plan), facts


def _network_flags(library: Library) -> int:
    """Strongly typed: needed on 10.x, the only kind on 11.x and RTX, where the flag may be gone."""
    if not library.has("NetworkDefinitionCreationFlag", "STRONGLY_TYPED"):
        return 0
    return 1 << int(library.member("NetworkDefinitionCreationFlag", "STRONGLY_TYPED"))


def _parsed(library: Library, network: tensorrt.INetworkDefinition, onnx: Path) -> tensorrt.OnnxParser:
    parser: tensorrt.OnnxParser = library.trt.OnnxParser(network, library.logger)
    if parser.parse_from_file(str(onnx)):
        return parser
    errors = [parser.get_error(number) for number in range(parser.num_errors)]
    said = "; ".join(_parser_error(error) for error in errors) or library.log.tail()
    raise BuildError(f"{library.label} cannot read the graph: {said}")


def _parser_error(error: Any) -> str:
    where = f" at node {error.node_name() or '?'} ({error.node_operator()})" if error.node_operator() else ""
    return " ".join(f"{error.code().name}{where}: {error.desc()}".split())


def _set_knobs(library: Library, config: tensorrt.IBuilderConfig, axes: EngineAxes, *, tf32: bool) -> None:
    # Detailed engines are what the proof of the precision is read from; it costs a few kilobytes and no time.
    config.profiling_verbosity = library.member("ProfilingVerbosity", "DETAILED")
    _set_tf32(library, config, on=tf32)
    _assign(library, config, "builder_optimization_level", axes.builder_optimization_level)
    _assign(library, config, "max_aux_streams", axes.max_aux_streams)
    if axes.tiling is not None:
        level = _knob(library, "tiling", "TilingOptimizationLevel", axes.tiling.upper())
        _assign(library, config, "tiling_optimization_level", level, axis="tiling")
    if axes.sparsity is not None:
        flag = _knob(library, "sparsity", "BuilderFlag", "SPARSE_WEIGHTS")
        config.set_flag(flag)
    if axes.workspace_mib is not None:
        pool = _knob(library, "workspace_mib", "MemoryPoolType", "WORKSPACE")
        config.set_memory_pool_limit(pool, axes.workspace_mib * _MIB)


def _set_tf32(library: Library, config: tensorrt.IBuilderConfig, *, on: bool) -> None:
    if not library.has("BuilderFlag", "TF32"):
        if on:
            raise UnsupportedError(f"{library.label} has no TF32 flag")
        return
    flag = library.member("BuilderFlag", "TF32")
    (config.set_flag if on else config.clear_flag)(flag)


def _knob(library: Library, axis: str, enum: str, name: str) -> Any:
    """A member of an enumeration that ``axis`` needs."""
    if not library.has(enum, name):
        raise UnsupportedError(f"{library.label} does not have {axis}: it has no {enum}.{name}")
    return library.member(enum, name)


def _assign(
    library: Library, config: tensorrt.IBuilderConfig, attribute: str, value: Any, axis: str | None = None
) -> None:
    """Set a property of the builder's config and see that it took; the library clamps some in silence."""
    if value is None:
        return
    if not hasattr(config, attribute):
        raise UnsupportedError(f"{library.label} does not have {axis or attribute}")
    setattr(config, attribute, value)
    found = getattr(config, attribute)
    if found != value:
        raise UnsupportedError(f"{library.label} does not take {axis or attribute}={value}: it made it {found}")


def _add_profile(
    library: Library,
    builder: tensorrt.Builder,
    network: tensorrt.INetworkDefinition,
    config: tensorrt.IBuilderConfig,
    shapes: Mapping[str, tuple[int, ...]],
) -> None:
    """One profile, static at ``shapes``."""
    names = [network.get_input(number).name for number in range(network.num_inputs)]
    if set(names) != set(shapes):
        raise BuildError(f"the graph's inputs are {', '.join(names)}; shapes were given for {', '.join(shapes)}")
    profile = builder.create_optimization_profile()
    for name, shape in shapes.items():
        profile.set_shape(name, shape, shape, shape)
    if config.add_optimization_profile(profile) < 0:
        said = ", ".join(f"{name}={'x'.join(map(str, shape))}" for name, shape in shapes.items())
        raise BuildError(f"{library.label} refused the profile {said}: {library.log.tail()}")


@contextlib.contextmanager
def _timing_cache(config: tensorrt.IBuilderConfig, path: Path | None) -> Iterator[None]:
    """Builds with one library on one GPU share what they learn of tactics; TensorRT-RTX times none."""
    if path is None:
        yield
        return
    lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = path.read_bytes() if path.exists() else b""
        cache = config.create_timing_cache(known)
        if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
            config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)
        yield
        learnt = config.get_timing_cache()
        if learnt is not None:
            scratch = path.with_suffix(f".{os.getpid()}")
            scratch.write_bytes(bytes(learnt.serialize()))
            scratch.replace(path)
    finally:
        os.close(lock)
