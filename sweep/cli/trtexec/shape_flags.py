"""Spell the shapes of the record's dynamic inputs for the binaries.

A file without a dynamic input is refused when shapes are given ("Static model does not take explicit shapes",
samples/common/sampleEngines.cpp); an input left out runs at 1 wherever it is dynamic.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sweep import models
from sweep.models import BATCH, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.spec import JsonDict, ModelRef
    from sweep.storage import PlanInput


def of_plan(inputs: Sequence[PlanInput]) -> tuple[TensorSpec, ...]:
    """Return the inputs of a plan that was built elsewhere which are dynamic in it.

    Args:
        inputs: ``Record.engine.inputs``.
    """
    return tuple(
        TensorSpec(name=item["name"], dtype=item["dtype"], shape=tuple(item["shape"]))
        for item in inputs
        if item["dynamic"]
    )


def dynamic(ref: ModelRef) -> tuple[TensorSpec, ...]:
    """Return the inputs of `ref` that are dynamic in the file.

    Raises:
        ModelError: if a user's file is gone or cannot be read.
    """
    inputs = models.signature(ref).inputs
    if ref.path is None:
        return tuple(spec for spec in inputs if BATCH in spec.shape)
    symbolic = models.dynamic_inputs(Path(ref.path))
    return tuple(spec for spec in inputs if spec.name in symbolic)


def flags(specs: Sequence[TensorSpec], batch: int) -> tuple[str, ...]:
    """Return ``--shapes`` at `batch`, or nothing for a static file. A build from it has one static profile."""
    return (f"--shapes={_spelled(specs, batch)}",) if specs else ()


def profile_flags(specs: Sequence[TensorSpec], profile: JsonDict | None) -> tuple[str, ...]:
    """Return the flags of the range that an engine is built for, or nothing for a static profile.

    Args:
        specs: the dynamic inputs.
        profile: batch sizes {least, best, most}, or {min, opt, max}.
    """
    if profile is None or not specs:
        return ()
    names = (("min", "least"), ("opt", "best"), ("max", "most"))
    sizes = {flag: int(profile[flag] if flag in profile else profile[axis_name]) for flag, axis_name in names}
    return tuple(f"--{flag}Shapes={_spelled(specs, size)}" for flag, size in sizes.items())


def _spelled(specs: Sequence[TensorSpec], batch: int) -> str:
    return ",".join(f"{_name(spec.name)}:{'x'.join(map(str, spec.concrete(batch)))}" for spec in specs)


def _name(name: str) -> str:
    return f"'{name}'" if ":" in name else name
