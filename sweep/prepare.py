"""What a pass needs, from the cache or made: model -> typed ONNX -> engine, and the outputs of fp32."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sweep import accuracy, axes, calibration, callables, models, scoring, typed_onnx
from sweep.backends.base import Emulates
from sweep.cache import MANIFEST, Cache, Entry
from sweep.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sweep.axes import JsonDict, ModelRef, Variant
    from sweep.backends.base import Backend

MODEL_FILE = "model.onnx"
REFERENCE_FILE = "outputs.npz"
RANDOM = "seeded random"
TRAINING = "training data"
_SAME_DB = 90.0  # two fp32 graphs of the same function on one machine
_SCORED_TOGETHER = 32
_OUTLIVED = ("driver", "cuda")  # facts of a backend whose change leaves its engines valid


def model_file(variant: Variant, cache: Cache) -> Path:
    """The fp32 ONNX: a user's own file as it is, or the zoo's network from the cache; pruned if that is asked for."""
    dense = _dense_file(variant, cache)
    if variant.onnx.prune is None:
        return dense

    def build(folder: Path) -> JsonDict:
        return {"pruned": typed_onnx.prune(dense, folder / MODEL_FILE)}

    key = axes.digest("pruned", variant.onnx.prune, variant.onnx.model)
    return cache.get("models", key, build).path / MODEL_FILE


def model_facts(variant: Variant, source: Path, cache: Cache) -> JsonDict:
    """What the record says of the network: {parameters, gmacs, opset, opset_of_file, made_from}.

    ``gmacs`` is None where a graph cannot be counted; the file's own opset stands where it was upgraded.
    """
    model = variant.onnx.model
    signature = models.signature(model)

    def build(_: Path) -> JsonDict:
        counted = models.cost(source, {spec.name: spec.concrete(1) for spec in signature.inputs})
        return {**counted.plain(), "opset": models.opset(source)}

    shapes = [(spec.name, spec.concrete(1)) for spec in signature.inputs]
    key = axes.digest("cost", models.COST_REVISION, _content(source), shapes, importlib.metadata.version("onnx"))
    found = cache.get("costs", key, build, {"model": model.name}).info
    return {**found, "opset_of_file": _too_old(model), "made_from": model.made_from}


def _dense_file(variant: Variant, cache: Cache) -> Path:
    model = variant.onnx.model
    if model.path is not None and (_too_old(model) or models.feeds_weights(Path(model.path))):
        return _upgraded_file(model, cache)
    if model.path is not None:
        return models.resolve(model, cache.root)

    def build(folder: Path) -> JsonDict:
        models.resolve(model, folder / MODEL_FILE)
        return {"model": model.name, "revision": model.revision}

    return cache.get("models", model_key(model), build, {"model": model.name}).path / MODEL_FILE


def _too_old(model: ModelRef) -> int | None:
    """The opset of a user's file where it has to be upgraded."""
    found = None if model.path is None else models.opset(Path(model.path))
    return found if found is not None and found < models.LEAST_OPSET else None


def _upgraded_file(model: ModelRef, cache: Cache) -> Path:
    """The file in a later opset, its weights no inputs, once it is seen to give the same outputs."""

    def build(folder: Path) -> JsonDict:
        own, target = models.resolve(model, folder), folder / MODEL_FILE
        models.upgrade(own, target)
        feeds = models.draw(models.signature(model), 1, 0)
        found = accuracy.errors(accuracy.run(own, feeds), accuracy.run(target, feeds))
        if found["nonfinite"] or (found["sqnr_db"] is not None and found["sqnr_db"] < _SAME_DB):
            raise ModelError(
                f"{model.path} changes its outputs when onnx.version_converter upgrades it to opset "
                f"{models.LEAST_OPSET}; export it again with that opset or a later one"
            )
        return {}

    key = axes.digest("upgraded", models.LEAST_OPSET, model.digest, importlib.metadata.version("onnx"))
    return cache.get("models", key, build, {"model": model.name}).path / MODEL_FILE


