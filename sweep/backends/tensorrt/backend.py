"""Implement the ``tensorrt`` and ``tensorrt_rtx`` backends: one implementation that runs with either library."""

from __future__ import annotations

import dataclasses
import json
import os
from typing import TYPE_CHECKING, ClassVar

from sweep.backends.tensorrt import (
    PLAN,
    build,
    builder_config,
    cuda,
    engine_inspector,
    isolated_build,
    layer_listing,
    library,
    plan_tensors,
    rtx_releases,
    sm_probe,
)
from sweep.backends.tensorrt.engine import Engine
from sweep.backends.tensorrt.gpu_allocator import BUILD, Ledger
from sweep.backends.tensorrt.pipeline import TensorRTPipelineSession
from sweep.backends.tensorrt.profiled_session import ProfiledSession, profile_of
from sweep.backends.tensorrt.session import TensorRTSession
from sweep.errors import BuildError, SessionError
from sweep.spec import RANGE, members_of
from sweep.system import environment as facts
from sweep.system import mps, regular_files, write_atomic

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np

    from sweep.backends.base import PipelinePart, ProfileLimits, Session, ShapesAt
    from sweep.backends.tensorrt.library import Library
    from sweep.spec import JsonDict, Shape, Variant

_BUILDER_CONFIG = (
    *("builder_optimization_level", "max_aux_streams", "tiling", "sparsity", "workspace_mib", "timing_cache"),
    *("tactic_sources", "max_tactics", "tiling_l2_limit_kib", "preview_features", "build_route", "io_format"),
    *("profiling_verbosity", "version_compatible", "hardware_compatibility", "refit", "weight_streaming", "plugins"),
)
_LAYERS_HIDDEN = (
    "the types are those of the strongly typed network, which the engine has to keep: with "
    "profiling_verbosity=layer_names_only or none it tells nothing of its layers"
)
_EXACT = ("fp32", "native")  # types whose products TF32 would shorten
_TF32_OVERRIDE = "NVIDIA_TF32_OVERRIDE"
_SESSION = (
    *("streams", "cuda_graph", "transfers", "wait", "weight_streaming_budget_mib"),
    *("context_memory", "persistent_cache_ratio", "profile_switch"),
)
_USER_MANAGED = "user_managed"
_SHARED = ("clients", "mps", "mps_build", "sm_count", "sharing", "beside")
_MOST_PLAN = 1 << 40  # bytes; a plan holds all weights


