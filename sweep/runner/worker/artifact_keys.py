"""Compute the cache keys of models, typed ONNX files and engines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep import models, precision, spec
from sweep.storage.cache import MANIFEST
from sweep.system import environment, regular_files

if TYPE_CHECKING:
    from sweep.backends import Backend
    from sweep.spec import BuiltPlan, ModelRef, Variant

_OUTLIVED = ("driver", "cuda")  # facts of a backend whose change leaves its engines valid


def pass_tools(variant: Variant) -> list[str]:
    """Return the versions of the tools of a graph pass, where it is one that comes with `sweep`."""
    graph_pass = variant.onnx.graph
    simplifies = graph_pass is not None and graph_pass.name == precision.SIMPLIFY
    return [str(environment.library_version("onnxslim"))] if simplifies else []


def model_key(model: ModelRef) -> str:
    """Return the key of the zoo's network in the cache."""
    return spec.digest("model", model.name, model.revision, *map(str, model.shape or ()), *_opened(model))


def _opened(model: ModelRef) -> list[str]:
    """Return what the key of a graph says of the dimensions that it leaves open; [] where it leaves none."""
    return ["open", *model.open_dimensions] if model.open_dimensions else []


def normal_form_key(model: ModelRef) -> str | None:
    """Return the key of a user's file in normal form; None where the file is used as it is."""
    if model.path is None or not models.needs_normal_form(Path(model.path), model):
        return None
    shapes = [(item.name, item.shape) for item in models.graph_inputs(model)]
    version = environment.library_version("onnx")
    return spec.digest("normal", models.NORMAL_FORM_REVISION, model.digest, shapes, version)


def onnx_cache_key(variant: Variant) -> str:
    """Return the key of the typed ONNX in the cache: what was requested, and the converters that made it."""
    tools = {name: environment.library_version(name) for name in precision.TOOLS}
    tool_versions = [precision.modelopt_versions()] if variant.onnx.precision.tool == "modelopt" else []
    return spec.digest(spec.onnx_key(variant), precision.REVISION, tools, *pass_tools(variant), *tool_versions)


def engine_cache_key(variant: Variant, backend: Backend, typed: Path) -> str:
    """Return the key of the engine: what was requested, of which graph and weights, by which library and processor.

    Args:
        variant: its engine axes.
        backend: builds it.
        typed: the typed ONNX, whose content counts and whose place does not.
    """
    return spec.digest(spec.engine_key(variant), *_built_on(backend), file_content(typed))


def plan_cache_key(variant: Variant, plan: BuiltPlan, backend: Backend) -> str:
    """Return the key of the copy of a plan: its content, and the library and processor that load it.

    The kernels that TensorRT-RTX compiles for the GPU are kept under this key, and are the library's and the GPU's.

    Args:
        variant: the plugins that the plan needs.
        plan: the plan.
        backend: loads it.
    """
    return spec.digest("plan", backend.name, plan.digest, variant.engine.plugins, *_built_on(backend))


def _built_on(backend: Backend) -> list[Any]:
    """Return the library and the processor that an engine depends on."""
    machine: dict[str, Any] = environment.machine()
    built_by = {name: value for name, value in backend.facts().items() if name not in _OUTLIVED}
    return [built_by, *(machine[name] for name in ("cpu", "gpu", "compute_capability"))]


def file_content(onnx: Path) -> Any:
    """Return what distinguishes this graph and its weights from any other; for a file in the cache, its manifest."""
    manifest = onnx.parent / MANIFEST
    if not manifest.is_file():
        return models.file_digest(onnx)
    return json.loads(regular_files.read_bytes(manifest, follow=False))["files"]