def passed_file(variant: Variant, source: Path, cache: Cache) -> tuple[Path, JsonDict]:
    """The graph after the pass that was asked for, and what the record says of it; ``source`` for none."""
    asked = variant.onnx.graph
    if asked is None:
        return source, {}

    def build(folder: Path) -> JsonDict:
        own = None if asked.name == typed_onnx.SIMPLIFY else callables.load("graph", asked.name, asked.digest)
        return typed_onnx.transform(source, asked.name, own, folder / MODEL_FILE)

    about = {"model": variant.onnx.model.name, "precision": f"fp32, {asked.name}"}
    key = axes.digest("graph", asked, variant.onnx.model, variant.onnx.prune, *_pass_tools(variant))
    entry = cache.get("models", key, build, about)
    return entry.path / MODEL_FILE, {
        "graph_pass": {"name": asked.name, "key": entry.path.name, **entry.info, "pass_s": entry.seconds}
    }


def _pass_tools(variant: Variant) -> list[str]:
    """Versions of what a pass is made with, where it is one that comes with `sweep`."""
    asked = variant.onnx.graph
    simplifies = asked is not None and asked.name == typed_onnx.SIMPLIFY
    return [importlib.metadata.version("onnxslim")] if simplifies else []


def model_key(model: ModelRef) -> str:
    """Key of the zoo's network in the cache."""
    return axes.digest("model", model.name, model.revision)


def typed_file(variant: Variant, source: Path, cache: Cache) -> Path:
    """The ONNX whose types are the precision; fp32 is the source itself, once its types are seen to be so."""
    return converted_file(variant, source, cache)[0]


def converted_file(variant: Variant, source: Path, cache: Cache) -> tuple[Path, JsonDict]:
    """As ``typed_file``, and what the record says of the conversion, see ``Record.engine``."""
    precision = variant.onnx.precision
    if typed_onnx.passes_through(precision):
        typed_onnx.check_label(source, precision)
        return source, {}

    def build(folder: Path) -> JsonDict:
        converted = typed_onnx.convert(source, precision, calibration_batches(variant), folder / MODEL_FILE)
        told = {"notes": list(converted.notes), "guarded": list(converted.guarded), "samples": converted.samples}
        return {"dtypes": converted.dtypes, **told}

    about = {"model": variant.onnx.model.name, "precision": precision.name}
    entry = cache.get("onnx", onnx_cache_key(variant), build, about)
    told = {"onnx_notes": entry.info["notes"], "guarded": entry.info.get("guarded", [])}
    told["calibration"] = _calibration_facts(variant, entry.info.get("samples", 0))
    return entry.path / MODEL_FILE, {"convert_s": entry.seconds, "onnx_bytes": entry.bytes, **told}


def _calibration_facts(variant: Variant, samples: int) -> JsonDict | None:
    """What ranges were drawn from; None where none were drawn."""
    if not samples:
        return None
    data, method = variant.onnx.calibration, variant.onnx.precision.calibration_method
    random = RANDOM if models.held_out(variant.onnx.model) is None else TRAINING
    source = random if data is None else data.source
    return {"source": source, "digest": data and data.digest, "samples": samples, "method": method or "max"}


def onnx_cache_key(variant: Variant) -> str:
    """Key of the typed ONNX in the cache: what was asked, and the converters that made it."""
    tools = {name: importlib.metadata.version(name) for name in typed_onnx.TOOLS}
    others = [typed_onnx.modelopt_versions()] if variant.onnx.precision.tool == "modelopt" else []
    return axes.digest(axes.onnx_key(variant), typed_onnx.REVISION, tools, *_pass_tools(variant), *others)


def emulated_file(variant: Variant, typed: Path, cache: Cache) -> Path:
    """The typed graph in float32, rounded explicitly wherever it holds 16 bits."""

    def build(folder: Path) -> JsonDict:
        return {"rounded": typed_onnx.emulate(typed, folder / MODEL_FILE)}

    about = {"model": variant.onnx.model.name, "precision": f"{variant.onnx.precision.name}, emulated"}
    return cache.get("onnx", axes.digest("emulated", onnx_cache_key(variant)), build, about).path / MODEL_FILE


def calibration_batches(variant: Variant) -> list[dict[str, np.ndarray]]:
    """The user's own, else training data where the network has some, else seeded random ones; never what is timed."""
    model, count = variant.onnx.model, variant.onnx.precision.calibration_batches or 0
    if variant.onnx.calibration is not None:
        return list(calibration.batches(variant.onnx.calibration, models.signature(model), count))
    return models.calibration(model, calibration.SAMPLES, count)