class TensorRT:
    """Provide the ``tensorrt`` backend: NVIDIA TensorRT 10.x and 11.x."""

    name: str = "tensorrt"
    honours = frozenset({"batch", "profile", "profiles", "plan", *_BUILDER_CONFIG, *_SESSION, *_SHARED})
    runs_models = True
    on_gpu = True
    times_tactics: ClassVar[bool] = True  # its builder measures on the GPU, and builds can share what they measured

    def missing(self) -> str | None:
        """Return what this machine lacks to run the library, in one line; None if nothing.

        Neither CUDA nor TensorRT is imported.
        """
        if not library.installed(self.name):
            return f"{self.name} is not installed; {library.INSTALL[self.name]}"
        if not cuda.installed():
            return "cuda-python is not installed; pip install 'cuda-python>=12.6'"
        if facts.machine()["gpu"] is None:
            return f"{self.name} runs on an NVIDIA GPU and none is seen here"
        return self.refusal()

    def refusal(self) -> str | None:
        """Return why the installed release cannot run on this GPU, in one line; None if it is not known to refuse."""
        return None

    def unsupported(self, variant: Variant) -> str | None:
        """Return what this machine lacks, in one line; an option that the library lacks shows only when it builds."""
        session = variant.session
        if session.mps is not None and session.sm_count is not None:
            return f"sm_count={session.sm_count} and mps={session.mps} both divide the GPU; set one"
        if session.profile_switch and session.cuda_graph:
            return (
                f"{self.name} captures no CUDA graph of a context that switches its profile (asked: "
                "profile_switch=true, cuda_graph=true): the graph would be that of one profile; profile_switch=false "
                "has a context for each"
            )
        profiles = variant.engine.profiles
        if session.context_memory == _USER_MANAGED and profiles and (profiles.way == RANGE or session.profile_switch):
            return (
                f"context_memory=user_managed gives a context the memory of one shape, and profiles={profiles.way} "
                "runs several on it; context_memory=on_profile_change or static serves them"
            )
        plan = variant.engine.plan
        if plan is not None and plan.library != self.name:
            return f"{plan} is a plan of {plan.built_by}, not of {self.name}; backend={plan.library} loads it"
        return self.missing() or (None if session.mps is None else mps.available())

    def environment(self, variant: Variant) -> dict[str, str]:
        """Return the variable that makes NVIDIA's libraries leave TF32 alone, for fp32 and for what a file has of it.

        Clearing the builder's TF32 flag is not enough: on an H200, TensorRT-RTX 1.6 gave bit-identical outputs with the
        flag set and cleared, 40 to 61 dB from the fp32 reference, and 78 to 106 dB with this variable. A plan that was
        built elsewhere runs as it would anywhere else.
        """
        if variant.pipeline is not None:
            stages = [stage for stage in variant.pipeline.stages if stage.model is not None]
            dtypes = {(stage.precision or variant.onnx.precision).dtype for stage in stages}
            return {_TF32_OVERRIDE: "0"} if dtypes & set(_EXACT) else {}
        shared = variant.session.shared
        members = members_of(variant) if shared is not None and shared.one_process else [variant]
        exact = [each for each in members if each.engine.plan is None and each.onnx.precision.dtype in _EXACT]
        return {_TF32_OVERRIDE: "0"} if exact else {}

    def facts(self) -> JsonDict:
        """Return library, GPU and driver versions, from package metadata and NVML."""
        version = library.version(self.name)
        machine = facts.machine()
        return {
            "tensorrt": None if version is None else f"{self.name} {version}",
            **{name: machine[name] for name in ("gpu", "compute_capability", "driver", "cuda")},
            "cuda_bindings": facts.version("cuda-bindings") or facts.module_version("cuda.bindings"),
        }

    def build(self, onnx: Path, variant: Variant, shapes: ShapesAt, target: Path) -> JsonDict:
        """Build an engine and write the types that it computes in beside it. Needs a GPU only for ``tensorrt``.

        If this process has an MPS share and the engine is not to be built under it, a separate process builds.

        Raises:
            UnsupportedError: the library is not installed, or lacks an option that is requested.
            BuildError: the library refused the graph; with its own last messages.
        """
        share, build_share = mps.share_of(os.environ), variant.engine.mps_build
        if share is not None and build_share is None:
            listed = [(batch, shape, _at(shapes, batch, shape)) for batch, shape in _shapes_asked(variant)]
            return isolated_build.build(onnx, variant, listed, target)
        if share != build_share:
            raise BuildError(f"mps_build={build_share}: this process has {share or 'no'} MPS share to build under")
        nvidia = library.load(self.name)
        tf32 = variant.onnx.precision.dtype == "tf32"
        timing = self._timing_cache(nvidia, target, share) if self.times_tactics else None
        ledger = None if self.missing() else Ledger(cuda.get(), (BUILD,))
        plan, network_facts = build.build_serialized(
            nvidia,
            onnx,
            variant.engine,
            _profiles(variant, shapes),
            tf32=tf32,
            aids=build.BuildAids(timing=timing, ledger=ledger),
        )
        information = self._evidence(nvidia, plan)
        layer_types = engine_inspector.count_layer_types(information)
        write_atomic(target / PLAN, plan, durable=False)
        write_atomic(target / engine_inspector.FILE, json.dumps(information, indent=1).encode(), durable=False)
        return {
            **network_facts,
            "precision": layer_types or network_facts["network"],
            "evidence": information["source"] if layer_types else "network",
            "artifacts": [engine_inspector.FILE],
            "build_sm_count": sm_probe.process_sm_count() if share is not None else None,
        }

    def import_plan(self, content: bytes, variant: Variant, target: Path) -> JsonDict:
        """Load a plan that was built elsewhere, and write it and what the inspector tells of it into ``target``.

        Raises:
            SessionError: the library refused the plan; with its own last messages.
            UnsupportedError: the library is not installed, or a tensor of the plan cannot be fed or read.
        """
        nvidia = library.load(self.name)
        _load_plugins(nvidia, variant)
        plan = variant.engine.plan
        try:
            loaded = Engine(nvidia, content)  # held to the end, for the runtime has to outlive the engine
        except SessionError as error:
            built_by = "an unknown library" if plan is None else plan.built_by
            machine = facts.machine()
            gpu = f"{machine['gpu']}, compute capability {machine['compute_capability']}"
            raise SessionError(f"{plan}, built by {built_by}, does not load on {gpu}: {error}") from error
        tensors = plan_tensors.read_tensors(nvidia, loaded.engine)
        information = engine_inspector.inspect_engine(nvidia, loaded.engine)
        write_atomic(target / PLAN, content, durable=False)
        write_atomic(target / engine_inspector.FILE, json.dumps(information, indent=1).encode(), durable=False)
        return {
            **tensors,
            "precision": engine_inspector.count_layer_types(information),
            "evidence": information["source"],
            "tf32": None,
            "artifacts": [engine_inspector.FILE],
            "build_sm_count": None,
        }

    def _evidence(self, nvidia: Library, plan: bytes) -> JsonDict:
        listing = nvidia.log.listing
        sources = [] if listing is None else [engine_inspector.parse_listing(listing)]
        if self.missing() is None:
            sources.insert(0, engine_inspector.inspect_engine(nvidia, Engine(nvidia, plan).engine))
        return engine_inspector.select_best(sources)

    def _timing_cache(self, nvidia: Library, target: Path, share: int | None) -> Path:
        """Return the timing cache beside the engines: one per library version, GPU and MPS share of the build."""
        machine = facts.machine()
        parts = (nvidia.label, machine["gpu"], machine["compute_capability"])
        name = "-".join(str(part).replace(" ", "_") for part in parts)
        return target.parent / f"timing-{name}{'' if share is None else f'-mps{share}'}.bin"

    def load(self, engine: Path, info: JsonDict, variant: Variant, feeds: Mapping[str, np.ndarray]) -> TensorRTSession:
        """Create one execution context per stream; each has run before this returns.

        Raises:
            SessionError: the engine could not be loaded or run.
            UnsupportedError: it cannot be captured as a CUDA graph, or ``sm_count`` SMs are not available.
        """
        nvidia = library.load(self.name)
        _load_plugins(nvidia, variant)
        plan = regular_files.read_bytes(engine / PLAN, follow=False, most=_MOST_PLAN)
        profiles = variant.engine.profiles
        profile = 0 if profiles is None else profile_of(profiles, len(profiles.shapes) - 1)
        session = TensorRTSession(nvidia, plan, variant.session, feeds, engine, profile)
        return self._described(session, info)

    def load_shapes(
        self, engine: Path, info: JsonDict, variant: Variant, feeds: Sequence[Mapping[str, np.ndarray]]
    ) -> list[Session]:
        """Create the contexts of all shapes of one engine; each shape has run before this returns.

        Raises:
            SessionError: the engine could not be loaded or run.
            UnsupportedError: a shape cannot be captured as a CUDA graph, or ``sm_count`` SMs are not available.
        """
        nvidia = library.load(self.name)
        _load_plugins(nvidia, variant)
        plan = regular_files.read_bytes(engine / PLAN, follow=False, most=_MOST_PLAN)
        profiles = variant.engine.profiles
        assert profiles is not None  # noqa: S101 - the caller has several shapes for one engine; tells mypy
        session = ProfiledSession(nvidia, plan, variant.session, feeds, engine, profiles)
        self._described(session, info)
        return session.views()

    def _described(self, session: TensorRTSession, info: JsonDict) -> TensorRTSession:
        """Add to what a session says of itself what the build of its engine said."""
        session.realised |= {key: info[key] for key in ("precision", "evidence", "tf32")}
        if info["evidence"] == "network":
            session.realised["notes"].append(_LAYERS_HIDDEN)
        session.realised["tf32_override"] = os.environ.get(_TF32_OVERRIDE)
        session.realised["build_sm_count"] = info.get("build_sm_count")
        return session

    def load_pipeline(
        self, parts: Sequence[PipelinePart], variant: Variant, externals: Mapping[str, np.ndarray]
    ) -> TensorRTPipelineSession:
        """Load the engine of each stage, and create contexts of all of them for each stream.

        Raises:
            SessionError: a stage could not be loaded or run; the message names it.
            UnsupportedError: a stage cannot be captured as a CUDA graph, or ``sm_count`` SMs are not available.
        """
        nvidia = library.load(self.name)
        _load_plugins(nvidia, variant)
        plans = [
            None if part.engine is None else regular_files.read_bytes(part.engine / PLAN, follow=False, most=_MOST_PLAN)
            for part in parts
        ]
        session = TensorRTPipelineSession(nvidia, plans, parts, variant, externals)
        for realised in (session.realised, *session.realised["stages"].values()):
            realised["tf32_override"] = os.environ.get(_TF32_OVERRIDE)
        return session

    def profile_layers(
        self,
        engine: Path,
        info: JsonDict,
        variant: Variant,
        feeds: Mapping[str, np.ndarray],
        onnx: Path | None,
        limits: ProfileLimits,
    ) -> JsonDict:
        """Time the layers of the engine on one stream, and join them to the engine's listing and its nodes.

        Raises:
            SessionError: the engine cannot be loaded or run, or no layer can be timed.
        """
        import onnx as onnx_library

        alone = dataclasses.replace(variant, session=dataclasses.replace(variant.session, streams=1))
        session = self.load(engine, info, alone, feeds)
        try:
            information = engine_inspector.select_best([session.listing, _stored_listing(engine)])
            fields, times = session.profile_layers(limits)
        finally:
            session.close()
        graph = None if onnx is None else onnx_library.load(onnx, load_external_data=False).graph
        layers = layer_listing.describe_layers(information, graph)
        layers, notes = layer_listing.with_times(layers, times)
        return {**fields, "layers": layers, "notes": [*fields["notes"], *notes]}

    def mismatch(self, variant: Variant, realised: JsonDict) -> str | None:
        """Compare contexts, CUDA graph, layer types, builder options and SMs with the request.

        Returns:
            The first difference in one line; None if there is none.
        """
        return (
            engine_inspector.mismatch(variant, realised)
            or builder_config.mismatch(variant.engine, realised["knobs"])
            or sm_probe.mismatch(variant, realised)
        )


