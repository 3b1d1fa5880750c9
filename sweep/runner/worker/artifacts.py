"""Make the files that a pass needs, or take them from the cache: model -> typed ONNX -> engine."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from sweep import models
from sweep import precision as typed_onnx
from sweep import spec as axes
from sweep.backends import SupportsEmulation, registry
from sweep.models.datasets import calibration
from sweep.runner.worker import kept_node_search, plan_import, reference
from sweep.runner.worker.artifact_keys import (
    engine_cache_key,
    file_content,
    onnx_cache_key,
    pass_tools,
)
from sweep.runner.worker.events import Events
from sweep.runner.worker.model_files import MODEL_FILE, dense_file, model_facts, model_file
from sweep.system import environment, user_code

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from sweep.backends import Backend
    from sweep.spec import BuiltPlan, JsonDict, Variant
    from sweep.storage import Calibration, EngineInfo, GraphPassInfo, ModelCost, PlanInput
    from sweep.storage.cache import Cache, Entry

RANDOM = "seeded random"
TRAINING = "training data"


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxFiles:
    """Hold the graphs of a variant.

    Attributes:
        model: the fp32 graph, which outputs are compared with; that of a file in bfloat16 rounds explicitly.
        rewritten: that graph after the graph pass; `model` itself where there is none, or where the typed graph is a
            file of its own (``precision.path``).
        typed: the graph in the precision.
        model_is_typed: `model` rounds by itself, so that it is no fp32 reference.
        facts: facts of the pass and the conversion, as they stand in ``Record.engine``.
    """

    model: Path
    rewritten: Path
    typed: Path
    model_is_typed: bool
    facts: EngineInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifacts:
    """Hold everything that a pass of a variant is made of.

    Attributes:
        onnx: its graphs; None for a plan that came without a network.
        engine: the engine's entry in the cache.
        model: ``Record.model``; None for a plan that came without a network.
    """

    onnx: OnnxFiles | None
    engine: Entry
    model: ModelCost | None

    def engine_facts(self, variant: Variant) -> EngineInfo:
        """Return what ``Record.engine`` says of the engine before it is loaded."""
        facts: EngineInfo = {"key": self.engine.path.name}
        if variant.engine.plan is not None:
            facts["inputs"] = cast("list[PlanInput]", plan_import.described_inputs(variant, self.engine.info))
        elif self.onnx is not None:
            converted = not typed_onnx.passes_through(variant.onnx.precision)
            facts["onnx_key"] = self.onnx.typed.parent.name if converted else axes.onnx_key(variant)
        return {
            **facts,
            "build_s": None if variant.engine.plan else self.engine.seconds,
            "cached": self.engine.cached,
            "plan_digest": self.engine.content_digest if registry.get(variant.backend).runs_models else None,
            "bytes": self.engine.bytes,
            "device_memory_bytes": None,
            **({"build_memory": self.engine.info["build_memory"]} if "build_memory" in self.engine.info else {}),
            "artifacts": [
                f"artifacts/{self.engine.path.name}/{name}" for name in self.engine.info.get("artifacts", ())
            ],
        }


def make_artifacts(
    variant: Variant, backend: Backend, cache: Cache, events: Events | None = None, build: str | None = None
) -> Artifacts:
    """Make the graphs and the engine of `variant`, or take them from the cache.

    Args:
        variant: its ONNX and engine axes.
        backend: builds the engine.
        cache: keeps what is made.
        events: hears of each stage, and of the engine's key; None for nobody.
        build: name of an engine that is to be built afresh; None takes that of the cache.
    """
    events = events or Events()
    if variant.engine.plan is not None:
        return _plan_artifacts(variant, variant.engine.plan, backend, cache, events)
    events.stage("model")
    model = model_file(variant, cache)
    facts = model_facts(variant, model, cache)
    events.stage("onnx")
    onnx = make_onnx(variant, cache, model, lambda detail, done: events.stage("onnx", detail, done))
    events.stage("build")
    engine = build_engine(variant, backend, onnx.typed, cache, build)
    events.engine(engine.path.name)
    return Artifacts(onnx=onnx, engine=engine, model=facts)


def _plan_artifacts(variant: Variant, plan: BuiltPlan, backend: Backend, cache: Cache, events: Events) -> Artifacts:
    """Copy a plan that was built elsewhere into the cache, beside the reference that it is compared with, if any."""
    onnx = facts = None
    if variant.reference is not None:
        events.stage("model")
        model = model_file(variant, cache)
        facts = model_facts(variant, model, cache)
        is_typed = bool(_types(variant, model, cache)["typed"])
        onnx = OnnxFiles(model=model, rewritten=model, typed=model, model_is_typed=is_typed, facts={})
    events.stage("load")
    engine = plan_import.import_plan(variant, plan, backend, cache)
    events.engine(engine.path.name)
    return Artifacts(onnx=onnx, engine=engine, model=facts)


def make_onnx(
    variant: Variant, cache: Cache, model: Path | None = None, tell: Callable[[str, float], None] = lambda *_: None
) -> OnnxFiles:
    """Make the graphs of `variant`, or take them from the cache.

    Args:
        variant: its ONNX axes; where the recipe searches for nodes to keep, its inputs too.
        cache: keeps what is made.
        model: its fp32 graph where that is at hand.
        tell: called with what is done now and the share that is done, where it takes long.
    """
    model = model or model_file(variant, cache)
    if variant.onnx.precision.path is None:
        rewritten, pass_facts = passed_file(variant, model, cache)
        source = rewritten
    else:
        rewritten = model
        source, pass_facts = sibling_file(variant, cache)
    search_facts: EngineInfo = {}
    if variant.onnx.precision.search is not None:
        variant, info = kept_node_search.search_and_keep(_search_input(variant, model, rewritten, cache), cache, tell)
        search_facts = {"node_search": info}
    typed, conversion_facts = converted_file(variant, source, cache)
    types = _types(variant, model, cache)
    # onnxruntime, which computes the reference, has next to no kernels of bfloat16.
    compared = emulated_file(variant, model, cache) if types["dtypes"]["bf16"] else model
    return OnnxFiles(
        model=compared,
        rewritten=rewritten,
        typed=typed,
        model_is_typed=bool(types["typed"]),
        facts={**pass_facts, **conversion_facts, **search_facts},
    )


def sibling_file(variant: Variant, cache: Cache) -> tuple[Path, EngineInfo]:
    """Return the file of ``precision.path`` after the requested pass, and what the record says of the pass.

    Raises:
        ModelError: the file is no longer the one whose digest the recipe has.
    """
    precision = variant.onnx.precision
    ref = models.sibling_ref(variant.onnx.model, str(precision.path), variant.engine.batch)
    onnx = dataclasses.replace(variant.onnx, model=dataclasses.replace(ref, digest=precision.digest))
    sibling = dataclasses.replace(variant, onnx=onnx)
    return passed_file(sibling, dense_file(sibling, cache), cache)


def _search_input(variant: Variant, model: Path, source: Path, cache: Cache) -> kept_node_search.SearchInput:
    size = _fixed_batch(variant, source, cache) or calibration.SAMPLES
    return kept_node_search.SearchInput(
        variant=variant,
        model=model,
        source=source,
        batches=lambda: calibration_batches(variant, size),
        name=_name(variant, source),
        emulated=emulation(variant, registry.get(variant.backend)) is not None,
    )


def _types(variant: Variant, onnx: Path, cache: Cache) -> JsonDict:
    """Return what a graph holds: {typed: it rounds by itself, dtypes: number of compute nodes by type}."""

    def build(_: Path) -> JsonDict:
        return {"typed": typed_onnx.is_typed(onnx), "dtypes": typed_onnx.count_compute_types(onnx)}

    key = axes.digest("types", typed_onnx.REVISION, file_content(onnx), environment.library_version("onnx"))
    return cache.get("costs", key, build, {"model": variant.onnx.model.name}).info


def passed_file(variant: Variant, source: Path, cache: Cache) -> tuple[Path, EngineInfo]:
    """Return the graph after the requested pass, and what the record says of it; `source` for none."""
    graph_pass = variant.onnx.graph
    if graph_pass is None:
        return source, {}

    def build(folder: Path) -> JsonDict:
        function = None
        if graph_pass.name != typed_onnx.SIMPLIFY:
            function = user_code.load("graph", graph_pass.name, graph_pass.digest)
        return typed_onnx.transform(source, graph_pass.name, function, folder / MODEL_FILE)

    about = {"model": variant.onnx.model.name, "precision": f"fp32, {graph_pass.name}"}
    key = axes.digest("graph", graph_pass, variant.onnx.model, variant.onnx.prune, *pass_tools(variant))
    entry = cache.get("models", key, build, about)
    info = {"name": graph_pass.name, "key": entry.path.name, **entry.info, "pass_s": entry.seconds}
    return entry.path / MODEL_FILE, {"graph_pass": cast("GraphPassInfo", info)}  # a cast, as in ``model_facts``


def converted_file(variant: Variant, source: Path, cache: Cache) -> tuple[Path, EngineInfo]:
    """Return the ONNX in the precision, and what ``Record.engine`` says of the conversion.

    fp32 is `source` itself, once its types are seen to be so; native is `source` whatever its types.
    """
    precision = variant.onnx.precision
    if precision.dtype == typed_onnx.NATIVE:
        return source, {"dtypes": _types(variant, source, cache)["dtypes"]}
    if typed_onnx.passes_through(precision):
        typed_onnx.check_label(source, precision, name=_name(variant, source))
        return source, {}

    def build(folder: Path) -> JsonDict:
        batches = calibration_batches(variant, size or calibration.SAMPLES)
        converted = typed_onnx.convert(source, precision, batches, folder / MODEL_FILE, _name(variant, source))
        facts = {"notes": list(converted.notes), "guarded": list(converted.guarded_nodes), "samples": converted.samples}
        return {"dtypes": converted.compute_types, **facts}

    about = {"model": variant.onnx.model.name, "precision": precision.name}
    size = _fixed_batch(variant, source, cache)
    key = onnx_cache_key(variant)
    entry = cache.get("onnx", key if size is None else axes.digest(key, "calibrated at", size), build, about)
    return entry.path / MODEL_FILE, {
        "convert_s": entry.seconds,
        "onnx_bytes": entry.bytes,
        "onnx_notes": entry.info["notes"],
        "guarded": entry.info.get("guarded", []),
        "calibration": _calibration_facts(variant, entry.info.get("samples", 0)),
    }


def _name(variant: Variant, source: Path) -> str:
    """Return the name of the user's own file, of which the source may be a copy in the cache."""
    path = variant.onnx.precision.path or variant.onnx.model.path
    return source.name if path is None else Path(path).name


