"""Write the recipe that a search of nodes found, as a YAML file that a sweep takes by its name."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

from sweep import spec
from sweep.system import command_line, write_atomic

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sweep.spec import Settings, Variant
    from sweep.storage import NodeSearchInfo

RECIPES = "recipes"
"""Name the folder, in that of all sweeps, which ``--config-dir`` takes."""

_GROUP = "precision"
_SEARCH = "precision.search"


def folder(settings: Settings) -> Path:
    """Return the folder for ``--config-dir``, which has the recipes of all sweeps of the results folder."""
    return settings.results / RECIPES


def write(variant: Variant, search: NodeSearchInfo, settings: Settings) -> Path | None:
    """Write the recipe with which `variant` reached its gates; return the file, or None where it did not.

    Args:
        variant: as requested.
        search: result of its search.
        settings: settings of the sweep.
    """
    name = search["recipe"]
    if name is None:
        return None
    recipe = dataclasses.replace(variant.onnx.precision, name=name, keep=tuple(search["keep"]) or None, search=None)
    found = dataclasses.replace(variant, onnx=dataclasses.replace(variant.onnx, precision=recipe))
    path = folder(settings) / _GROUP / f"{name}.yaml"
    write_atomic(path, text(found, _comment(variant, search, settings)).encode())
    return path


def text(variant: Variant, comment: Sequence[str]) -> str:
    """Return the recipe of a variant as a YAML file that a sweep takes by its name; a search of nodes is no part of it.

    Args:
        variant: holds the recipe.
        comment: lines for the head of the file.
    """
    lines = [f"# {line}" for line in comment]
    for axis in spec.keyed().values():
        group, _, key = (axis.info.key or "").partition(".")
        if group == _GROUP and axis.info.key != _SEARCH:
            value = axis.overrides(axis.read(variant))[axis.info.key or ""]
            lines.append(f"{key}: {json.dumps(value)}")
    return "\n".join(lines) + "\n"


def _comment(variant: Variant, search: NodeSearchInfo, settings: Settings) -> list[str]:
    gates = ", ".join(f"accuracy.{name}={spec.plain_text(value)}" for name, value in search["gates"].items())
    model = variant.onnx.model
    chosen = f"model={model.name}" if model.path is None else f"model.path={spec.quote(model.path)}"
    words = ("--config-dir", str(folder(settings)), chosen, f"precision={search['recipe']}")
    lines = [
        f"{variant.onnx.precision.name} of {model.name} with the fewest nodes in fp32 that reach {gates}:",
        f"{len(search['nodes'])}, searched with {search['evaluations']} evaluations on {search['judged_on']}.",
        command_line.format_command(*words),
    ]
    return [" ".join(line.split()) for line in lines]  # a path may hold a line break, which would end the comment
