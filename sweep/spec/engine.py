"""Axes of the engine: change one of these and it is built again."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - get_type_hints
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from sweep.spec.axis import SPECIAL, TrtexecFlag, axis, flag, prefixed, switch
from sweep.spec.base import NOT_IN_KEY
from sweep.spec.checks import at_least, between, one_of

_MOST_OPTIMIZED = 5
_TILINGS = ("none", "fast", "moderate", "full")  # in the order of TensorRT's levels
_HARDWARE = {  # name here -> name in trtexec
    "none": "none",
    "ampere_plus": "ampere+",
    "same_compute_capability": "sameComputeCapability",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Batch sizes that one engine takes: an optimisation profile over a range.

    Attributes:
        least: smallest batch.
        best: batch that the builder tunes for.
        most: largest batch.
    """

    least: int
    best: int
    most: int

    def __str__(self) -> str:
        """``1..8..32``, as tables show it."""
        return f"{self.least}..{self.best}..{self.most}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """A shared library of TensorRT plugins.

    Attributes:
        path: absolute path. Not in the key: ``digest`` is.
        digest: sha256 of the file.
    """

    path: str = field(metadata=NOT_IN_KEY)
    digest: str


def _profile_overrides(profile: Profile | None) -> Mapping[str, Any]:
    """Return the keys that ask for `profile`; None is an engine that is static at the batch."""
    if profile is None:
        return {"profile": "static"}
    limits = {"range.least": profile.least, "range.best": profile.best, "range.most": profile.most}
    return {"profile": "range", **limits}


def _path(plugin: Any) -> Any:
    """Return the file of a plugin; records of the first releases hold the path alone."""
    return plugin["path"] if isinstance(plugin, dict) else getattr(plugin, "path", plugin)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineAxes:
    """Change one of these and the engine is built again.

    Attributes:
        batch: samples per inference; the engine's shapes are static at it unless ``profile`` is set.
        profile: the range of batch sizes that the engine takes; all batches in it share one engine.
        builder_optimization_level: 0 to 5, how hard TensorRT's builder searches.
        max_aux_streams: streams that one inference may fork into.
        tiling: none, fast, moderate or full: how hard the builder searches for tilings.
        sparsity: ``enable`` lets the builder use weights that are sparse 2:4; ``force`` makes them so first.
        workspace_mib: most scratch memory of a layer, MiB.
        timing_cache: False builds without the tactic timings that builds on one machine share.
        profiling_verbosity: detailed, layer_names_only or none: what the engine tells of its layers.
        version_compatible: the engine runs with later versions of the library too.
        hardware_compatibility: none, ampere_plus or same_compute_capability: other GPUs that the engine runs on.
        refit: the engine's weights can be replaced after the build.
        weight_streaming: the engine can leave weights on the host (``SessionAxes.weight_streaming_budget_mib``).
        plugins: shared libraries with the layers that the library lacks.
        mps_build: active thread percentage under which the engine is built; None builds with the whole GPU.
    """

    batch: int = axis(
        1,
        key="batch",
        help="samples per inference; the engine is built for it",
        check=at_least(1),
        word=prefixed("b"),
        place=2,
        trtexec=SPECIAL,
    )
    profile: Profile | None = axis(
        None,
        key="profile",
        help="static: an engine for each batch; range: one for all of range.least to range.most",
        cli_default="static",
        hint=str,
        check=one_of("static", "range"),
        word=prefixed("profile"),
        overrides=_profile_overrides,
        trtexec=SPECIAL,
    )
    builder_optimization_level: int | None = axis(
        None,
        key="backend.builder_optimization_level",
        help="TensorRT: 0 to 5, how hard its builder searches",
        check=between(0, _MOST_OPTIMIZED, f"0 to {_MOST_OPTIMIZED}"),
        word=prefixed("opt"),
        trtexec=TrtexecFlag(build=flag("--builderOptimizationLevel")),
    )
    max_aux_streams: int | None = axis(
        None,
        key="backend.max_aux_streams",
        help="TensorRT: streams that one inference may fork into",
        check=at_least(0),
        word=prefixed("aux"),
        trtexec=TrtexecFlag(build=flag("--maxAuxStreams")),
    )
    tiling: str | None = axis(
        None,
        key="backend.tiling",
        help="TensorRT: none, fast, moderate or full search for tilings",
        check=one_of(*_TILINGS),
        word=prefixed("tiling-"),
        trtexec=TrtexecFlag(build=flag("--tilingOptimizationLevel", _TILINGS.index)),
    )
    sparsity: str | None = axis(
        None,
        key="backend.sparsity",
        help="TensorRT: enable uses weights that are sparse 2:4, force prunes them to be",
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
        help="TensorRT: false builds without the tactic timings that builds share",
        word=prefixed("timing-cache-"),
        trtexec=SPECIAL,
    )
    profiling_verbosity: str | None = axis(
        None,
        key="backend.profiling_verbosity",
        help="TensorRT: detailed, layer_names_only or none (null: detailed)",
        check=one_of("detailed", "layer_names_only", "none"),
        word=prefixed("verbosity-"),
        trtexec=SPECIAL,
    )
    version_compatible: bool | None = axis(
        None,
        key="backend.version_compatible",
        help="TensorRT: the engine runs with later versions of the library too",
        word=prefixed("version-compatible-"),
        trtexec=TrtexecFlag(build=switch("--versionCompatible"), rtx=False),
    )
    hardware_compatibility: str | None = axis(
        None,
        key="backend.hardware_compatibility",
        help="TensorRT: none, ampere_plus or same_compute_capability",
        check=one_of(*_HARDWARE),
        word=prefixed("hardware-"),
        trtexec=TrtexecFlag(
            build=flag("--hardwareCompatibilityLevel", lambda value: _HARDWARE.get(value, value)), rtx=False
        ),
    )
    refit: bool | None = axis(
        None,
        key="backend.refit",
        help="TensorRT: the engine's weights can be replaced after the build",
        word=prefixed("refit-"),
        trtexec=TrtexecFlag(build=switch("--refit")),
    )
    weight_streaming: bool | None = axis(
        None,
        key="backend.weight_streaming",
        help="TensorRT: the engine can leave weights on the host",
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
        help="build the engine under the share of mps too, instead of the whole GPU",
        cli_default=False,
        hint=bool,
        word=prefixed("mps-build"),
        overrides=lambda share: {"mps_build": share is not None},
        trtexec=TrtexecFlag(note="a build from ONNX runs under the same share as the engine"),
    )