def _fixed_batch(variant: Variant, source: Path, cache: Cache) -> int | None:
    """Return the batch to calibrate at where a file does not take 8 samples; None where it does, or nothing calibrates.

    A Reshape may bake one batch into a file whose inputs declare any. It takes that of the variant, or nothing runs.
    """
    model, data, batch = variant.onnx.model, variant.onnx.calibration, variant.engine.batch
    calibrates = variant.onnx.precision.calibration_batches is not None and not (data and data.kind == "function")
    network = models.signature(model)
    batched = any(spec.batch_axis is not None for spec in network.inputs)
    if model.path is None or not calibrates or not batched or batch == calibration.SAMPLES:
        return None

    def build(_: Path) -> JsonDict:
        try:
            reference.run(source, models.calibration(model, calibration.SAMPLES, 1)[0])
        except Exception:  # noqa: BLE001 - onnxruntime raises types of its C++ module; the conversion meets any other fault again
            return {"takes": False}
        return {"takes": True}

    shapes = [(spec.name, spec.concrete(calibration.SAMPLES)) for spec in network.inputs]
    version = environment.library_version("onnxruntime")
    key = axes.digest("takes", file_content(source), shapes, model.inputs, version)
    return None if cache.get("costs", key, build, {"model": model.name}).info["takes"] else batch


