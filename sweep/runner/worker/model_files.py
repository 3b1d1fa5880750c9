"""Give the fp32 graph of a variant: the zoo's or the user's, readable, in normal form, upgraded, pruned."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from sweep import models
from sweep import precision as typed_onnx
from sweep import spec as axes
from sweep.analysis import accuracy
from sweep.errors import ModelError
from sweep.models import evaluation
from sweep.runner.worker import reference
from sweep.runner.worker.artifact_keys import file_content, model_key, normal_form_key
from sweep.system import environment, one_line

if TYPE_CHECKING:
    from sweep.spec import JsonDict, ModelRef, Variant
    from sweep.storage import ModelCost
    from sweep.storage.cache import Cache

MODEL_FILE = "model.onnx"
_SAME_DB = 90.0  # two fp32 graphs of the same function on one machine


def model_file(variant: Variant, cache: Cache) -> Path:
    """Return the fp32 ONNX: a user's own file as it is, or the zoo's network from the cache; pruned if requested."""
    dense = dense_file(variant, cache)
    if variant.onnx.prune is None:
        return dense

    def build(folder: Path) -> JsonDict:
        return {"pruned": typed_onnx.sparsify(dense, folder / MODEL_FILE)}

    key = axes.digest("pruned", variant.onnx.prune, variant.onnx.model)
    return cache.get("models", key, build).path / MODEL_FILE


def loadable_file(variant: Variant, cache: Cache) -> Path:
    """Return the fp32 ONNX, or, where its upgrade to a later opset fails, the user's file in normal form."""
    try:
        return model_file(variant, cache)
    except ModelError:
        model = variant.onnx.model
        if model.path is None:
            raise
        return _normal_file(model, _readable_file(model, cache), cache)


def model_facts(variant: Variant, source: Path, cache: Cache) -> ModelCost:
    """Return ``Record.model``: {parameters, gmacs, opset, opset_of_file, made_from}.

    ``gmacs`` is None where a graph cannot be counted; the file's own opset stands where it was upgraded.
    """
    model = variant.onnx.model
    signature = models.signature(model)

    def build(_: Path) -> JsonDict:
        counted = models.cost(source, {spec.name: spec.concrete(1) for spec in signature.inputs})
        return {**counted.plain(), "opset": models.opset(source)}

    shapes = [(spec.name, spec.concrete(1)) for spec in signature.inputs]
    key = axes.digest("cost", models.COST_REVISION, file_content(source), shapes, environment.library_version("onnx"))
    cost = cache.get("costs", key, build, {"model": model.name}).info
    # A cast, for what the cache keeps is untyped; the parent checks it where it arrives.
    return cast("ModelCost", {**cost, "opset_of_file": _too_old(model), "made_from": model.made_from})


def dense_file(variant: Variant, cache: Cache) -> Path:
    """Return the fp32 ONNX before any pruning: a user's file in a form that every library reads alike, or the zoo's."""
    model = variant.onnx.model
    if model.path is not None:
        normal = _normal_file(model, _readable_file(model, cache), cache)
        upgrades = _too_old(model) or models.feeds_weights(Path(model.path))
        return _upgraded_file(variant, normal, cache) if upgrades else normal

    def build(folder: Path) -> JsonDict:
        models.resolve(model, folder / MODEL_FILE)
        return {"model": model.name, "revision": model.revision}

    return cache.get("models", model_key(model), build, {"model": model.name}).path / MODEL_FILE


def _too_old(model: ModelRef) -> int | None:
    """Return the opset of a user's file where it has to be upgraded; None where it does not."""
    opset = None if model.path is None else models.opset(Path(model.path))
    return opset if opset is not None and opset < models.LEAST_OPSET else None


def _readable_file(model: ModelRef, cache: Cache) -> Path:
    """Return the user's file, or a copy in an IR version that onnxruntime, which computes the reference, reads."""
    path = models.resolve(model, cache.root)
    if not models.is_too_new(path):
        return path

    def build(folder: Path) -> JsonDict:
        models.lower_ir_version(path, folder / MODEL_FILE)
        return {}

    versions = [environment.library_version(name) for name in ("onnx", "onnxruntime")]
    key = axes.digest("readable", model.digest or models.file_digest(path), *versions)
    return cache.get("models", key, build, {"model": model.name}).path / MODEL_FILE


def _normal_file(model: ModelRef, original: Path, cache: Cache) -> Path:
    """Return the user's file, in normal form where libraries would read it in different ways."""
    key = normal_form_key(model)
    if key is None:
        return original

    def build(folder: Path) -> JsonDict:
        models.write_normal_form(original, models.graph_inputs(model), folder / MODEL_FILE)
        return {}

    return cache.get("models", key, build, {"model": model.name}).path / MODEL_FILE


def _upgraded_file(variant: Variant, original: Path, cache: Cache) -> Path:
    """Return the file in a later opset, its weights no inputs, once it is seen to give the same outputs for a batch."""
    model, batch = variant.onnx.model, variant.engine.batch

    def build(folder: Path) -> JsonDict:
        target = folder / MODEL_FILE
        models.upgrade(original, target)
        own = variant.load.samples is not None  # random values may lie where the network cannot run
        feeds = evaluation.feeds(variant, batch) if own else models.draw(models.signature(model), batch, 0)
        expected = reference.run(original, feeds)
        export = f"export it again with opset {models.LEAST_OPSET} or a later one"
        try:
            errors = accuracy.errors(expected, reference.run(target, feeds))
        except ModelError as error:
            raise ModelError(
                f"{model.path} runs at its own opset, but not as onnx.version_converter upgrades it to opset "
                f"{models.LEAST_OPSET}: {one_line(error)}; {export}"
            ) from error
        if errors["nonfinite"] or (errors["sqnr_db"] is not None and errors["sqnr_db"] < _SAME_DB):
            raise ModelError(
                f"{model.path} changes its outputs when onnx.version_converter upgrades it to opset "
                f"{models.LEAST_OPSET}; {export}"
            )
        return {}

    normal = [key] if (key := normal_form_key(model)) else []
    version = environment.library_version("onnx")
    key = axes.digest("upgraded", models.LEAST_OPSET, model.digest, *normal, version)
    return cache.get("models", key, build, {"model": model.name}).path / MODEL_FILE
