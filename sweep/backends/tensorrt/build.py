"""Build serialised engines from typed ONNX.

Networks are always strongly typed: the graph, not a flag, sets the precision.

Source:
    *Strongly Typed Networks* of the TensorRT developer guide.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sweep.backends.tensorrt import builder_config, engine_inspector, gpu_allocator
from sweep.backends.tensorrt.library import explain
from sweep.errors import BuildError
from sweep.system import file_locks, file_trust, regular_files, write_atomic

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import tensorrt

    from sweep.backends.tensorrt.gpu_allocator import Ledger
    from sweep.backends.tensorrt.library import Library
    from sweep.spec import EngineAxes, JsonDict

_NO_OPERATOR = "Plugin not found"  # of the parser, which takes what it does not know for a plugin's

Shape = tuple[int, ...]
ProfileShapes = Mapping[str, tuple[Shape, Shape, Shape]]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildAids:
    """Hold what a build uses besides graph and options.

    Attributes:
        timing: file of the timing cache that builds share; None for none.
        ledger: records the device memory of the build; None leaves allocation to the library.
    """

    timing: Path | None = None
    ledger: Ledger | None = None


def build_serialized(
    library: Library,
    onnx: Path,
    axes: EngineAxes,
    profiles: ProfileShapes | Sequence[ProfileShapes],
    *,
    tf32: bool,
    aids: BuildAids | None = None,
) -> tuple[bytes, JsonDict]:
    """Build an engine.

    Args:
        library: builds it.
        onnx: the typed ONNX; external data is read from beside it.
        axes: the builder options; None leaves the library's default.
        profiles: smallest, optimal and largest shape of each input, or those of each of several profiles.
        tf32: whether float32 products may run in TF32; the library's own default is yes.
        aids: what the build uses besides; None for nothing.

    Returns:
        The serialised engine, and {inputs, layers, tf32, network, profiles}; network is {type: layers} of the parsed,
        strongly typed network, profiles the shapes of each input in each profile, as the library tells them. With a
        ledger also {build_memory}.

    Raises:
        UnsupportedError: the library or version lacks an option; with the option's name.
        BuildError: the library refused the graph; with its own last messages.
    """
    if axes.plugins:
        builder_config.load_plugins(library, tuple(plugin.path for plugin in axes.plugins))
    library.log.clear()
    aids = aids or BuildAids()
    ledger = aids.ledger
    builder: tensorrt.Builder = library.trt.Builder(library.logger)
    allocator = None if ledger is None else gpu_allocator.create_allocator(library, ledger)
    if allocator is not None:
        builder.gpu_allocator = allocator
    network: tensorrt.INetworkDefinition = builder.create_network(_network_flags(library))
    parser = _parse(library, network, onnx)
    builder_config.set_io_format(library, network, axes.io_format)
    config: tensorrt.IBuilderConfig = builder.create_builder_config()
    builder_config.apply(library, config, axes, tf32=tf32)
    listed = [profiles] if isinstance(profiles, Mapping) else list(profiles)
    added = [_add_profile(library, builder, network, config, profile) for profile in listed]
    with _timing_cache(config, None if axes.timing_cache is False else aids.timing):
        plan = builder.build_serialized_network(network, config)
    del parser  # the network's weights lie in it until the build is over
    if plan is None:
        raise BuildError(f"{library.label} built no engine: {library.log.tail()}")
    facts: JsonDict = {"inputs": network.num_inputs, "layers": network.num_layers, "tf32": tf32}
    facts["profiles"] = added
    if config.num_optimization_profiles != len(listed):
        raise BuildError(f"{library.label} took {config.num_optimization_profiles} profiles of {len(listed)}")
    facts["network"] = engine_inspector.count_layer_types(engine_inspector.inspect_network(network))
    if ledger is not None and allocator is not None:
        facts["build_memory"] = ledger.build_facts()
    return bytes(plan), facts


def _network_flags(library: Library) -> int:
    """Return the flag of strong typing: needed on 10.x, the only mode of 11.x and RTX, where the flag may be gone."""
    if not library.has("NetworkDefinitionCreationFlag", "STRONGLY_TYPED"):
        return 0
    return 1 << int(library.member("NetworkDefinitionCreationFlag", "STRONGLY_TYPED"))


def _parse(library: Library, network: tensorrt.INetworkDefinition, onnx: Path) -> tensorrt.OnnxParser:
    parser: tensorrt.OnnxParser = library.trt.OnnxParser(network, library.logger)
    if parser.parse_from_file(str(onnx)):
        return parser
    errors = [parser.get_error(number) for number in range(parser.num_errors)]
    unknown = sorted({error.node_operator() for error in errors if _NO_OPERATOR in error.desc()})
    if unknown:
        raise BuildError(
            f"{library.label} has no operator {', '.join(unknown)}: run this network on backend=onnxruntime, or give a "
            "plugin library that has it (backend.plugins=[FILE])"
        )
    reasons = explain("; ".join(_parser_error(error) for error in errors)) if errors else library.log.tail()
    raise BuildError(f"{library.label} cannot read the graph: {reasons}")


def _parser_error(error: Any) -> str:
    name = f" {error.node_name()}" if error.node_name() else ""
    where = f" at node{name} ({error.node_operator()})" if error.node_operator() else ""
    return f"{error.code().name}{where}: {error.desc()}"


def _add_profile(
    library: Library,
    builder: tensorrt.Builder,
    network: tensorrt.INetworkDefinition,
    config: tensorrt.IBuilderConfig,
    profile: ProfileShapes,
) -> JsonDict:
    """Add a profile, and return the shapes of each input in it as the library tells them."""
    names = [network.get_input(number).name for number in range(network.num_inputs)]
    if set(names) != set(profile):
        raise BuildError(f"the graph's inputs are {', '.join(names)}; shapes were given for {', '.join(profile)}")
    optimization_profile = builder.create_optimization_profile()
    for name, shapes in profile.items():
        optimization_profile.set_shape(name, *shapes)
    if config.add_optimization_profile(optimization_profile) < 0:
        ranges = ", ".join(f"{name}={'..'.join(map(_format_shape, dict.fromkeys(by)))}" for name, by in profile.items())
        raise BuildError(f"{library.label} refused the profile {ranges}: {library.log.tail()}")
    return {
        name: [list(map(int, shape)) for shape in optimization_profile.get_shape(name)]
        for name in profile
        if len(profile[name][0])
    }


def _format_shape(shape: Shape) -> str:
    return "x".join(map(str, shape))


@contextlib.contextmanager
def _timing_cache(config: tensorrt.IBuilderConfig, path: Path | None) -> Iterator[None]:
    """Share tactic timings between builds with one library on one GPU; TensorRT-RTX times no tactics."""
    if path is None:
        yield
        return
    with file_locks.locked(path.with_suffix(".lock")):
        is_ours = path.exists() and not file_trust.distrust_reason(path)
        stored = regular_files.read_bytes(path, follow=False) if is_ours else b""
        cache = config.create_timing_cache(stored)
        if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
            config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)
        yield
        updated = config.get_timing_cache()
        if updated is not None:
            write_atomic(path, bytes(updated.serialize()), durable=False)