def _calibration_facts(variant: Variant, samples: int) -> Calibration | None:
    """Return what ranges were drawn from; None where none were drawn."""
    if not samples:
        return None
    data, method = variant.onnx.calibration, variant.onnx.precision.calibration_method
    random = RANDOM if models.held_out(variant.onnx.model) is None else TRAINING
    source, digest = (random, None) if data is None else (data.source, data.digest)
    return {"source": source, "digest": digest, "samples": samples, "method": method or "max"}


def emulated_file(variant: Variant, typed: Path, cache: Cache) -> Path:
    """Return the typed graph in float32, rounded explicitly wherever it holds 16 bits."""

    def build(folder: Path) -> JsonDict:
        return {"rounded": typed_onnx.emulate(typed, folder / MODEL_FILE)}

    about = {"model": variant.onnx.model.name, "precision": f"{variant.onnx.precision.name}, emulated"}
    key = axes.digest("emulated", typed_onnx.REVISION, file_content(typed))
    return cache.get("onnx", key, build, about).path / MODEL_FILE


def calibration_batches(variant: Variant, size: int = calibration.SAMPLES) -> list[dict[str, np.ndarray]]:
    """Return batches to calibrate with: the user's own, else training data, else seeded random.

    They are never what is timed, unless samples of the user are too few to be set apart.

    Args:
        variant: its recipe says how many batches of 8 samples there are at most.
        size: samples in a batch; another size than 8 gives as many samples in batches of that size.
    """
    model, count = variant.onnx.model, variant.onnx.precision.calibration_batches or 0
    if variant.onnx.calibration is not None:
        return list(calibration.batches(variant.onnx.calibration, models.signature(model), count, size))
    return models.calibration(model, size, math.ceil(count * calibration.SAMPLES / size))


