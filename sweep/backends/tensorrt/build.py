"""Typed ONNX -> serialised engine. Always strongly typed: the precision is in the graph, never in a flag."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sweep.backends.tensorrt import builder_config, engine_inspector
from sweep.errors import BuildError
from sweep.system import file_locks, file_trust

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import tensorrt

    from sweep.backends.tensorrt.library import Library
    from sweep.spec import EngineAxes, JsonDict

Shape = tuple[int, ...]
Profiled = Mapping[str, tuple[Shape, Shape, Shape]]


def serialised(
    library: Library,
    onnx: Path,
    axes: EngineAxes,
    profile: Profiled,
    *,
    tf32: bool,
    timing: Path | None = None,
) -> tuple[bytes, JsonDict]:
    """Build an engine.

    Args:
        library: builds it.
        onnx: the typed ONNX; external data is found beside it.
        axes: the builder knobs; None leaves the library's default alone.
        profile: smallest, tuned-for and largest shape of each input.
        tf32: float32 products may run in TF32. Cleared, they may not; the library's own default is on.
        timing: file of the timing cache that builds share; None for none.

    Returns:
        The engine, and {inputs, layers, tf32, network} of what was built; network is {type: layers} as the parsed,
        strongly typed network has them.

    Raises:
        UnsupportedError: a knob that this library or version lacks, with its name.
        BuildError: the library refused; its own last messages.
    """
    if axes.plugins:
        builder_config.load_plugins(library, tuple(plugin.path for plugin in axes.plugins))
    library.log.clear()
    builder: tensorrt.Builder = library.trt.Builder(library.logger)
    network: tensorrt.INetworkDefinition = builder.create_network(_network_flags(library))
    parser = _parsed(library, network, onnx)
    config: tensorrt.IBuilderConfig = builder.create_builder_config()
    builder_config.apply(library, config, axes, tf32=tf32)
    _add_profile(library, builder, network, config, profile)
    with _timing_cache(config, None if axes.timing_cache is False else timing):
        plan = builder.build_serialized_network(network, config)
    del parser  # the network's weights lie in it until the build is over
    if plan is None:
        raise BuildError(f"{library.label} built no engine: {library.log.tail()}")
    facts: JsonDict = {"inputs": network.num_inputs, "layers": network.num_layers, "tf32": tf32}
    facts["network"] = engine_inspector.precision(engine_inspector.of_network(network))
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


def _add_profile(
    library: Library,
    builder: tensorrt.Builder,
    network: tensorrt.INetworkDefinition,
    config: tensorrt.IBuilderConfig,
    profile: Profiled,
) -> None:
    names = [network.get_input(number).name for number in range(network.num_inputs)]
    if set(names) != set(profile):
        raise BuildError(f"the graph's inputs are {', '.join(names)}; shapes were given for {', '.join(profile)}")
    made = builder.create_optimization_profile()
    for name, shapes in profile.items():
        made.set_shape(name, *shapes)
    if config.add_optimization_profile(made) < 0:
        said = ", ".join(f"{name}={'..'.join(map(_spelled, dict.fromkeys(by)))}" for name, by in profile.items())
        raise BuildError(f"{library.label} refused the profile {said}: {library.log.tail()}")


def _spelled(shape: Shape) -> str:
    return "x".join(map(str, shape))


@contextlib.contextmanager
def _timing_cache(config: tensorrt.IBuilderConfig, path: Path | None) -> Iterator[None]:
    """Builds with one library on one GPU share what they learn of tactics; TensorRT-RTX times none."""
    if path is None:
        yield
        return
    with file_locks.locked(path.with_suffix(".lock")):
        known = path.read_bytes() if path.exists() and not file_trust.distrusted(path) else b""
        cache = config.create_timing_cache(known)
        if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
            config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)
        yield
        learnt = config.get_timing_cache()
        if learnt is not None:
            scratch = path.with_suffix(f".{os.getpid()}")
            scratch.write_bytes(bytes(learnt.serialize()))
            scratch.replace(path)
