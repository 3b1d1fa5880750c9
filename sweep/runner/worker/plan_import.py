"""Make the artifacts of a plan that was built elsewhere: its copy in the cache, its inputs, and their values.

The copy is what is loaded. Its content is that which was planned, whatever becomes of the user's file meanwhile.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sweep import models
from sweep.backends import SupportsPlans
from sweep.backends.tensorrt import plan_file
from sweep.errors import UnsupportedError
from sweep.models import TensorSpec, evaluation
from sweep.runner.worker.artifact_keys import plan_cache_key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sweep.backends import Backend
    from sweep.spec import BuiltPlan, JsonDict, Variant
    from sweep.storage.cache import Cache, Entry

    Feeds = dict[str, np.ndarray]

_OPEN = -1  # size of a dimension that the plan's profile leaves open


def import_plan(variant: Variant, plan: BuiltPlan, backend: Backend, cache: Cache) -> Entry:
    """Return the plan's copy in the cache, with what the library tells of it; loaded once if it is not there.

    Raises:
        UnsupportedError: the backend runs no plans, or a tensor of this one cannot be fed or read.
        SessionError: the file has changed, or the library refuses it.
    """
    if not isinstance(backend, SupportsPlans):
        raise UnsupportedError(f"{backend.name} runs no plans; backend={plan.library} runs {plan}")

    def build(folder: Path) -> JsonDict:
        return backend.import_plan(plan_file.content(Path(plan.path), plan.digest), variant, folder)

    about: JsonDict = {
        "model": Path(plan.path).stem,
        "precision": variant.onnx.precision.name,
        "batch": None,
        "knobs": {},
        "library": backend.facts().get("tensorrt"),
    }
    return cache.get("engines", plan_cache_key(variant, plan, backend), build, about)


def settled_inputs(variant: Variant, info: JsonDict) -> tuple[TensorSpec, ...]:
    """Return the inputs of the plan with every size an int or the word ``batch``, and the batch checked.

    Shapes are those of the reference where there is one. Without one, an open first dimension is the batch, and other
    open sizes are those that the plan was optimized for, unless the user says others.

    Args:
        variant: its batch, its reference and what the user says of the inputs.
        info: facts of ``SupportsPlans.import_plan``.

    Raises:
        ModelError: what the user says of the inputs does not fit the plan.
        UnsupportedError: the plan does not take the batch or the shapes of the reference; with what it takes.
    """
    plan, batch = str(variant.engine.plan), variant.engine.batch
    engine_inputs: list[JsonDict] = info["inputs"]
    if variant.reference is None:
        fixed = {fix.name for fix in variant.onnx.model.inputs if fix.shape is not None}
        declared = tuple(_declared(item, fixed=item["name"] in fixed) for item in engine_inputs)
        specs = models.settle(declared, variant.onnx.model)
        if all(spec.batch_axis is None for spec in specs):
            _check_fixed_batch(plan, batch, [spec for spec in specs if spec.name not in fixed])
    else:
        by_name = {spec.name: spec for spec in models.signature(variant.reference).inputs}
        if by_name.keys() != {item["name"] for item in engine_inputs}:
            names = ", ".join(item["name"] for item in engine_inputs) or "none"
            raise UnsupportedError(
                f"{plan} has the inputs {names}, and its reference {variant.reference.name} has {', '.join(by_name)}; "
                "name the network that it was built from, or none"
            )
        specs = tuple(_fed_as(by_name[item["name"]], item, plan) for item in engine_inputs)
    for spec, item in zip(specs, engine_inputs, strict=True):
        if not _takes(item, spec.concrete(batch)):
            raise UnsupportedError(_refusal(plan, batch, spec, item, engine_inputs, info["profiles"]))
    return specs


def optimum_note(variant: Variant, info: JsonDict) -> str | None:
    """Return which sizes of the inputs the plan's optimum decided, for the user said nothing of them; None for none."""
    if variant.reference is not None:
        return None
    fixed = {fix.name for fix in variant.onnx.model.inputs if fix.shape is not None}
    names = [
        item["name"] for item in info["inputs"] if item["name"] not in fixed and item["least"][1:] != item["most"][1:]
    ]
    if not names:
        return None
    return (
        f"open sizes of {', '.join(names)} are those that the plan was optimized for; +model.inputs.NAME.shape= sets "
        "others"
    )


def feeds(variant: Variant, info: JsonDict) -> Feeds:
    """Return the inputs that are timed, by name, in the types of the plan."""
    specs, batch = settled_inputs(variant, info), variant.engine.batch
    if variant.reference is None:
        return models.draw(models.Signature(inputs=specs, outputs=()), batch, variant.load.seed)
    return fed(variant, info, evaluation.feeds(variant, batch))


def fed(variant: Variant, info: JsonDict, values: Mapping[str, np.ndarray]) -> Feeds:
    """Return values of the reference's inputs, by name, in the types of the plan, whose shapes are checked."""
    settled_inputs(variant, info)
    return {item["name"]: _as_type(values[item["name"]], item["dtype"]) for item in info["inputs"]}


