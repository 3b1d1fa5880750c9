"""Axes of the engine: change one of these and it is built again."""

from __future__ import annotations

from dataclasses import dataclass, field

from sweep.spec.base import NOT_IN_KEY


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

    batch: int = 1
    profile: Profile | None = None
    builder_optimization_level: int | None = None
    max_aux_streams: int | None = None
    tiling: str | None = None
    sparsity: str | None = None
    workspace_mib: int | None = None
    timing_cache: bool | None = None
    profiling_verbosity: str | None = None
    version_compatible: bool | None = None
    hardware_compatibility: str | None = None
    refit: bool | None = None
    weight_streaming: bool | None = None
    plugins: tuple[Plugin, ...] | None = None
    mps_build: int | None = None