def build_engine(variant: Variant, backend: Backend, typed: Path, cache: Cache, build: str | None = None) -> Entry:
    """Return the engine from the cache, built if it is not there; library versions are part of its key.

    Args:
        variant: its engine axes.
        backend: builds it.
        typed: the typed ONNX.
        cache: keeps it.
        build: name of an engine that is to be built afresh, part of the key too. It takes no tactic timings that
            earlier builds left behind, which would make it their copy.
    """
    model = variant.onnx.model
    emulates = emulation(variant, backend) == "engine" or emulates_native(variant, backend, typed, cache)
    built_from = emulated_file(variant, typed, cache) if emulates else typed

    def shapes(batch: int, shape: axes.Shape | None = None, /) -> dict[str, tuple[int, ...]]:
        at = model if shape is None else dataclasses.replace(model, shape=shape)
        return {spec.name: spec.concrete(batch) for spec in models.signature(at).inputs}

    key = engine_cache_key(variant, backend, built_from)
    to_build = variant
    if build is not None and "timing_cache" in backend.honours:
        to_build = dataclasses.replace(variant, engine=dataclasses.replace(variant.engine, timing_cache=False))
    return cache.get(
        "engines",
        key if build is None else axes.digest(key, "built afresh", build),
        lambda folder: backend.build(built_from, to_build, shapes, folder),
        _about_engine(variant, backend),
    )


def _about_engine(variant: Variant, backend: Backend) -> JsonDict:
    """Describe an engine for a person who looks at the cache; it decides nothing."""
    facts, knobs = backend.facts(), axes.projection(variant.engine)
    return {
        "model": variant.onnx.model.name,
        "precision": variant.onnx.precision.name,
        "batch": knobs.pop("batch", None),
        "knobs": knobs,
        "library": facts.get("tensorrt") or f"{backend.name} {facts.get(backend.name, '')}".rstrip(),
    }


def emulation(variant: Variant, backend: Backend) -> str | None:
    """Return how the backend emulates fp16 and bf16 (``SupportsEmulation.emulation``); None where it rounds itself."""
    return backend.emulation(variant) if isinstance(backend, SupportsEmulation) else None


def holds_bf16(variant: Variant, typed: Path, cache: Cache) -> bool:
    """Return whether a graph computes in bfloat16."""
    return bool(_types(variant, typed, cache)["dtypes"]["bf16"])


def emulates_native(variant: Variant, backend: Backend, typed: Path, cache: Cache) -> bool:
    """Return whether a file that is taken as it came holds bfloat16, for which an emulating backend has no kernels."""
    native = variant.onnx.precision.dtype == typed_onnx.NATIVE and isinstance(backend, SupportsEmulation)
    return native and holds_bf16(variant, typed, cache)
