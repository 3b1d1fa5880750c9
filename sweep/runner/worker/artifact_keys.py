"""Compute the cache keys of models, typed ONNX files and engines."""

from __future__ import annotations

import importlib.metadata
import json
from typing import TYPE_CHECKING, Any

from sweep import models, precision, spec
from sweep.storage.cache import MANIFEST

if TYPE_CHECKING:
    from pathlib import Path

    from sweep.backends.base import Backend
    from sweep.spec import ModelRef, Variant

_OUTLIVED = ("driver", "cuda")  # facts of a backend whose change leaves its engines valid


def pass_tools(variant: Variant) -> list[str]:
    """Versions of what a pass is made with, where it is one that comes with `sweep`."""
    asked = variant.onnx.graph
    simplifies = asked is not None and asked.name == precision.SIMPLIFY
    return [importlib.metadata.version("onnxslim")] if simplifies else []


def model_key(model: ModelRef) -> str:
    """Key of the zoo's network in the cache."""
    return spec.digest("model", model.name, model.revision)


def onnx_cache_key(variant: Variant) -> str:
    """Key of the typed ONNX in the cache: what was asked, and the converters that made it."""
    tools = {name: importlib.metadata.version(name) for name in precision.TOOLS}
    others = [precision.modelopt_versions()] if variant.onnx.precision.tool == "modelopt" else []
    return spec.digest(spec.onnx_key(variant), precision.REVISION, tools, *pass_tools(variant), *others)


def engine_cache_key(variant: Variant, backend: Backend, typed: Path) -> str:
    """Key of the built engine: what was asked, of which graph and weights, by which library and processor.

    Args:
        variant: its engine axes.
        backend: builds it.
        typed: the typed ONNX, whose content counts and whose place does not.
    """
    from sweep.system import environment

    machine: dict[str, Any] = environment.machine()
    built_by = {name: value for name, value in backend.facts().items() if name not in _OUTLIVED}
    hardware = [machine[name] for name in ("cpu", "gpu", "compute_capability")]
    return spec.digest(spec.engine_key(variant), built_by, *hardware, file_content(typed))


def file_content(onnx: Path) -> Any:
    """What tells this graph and its weights from any other; of a file in the cache its manifest says it."""
    manifest = onnx.parent / MANIFEST
    return json.loads(manifest.read_bytes())["files"] if manifest.is_file() else models.file_digest(onnx)