class TensorRTRTX(TensorRT):
    """Provide the ``tensorrt_rtx`` backend, which builds on any machine and compiles when a context is created."""

    name = "tensorrt_rtx"
    # It times no tactics, and lacks a lean runtime.
    honours = (TensorRT.honours - {"timing_cache", "version_compatible"}) | {"compute_capability"}
    times_tactics = False

    def unsupported_build(self, variant: Variant) -> str | None:
        """Return why the engine cannot be built here, in one line; its builder needs no GPU unless a share is asked."""
        if not library.installed(self.name):
            return self.missing()
        if variant.engine.mps_build is not None:
            return self.unsupported(variant)
        return None

    def refusal(self) -> str | None:
        """Return that the installed release loads no engine on this GPU, and which one does; None if it does."""
        return rtx_releases.refusal(library.version(self.name), facts.machine()["compute_capability"])


def _stored_listing(engine: Path) -> JsonDict:
    """Return the listing that was stored beside the engine when it was built; an empty one without it."""
    path = engine / engine_inspector.FILE
    if not path.is_file():
        return {"source": None, "Layers": []}
    listing: JsonDict = json.loads(regular_files.read_bytes(path, follow=False, most=_MOST_PLAN), strict=False)
    return listing


def _load_plugins(nvidia: Library, variant: Variant) -> None:
    if variant.engine.plugins:
        builder_config.load_plugins(nvidia, tuple(plugin.path for plugin in variant.engine.plugins))


