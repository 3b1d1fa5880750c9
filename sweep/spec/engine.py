"""Declare the axes of the engine: if one changes, the engine is built again."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - get_type_hints
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from sweep.spec.axis import SPECIAL, TrtexecFlag, axis, flag, prefixed, switch
from sweep.spec.base import NOT_IN_KEY
from sweep.spec.checks import at_least, between, compute_capability, joined_names, one_of
from sweep.spec.shape_profiles import PER_ENGINE, WAYS, ShapeProfiles, profiles_cell

_MOST_OPTIMIZED = 5
_TILINGS = ("none", "fast", "moderate", "full")  # in the order of TensorRT's levels
FORMATS = ("linear", "chw2", "chw4", "chw16", "chw32", "hwc", "hwc8", "hwc16")
"""Layouts of a tensor of four dimensions, by the lower-case names of TensorRT's ``TensorFormat``."""
_HARDWARE = {  # name here -> name in trtexec
    "none": "none",
    "ampere_plus": "ampere+",
    "same_compute_capability": "sameComputeCapability",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Describe the batch sizes that one engine takes: an optimization profile over a range.

    Attributes:
        least: smallest batch.
        best: batch that the builder optimizes for.
        most: largest batch.
    """

    least: int
    best: int
    most: int

    def __str__(self) -> str:
        """Return the range as tables show it: ``1..8..32``."""
        return f"{self.least}..{self.best}..{self.most}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """Identify a shared library of TensorRT plugins.

    Attributes:
        path: absolute path. Not in the key: ``digest`` is.
        digest: sha256 of the file.
    """

    path: str = field(metadata=NOT_IN_KEY)
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltPlan:
    """Identify a serialised engine (a plan) that was built elsewhere.

    Attributes:
        path: absolute path. Not in the key: ``digest`` is.
        digest: sha256 of the file.
        library: the library whose plan it is, ``tensorrt`` or ``tensorrt_rtx``, by the file's header. Not in the key,
            for it follows from the content.
        version: version of that library, by the header; None if the header does not tell. Not in the key.
    """

    path: str = field(metadata=NOT_IN_KEY)
    digest: str
    library: str = field(metadata=NOT_IN_KEY)
    version: str | None = field(default=None, metadata=NOT_IN_KEY)

    def __str__(self) -> str:
        """Return the name of the file."""
        return PurePath(self.path).name

    @property
    def built_by(self) -> str:
        """Return library and version, as in ``tensorrt_rtx 1.6.1.120``."""
        return f"{self.library} {self.version or 'of an unknown version'}"


def _profile_overrides(profile: Profile | None) -> Mapping[str, Any]:
    """Return the keys that set `profile`; None is an engine for one batch size."""
    if profile is None:
        return {"profile": "static"}
    limits = {"range.least": profile.least, "range.best": profile.best, "range.most": profile.most}
    return {"profile": "range", **limits}


def _name(plan: Any) -> str:
    """Return the file name of a plan; a damaged record may hold anything."""
    return PurePath(str(_path(plan))).name


def _path(plugin: Any) -> Any:
    """Return the file of a plugin or plan; a record may hold it as a table, or as the path alone (first releases)."""
    return plugin["path"] if isinstance(plugin, dict) else getattr(plugin, "path", plugin)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineAxes:
    """Hold the axes of the engine: if one changes, the engine is built again.

    Attributes:
        batch: samples per inference; the engine takes this size alone unless ``profile`` is set.
        profile: the range of batch sizes that the engine takes; all batches in it share one engine.
        profiles: how one engine serves the shapes of the load; None gives each shape an engine.
        builder_optimization_level: 0 to 5; higher levels of TensorRT's builder search longer.
        max_aux_streams: most auxiliary CUDA streams of one inference.
        tiling: none, fast, moderate or full: effort of the builder's search for tilings.
        sparsity: ``enable`` lets the builder use weights that are 2:4 sparse; ``force`` prunes the weights to be so.
        workspace_mib: most scratch memory of a layer, MiB.
        timing_cache: False builds without the tactic timings that builds on one machine share.
        tactic_sources: sources of implementations that the builder may take, joined by +; ``none`` forbids all.
        max_tactics: most implementations that the builder times for a layer.
        tiling_l2_limit_kib: most L2 cache that a tiling may count on, KiB.
        preview_features: features of the library that are off by default, joined by +.
        build_route: route through the builder, by the library's name of it.
        io_format: layout in memory of the inputs and outputs that have four dimensions.
        profiling_verbosity: detailed, layer_names_only or none: layer information that the engine keeps.
        version_compatible: later versions of the library can run the engine.
        hardware_compatibility: none, ampere_plus or same_compute_capability: other GPUs that can run the engine.
        refit: the engine's weights can be replaced after the build.
        weight_streaming: the engine can stream its weights from host memory (see ``SessionAxes``).
        plugins: shared libraries with layers that TensorRT lacks.
        mps_build: active thread percentage under which the engine is built; None builds with the whole GPU.
        compute_capability: compute capability of the GPUs that the engine is built for; None leaves that to the
            library.
        plan: the engine itself, built elsewhere; None builds one. All that decides a build is then as it was built.
    """

    batch: int = axis(
        1,
        key="batch",
        help="batch size, samples per inference",
        check=at_least(1),
        word=prefixed("b"),
        place=2,
        trtexec=SPECIAL,
    )
    profile: Profile | None = axis(
        None,
        key="profile",
        help="static: one engine per batch size; range: one engine for all from range.least to range.most",
        cli_default="static",
        hint=str,
        check=one_of("static", "range"),
        word=prefixed("profile"),
        overrides=_profile_overrides,
        trtexec=SPECIAL,
    )
    profiles: ShapeProfiles | None = axis(
        None,
        key="profiles",
        help=(
            "how the shapes of load.shapes are served: per_engine: an engine each; range: one engine, one profile over "
            "all sizes; per_shape: one engine, a profile each"
        ),
        cli_default=PER_ENGINE,
        hint=str,
        check=one_of(*WAYS),
        word=lambda profiles: f"profiles-{profiles_cell(profiles)}",
        cell=profiles_cell,
        overrides=lambda profiles: {"profiles": profiles_cell(profiles)},
        trtexec=TrtexecFlag(note="it runs one shape; these flags build an engine for that shape alone"),
    )
    builder_optimization_level: int | None = axis(
        None,
        key="backend.builder_optimization_level",
        help="TensorRT: optimization level of the builder, 0 to 5; higher levels search longer",
        check=between(0, _MOST_OPTIMIZED, f"0 to {_MOST_OPTIMIZED}"),
        word=prefixed("opt"),
        trtexec=TrtexecFlag(build=flag("--builderOptimizationLevel")),
    )
    max_aux_streams: int | None = axis(
        None,
        key="backend.max_aux_streams",
        help="TensorRT: most auxiliary CUDA streams of one inference",
        check=at_least(0),
        word=prefixed("aux"),
        trtexec=TrtexecFlag(build=flag("--maxAuxStreams")),
    )
    tiling: str | None = axis(
        None,
        key="backend.tiling",
        help="TensorRT: effort of the search for tilings: none, fast, moderate or full",
        check=one_of(*_TILINGS),
        word=prefixed("tiling-"),
        trtexec=TrtexecFlag(build=flag("--tilingOptimizationLevel", _TILINGS.index)),
    )
    sparsity: str | None = axis(
        None,
        key="backend.sparsity",
        help="TensorRT: enable uses weights that are 2:4 sparse; force prunes the weights to be so",
        check=one_of("enable", "force"),
        word=prefixed("sparsity-"),
        trtexec=TrtexecFlag(build=flag("--sparsity")),
    )
    workspace_mib: int | None = axis(
        None,
        key="backend.workspace_mib",
        help="TensorRT: most scratch memory of a layer, MiB",
        check=at_least(1),
        word=prefixed("workspace"),
        trtexec=TrtexecFlag(build=flag("--memPoolSize", "workspace:{}M".format)),
    )
    timing_cache: bool | None = axis(
        None,
        key="backend.timing_cache",
        help="TensorRT: false builds without the tactic timings that builds on one machine share",
        word=prefixed("timing-cache-"),
        trtexec=SPECIAL,
    )
    tactic_sources: str | None = axis(
        None,
        key="backend.tactic_sources",
        help="TensorRT: sources of implementations that the builder may take, as cublas+cudnn, or none (null: its own)",
        check=joined_names,
        word=prefixed("tactics-"),
        trtexec=TrtexecFlag(
            note="--tacticSources adds to and takes from a default that versions do not share; set it by hand"
        ),
    )
    max_tactics: int | None = axis(
        None,
        key="backend.max_tactics",
        help="TensorRT: most implementations that the builder times for a layer (null: the library's choice)",
        check=at_least(1),
        word=prefixed("max-tactics"),
        trtexec=TrtexecFlag(build=flag("--maxTactics")),
    )
    tiling_l2_limit_kib: int | None = axis(
        None,
        key="backend.tiling_l2_limit_kib",
        help="TensorRT: most L2 cache that a tiling may count on, KiB (null: what the GPU has)",
        check=at_least(1),
        word=prefixed("l2-limit"),
        trtexec=TrtexecFlag(build=flag("--l2LimitForTiling", lambda kib: kib * 1024)),
    )
    preview_features: str | None = axis(
        None,
        key="backend.preview_features",
        help="TensorRT: features to enable that are off by default, their names joined by + (null: none)",
        check=joined_names,
        word=prefixed("preview-"),
        trtexec=TrtexecFlag(build=flag("--preview", lambda names: ",".join(f"+{name}" for name in names.split("+")))),
    )
    build_route: str | None = axis(
        None,
        key="backend.build_route",
        help="TensorRT 11: route through the builder, by the library's name of it (null: the library's choice)",
        word=prefixed("route-"),
        trtexec=TrtexecFlag(note="trtexec tries routes itself (--tuneBuildRoutes)"),
    )
    io_format: str | None = axis(
        None,
        key="backend.io_format",
        help="TensorRT: layout of inputs and outputs with four dimensions: linear, hwc8, chw32, ... (null: linear)",
        check=one_of(*FORMATS),
        word=prefixed("io-"),
        trtexec=TrtexecFlag(note="trtexec names type and layout of each tensor (--inputIOFormats, --outputIOFormats)"),
    )
    profiling_verbosity: str | None = axis(
        None,
        key="backend.profiling_verbosity",
        help="TensorRT: layer information kept in the engine: detailed, layer_names_only or none (null: detailed)",
        check=one_of("detailed", "layer_names_only", "none"),
        word=prefixed("verbosity-"),
        trtexec=SPECIAL,
    )
    version_compatible: bool | None = axis(
        None,
        key="backend.version_compatible",
        help="TensorRT: build an engine that later versions of the library can run",
        word=prefixed("version-compatible-"),
        trtexec=TrtexecFlag(build=switch("--versionCompatible"), rtx=False),
    )
    hardware_compatibility: str | None = axis(
        None,
        key="backend.hardware_compatibility",
        help="TensorRT: other GPUs that can run the engine: none, ampere_plus or same_compute_capability",
        check=one_of(*_HARDWARE),
        word=prefixed("hardware-"),
        trtexec=TrtexecFlag(
            build=flag("--hardwareCompatibilityLevel", lambda value: _HARDWARE.get(value, value)), rtx=False
        ),
    )
    refit: bool | None = axis(
        None,
        key="backend.refit",
        help="TensorRT: build an engine whose weights can be replaced later",
        word=prefixed("refit-"),
        trtexec=TrtexecFlag(build=switch("--refit")),
    )
    weight_streaming: bool | None = axis(
        None,
        key="backend.weight_streaming",
        help="TensorRT: build an engine that can stream its weights from host memory",
        word=prefixed("weight-streaming-"),
        trtexec=TrtexecFlag(run=switch("--allowWeightStreaming")),
    )
    plugins: tuple[Plugin, ...] | None = axis(
        None,
        key="backend.plugins",
        help="TensorRT: shared libraries of plugins to load",
        cli_default=[],
        hint=list[str],
        word=lambda plugins: f"plugins{len(plugins)}",
        cell=lambda plugins: "[]" if not plugins else ",".join(PurePath(str(_path(item))).name for item in plugins),
        overrides=lambda plugins: {"backend.plugins": [str(_path(item)) for item in plugins or ()]},
        trtexec=TrtexecFlag(run=lambda plugins: [f"--staticPlugins={_path(item)}" for item in plugins]),
    )
    mps_build: int | None = axis(
        None,
        key="mps_build",
        help="build the engine under the MPS share of mps too, instead of on the whole GPU",
        cli_default=False,
        hint=bool,
        word=prefixed("mps-build"),
        overrides=lambda share: {"mps_build": share is not None},
        trtexec=TrtexecFlag(note="a build from ONNX runs under the same share as the engine"),
    )
    compute_capability: str | None = axis(
        None,
        key="backend.compute_capability",
        help="TensorRT-RTX: compute capability of the GPUs that the engine is built for, as 8.9 (null: the library's)",
        check=compute_capability,
        word=prefixed("cc"),
        trtexec=TrtexecFlag(note="sweep sets it in the builder; load the engine that was timed"),
    )
    plan: BuiltPlan | None = axis(
        None,
        key="model.engine",
        help=(
            "TensorRT plan that was built elsewhere, timed as it is; model= or model.path= beside it names the fp32 "
            "reference (null: an engine is built)"
        ),
        hint=str | None,
        word=lambda plan: f"from-{_name(plan)}",
        cell=lambda plan: "null" if plan is None else _name(plan),
        overrides=lambda plan: {"model.engine": None if plan is None else str(_path(plan))},
        trtexec=SPECIAL,
    )