def build_engine(variant: Variant, backend: Backend, typed: Path, cache: Cache) -> Entry:
    """The engine from the cache, built if it is not there; library versions are part of its key."""
    signature = models.signature(variant.onnx.model)
    built_from = emulated_file(variant, typed, cache) if emulation(variant, backend) == "engine" else typed

    def shapes(batch: int) -> dict[str, tuple[int, ...]]:
        return {spec.name: spec.concrete(batch) for spec in signature.inputs}

    return cache.get(
        "engines",
        engine_cache_key(variant, backend, built_from),
        lambda folder: backend.build(built_from, variant, shapes, folder),
        _about_engine(variant, backend),
    )


def _about_engine(variant: Variant, backend: Backend) -> JsonDict:
    """What a person looking at the cache wants to know of an engine; it decides nothing."""
    facts, knobs = backend.facts(), axes.projection(variant.engine)
    return {
        "model": variant.onnx.model.name,
        "precision": variant.onnx.precision.name,
        "batch": knobs.pop("batch", None),
        "knobs": knobs,
        "library": facts.get("tensorrt") or f"{backend.name} {facts.get(backend.name, '')}".rstrip(),
    }


def engine_cache_key(variant: Variant, backend: Backend, typed: Path) -> str:
    """Key of the built engine: what was asked, of which graph and weights, by which library and processor.

    Args:
        variant: its engine axes.
        backend: builds it.
        typed: the typed ONNX, whose content counts and whose place does not.
    """
    from sweep import facts

    machine: dict[str, Any] = facts.machine()
    built_by = {name: value for name, value in backend.facts().items() if name not in _OUTLIVED}
    hardware = [machine[name] for name in ("cpu", "gpu", "compute_capability")]
    return axes.digest(axes.engine_key(variant), built_by, *hardware, _content(typed))


def emulation(variant: Variant, backend: Backend) -> str | None:
    """How the backend's fp16 and bf16 get their rounding: as ``Emulates.emulation``; None where it rounds itself."""
    return backend.emulation(variant) if isinstance(backend, Emulates) else None


def reference_outputs(
    variant: Variant, source: Path, feeds: Mapping[str, np.ndarray], cache: Cache
) -> dict[str, np.ndarray]:
    """Outputs of the fp32 graph for these inputs (``held.feeds``), computed once for all engines held against them."""

    def build(folder: Path) -> JsonDict:
        np.savez(folder / REFERENCE_FILE, **accuracy.run(source, feeds))  # type: ignore[arg-type]  # allow_pickle is none
        return {}

    drawn: tuple[Any, ...] = (variant.onnx.model.inputs, variant.engine.batch, variant.load.seed)
    if variant.load.labels is not None:
        drawn += tuple(hashlib.sha256(np.ascontiguousarray(feeds[name]).data).hexdigest() for name in sorted(feeds))
    key = axes.digest("reference", _content(source), *drawn, importlib.metadata.version("onnxruntime"))
    about = {"model": variant.onnx.model.name, "precision": "fp32", "batch": variant.engine.batch}
    with np.load(cache.get("references", key, build, about).path / REFERENCE_FILE, allow_pickle=False) as file:
        return dict(file)


def reference_score(
    variant: Variant, source: Path, scored: scoring.Held, cache: Cache, tell: Callable[[int], None]
) -> float:
    """Top-1 of the fp32 graph on samples that an engine was scored on, computed once for all batches and precisions."""

    def build(_: Path) -> JsonDict:
        return {"score": scoring.score(scored, _SCORED_TOGETHER, accuracy.runner(source), tell)}

    key = axes.digest("score", _content(source), scored.identity, importlib.metadata.version("onnxruntime"))
    found: float = cache.get("references", key, build, {"model": variant.onnx.model.name}).info["score"]
    return found


def _content(onnx: Path) -> Any:
    """What tells this graph and its weights from any other; of a file in the cache its manifest says it."""
    manifest = onnx.parent / MANIFEST
    return json.loads(manifest.read_bytes())["files"] if manifest.is_file() else models.file_digest(onnx)