def _batches(variant: Variant) -> tuple[int, int, int]:
    """Return the smallest, optimal and largest batch of the engine, in samples."""
    profile, batch = variant.engine.profile, variant.engine.batch
    return (batch, batch, batch) if profile is None else (profile.least, profile.best, profile.most)


def _limits(variant: Variant) -> list[list[tuple[int, Shape | None]]]:
    """Return batch and sizes of the smallest, optimal and largest shape of each profile of the engine."""
    profiles = variant.engine.profiles
    if profiles is None:
        return [[(batch, None) for batch in _batches(variant)]]
    return [[(variant.engine.batch, shape) for shape in limits] for limits in profiles.limits]


def _shapes_asked(variant: Variant) -> list[tuple[int, Shape | None]]:
    """Return each batch with each shape at which the build needs the shapes of the inputs, once."""
    return list(dict.fromkeys(point for limits in _limits(variant) for point in limits))


def _profiles(variant: Variant, shapes: ShapesAt) -> Sequence[build.ProfileShapes]:
    """Return the smallest, optimal and largest shape of each input in each profile."""
    profiles = []
    for limits in _limits(variant):
        least, best, most = (_at(shapes, batch, shape) for batch, shape in limits)
        profiles.append({name: (least[name], best[name], most[name]) for name in best})
    return profiles


def _at(shapes: ShapesAt, batch: int, shape: Shape | None) -> Mapping[str, tuple[int, ...]]:
    """Return the shapes of the inputs at a batch, and at other sizes where there are some."""
    return shapes(batch) if shape is None else shapes(batch, shape)