def reference_feeds(variant: Variant, values: Mapping[str, np.ndarray]) -> Feeds:
    """Return the same values in the types of the reference: what the plan's types round is no error of the plan."""
    if variant.reference is None:
        return dict(values)
    specs = models.signature(variant.reference).inputs
    return {spec.name: _as_type(values[spec.name], spec.dtype) for spec in specs}


def described_inputs(variant: Variant, info: JsonDict) -> list[JsonDict]:
    """Return the inputs as the record holds them: {name, dtype, shape, dynamic, least, most}."""
    return [
        {
            "name": spec.name,
            "dtype": item["dtype"],
            "shape": list(spec.shape),
            "dynamic": _OPEN in item["shape"],
            "least": item["least"],
            "most": item["most"],
        }
        for spec, item in zip(settled_inputs(variant, info), info["inputs"], strict=True)
    ]


def _declared(item: JsonDict, *, fixed: bool) -> TensorSpec:
    """Return an input of the plan: open in its first dimension, elsewhere at its optimum unless the user fixes it."""
    shape = [
        size if size != _OPEN else models.UNNAMED if fixed or axis == 0 else best
        for axis, (size, best) in enumerate(zip(item["shape"], item["best"], strict=True))
    ]
    return TensorSpec(name=item["name"], dtype=item["dtype"], shape=tuple(shape))


def _fed_as(spec: TensorSpec, item: JsonDict, plan: str) -> TensorSpec:
    """Return the input of the reference, if its values can be given in the type of the plan."""
    kinds = [np.dtype(dtype).kind for dtype in (spec.dtype, item["dtype"])]
    if kinds[0] != kinds[1]:
        raise UnsupportedError(
            f"input {spec.name} is {item['dtype']} in {plan} and {spec.dtype} in its reference; "
            "name the network that it was built from, or none"
        )
    return spec


def _takes(item: JsonDict, shape: Sequence[int]) -> bool:
    limits = list(zip(item["least"], item["most"], strict=True))
    return len(limits) == len(shape) and all(
        least <= size <= most for size, (least, most) in zip(shape, limits, strict=True)
    )


def _refusal(plan: str, batch: int, spec: TensorSpec, item: JsonDict, inputs: Sequence[JsonDict], profiles: int) -> str:
    """Word that the plan does not take the shape of an input at this batch."""
    axis = spec.batch_axis
    other_sizes = [size for number, size in enumerate(spec.concrete(batch)) if number != axis]
    if axis is not None and len(spec.shape) == len(item["least"]):
        other_limits = [
            limits for number, limits in enumerate(zip(item["least"], item["most"], strict=True)) if number != axis
        ]
        if all(least <= size <= most for size, (least, most) in zip(other_sizes, other_limits, strict=True)):
            allowed = _range(item["least"][axis], item["most"][axis])
            return f"batch={batch}: {plan} takes batch={allowed} ({_several(profiles)}{_shapes(inputs)})"
    shape = models.render_shape(spec.concrete(batch))
    return f"input {spec.name} would be {shape}, and {plan} takes {_several(profiles)}{_shapes(inputs)}"


def _several(profiles: int) -> str:
    return f"in the first of its {profiles} profiles, the one that runs: " if profiles > 1 else ""


def _shapes(inputs: Sequence[JsonDict]) -> str:
    return ", ".join(f"{item['name']} [{','.join(map(_range, item['least'], item['most']))}]" for item in inputs)


def _range(least: int, most: int) -> str:
    return str(least) if least == most else f"{least}..{most}"


def _check_fixed_batch(plan: str, batch: int, specs: Sequence[TensorSpec]) -> None:
    """Refuse another batch than the one that all inputs of a static plan start with.

    Args:
        plan: name of the plan.
        batch: requested.
        specs: inputs whose shapes the user did not give; what the user gives is taken at its word.
    """
    shaped = [spec for spec in specs if spec.shape]
    sizes = {spec.shape[0] for spec in shaped}
    allowed = next(iter(sizes)) if len(sizes) == 1 else 1
    if batch != allowed:
        shapes = (
            ", ".join(f"{spec.name} {models.render_shape(spec.shape)}" for spec in shaped) or "no input has a batch"
        )
        advice = ""
        if shaped and batch == 1:
            word = models.override(shaped[0].name, "shape", models.render_shape(shaped[0].shape))
            advice = f"; if it has no batch, say so: {word}"
        raise UnsupportedError(
            f"batch={batch}: {plan} was built for one shape ({shapes}) and takes batch={allowed}{advice}"
        )


def _as_type(value: np.ndarray, dtype: str) -> np.ndarray[Any, Any]:
    converted = np.asarray(value, dtype=dtype, order="C")
    if converted.dtype.kind == "f" and not math.isfinite(float(np.sum(np.abs(converted), dtype=np.float64))):
        raise UnsupportedError(
            f"values of the inputs overflow {dtype}, which the plan takes; give their range "
            "(+model.inputs.NAME.low= and .high=)"
        )
    return converted
