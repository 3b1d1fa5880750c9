"""Word what the table says of a pass beside its figures, with an asterisk."""

from __future__ import annotations

import shlex
from pathlib import PurePath
from typing import TYPE_CHECKING

from sweep.analysis import accuracy as figures
from sweep.analysis import accuracy_gates
from sweep.precision import NATIVE
from sweep.runner.recipe_file import RECIPES
from sweep.runner.worker import plan_import
from sweep.runner.worker.accuracy_check import PRUNED
from sweep.runner.worker.artifacts import RANDOM
from sweep.spec import plain_text

if TYPE_CHECKING:
    from pathlib import Path

    from sweep.runner.worker.artifacts import Artifacts
    from sweep.spec import Variant
    from sweep.storage import Accuracy, NodeSearchInfo, SearchedAccuracy

RANDOM_RANGES = "ranges of activations come from seeded random inputs; model.samples= or model.calibration= takes yours"

_NAMES = 3  # of nodes, in a note


def of_accuracy(dtype: str, accuracy: Accuracy | None) -> list[str]:
    """Return what the table says of an accuracy that is not what it seems."""
    if accuracy is None:
        return []
    if accuracy.get("reference") == figures.NO_REFERENCE:
        return [accuracy["unknown"]]
    unknown = figures.unknown_reason(accuracy)
    notes = [f"SQNR is not known: {unknown}"] if unknown else []
    notes += [accuracy["undiagnosed"]] if "undiagnosed" in accuracy else []
    if accuracy_gates.lost_by_rounding(dtype, accuracy):
        expected_db = accuracy["expected"]["expected_db"]
        rounding = "what the file itself computes" if dtype == NATIVE else f"rounding to {dtype} alone"
        notes.append(f"{rounding} leaves {expected_db:.1f} dB on these inputs: no fault of the engine")
    return notes + ([f"compared with {figures.TYPED_REFERENCE}"] if _is_own_reference(accuracy) else [])


def _is_own_reference(accuracy: Accuracy) -> bool:
    return accuracy.get("reference") == figures.TYPED_REFERENCE


def of_variant(variant: Variant, artifacts: Artifacts, cache: Path) -> list[str]:
    """Return what the table says beside the figures, with an asterisk."""
    plan = variant.engine.plan
    if plan is not None or artifacts.onnx is None or artifacts.model is None:
        tells_types = artifacts.engine.info.get("precision")
        return [
            f"{plan} came as a plan of {plan and plan.built_by}: it was loaded, not built",
            *([] if tells_types else [f"{plan} does not tell which types it computes in"]),
            *filter(None, [plan_import.optimum_note(variant, artifacts.engine.info)]),
        ]
    guarded, calibration = artifacts.onnx.facts.get("guarded"), artifacts.onnx.facts.get("calibration")
    notes, recipe = [], variant.onnx.precision
    if guarded:
        spoiled = (
            "bf16 would round away" if "bf16" in (recipe.dtype, recipe.rest) else "overflows fp16 or is lost in it"
        )
        notes.append(f"{len(guarded)} nodes stay in fp32, because what they compute {spoiled} (engine.guarded)")
    typed_file = variant.onnx.precision.path
    if typed_file is not None:
        notes.append(f"{variant.onnx.precision.name} is {PurePath(typed_file).name} as it came, judged against fp32")
    if calibration and calibration["source"] == RANDOM and variant.onnx.precision.quantize_ops:
        notes.append(RANDOM_RANGES)
    if "node_search" in artifacts.onnx.facts:
        notes.append(_search_note(artifacts.onnx.facts["node_search"], cache.with_name(RECIPES)))
    model = artifacts.model
    if model["opset_of_file"]:
        old, name = model["opset_of_file"], variant.onnx.model.name
        notes.append(f"{name} is of opset {old}: upgraded to {model['opset']} by onnx.version_converter")
    return [*notes, PRUNED] if variant.onnx.prune else notes


def _search_note(search: NodeSearchInfo, recipes: Path) -> str:
    """Return what a search of nodes to keep came to."""
    gates = ", ".join(f"accuracy.{name}={plain_text(value)}" for name, value in search["gates"].items())
    count, names = len(search["nodes"]), ", ".join(search["nodes"][:_NAMES])
    nodes = f"{count} {'node' if count == 1 else 'nodes'} ({names}{', ...' if count > _NAMES else ''}) in fp32"
    before, after = (_search_level(search[side]) for side in ("before", "after"))
    effort = f"{search['evaluations']} evaluations on {search['judged_on']}"
    if search["exhausted"]:
        effort += f" (precision.search_evaluations={2 * search['evaluations']} looks further)"
    if not search["reached"]:
        near = f"the nearest, with {nodes}, has {after}" if count else f"the nearest, with none, has {after}"
        return (
            f"search: no set of nodes in fp32 reaches {gates}: {near}; {effort}. With all of them it is precision=fp32"
        )
    recipe = f"--config-dir {shlex.quote(str(recipes))} precision={search['recipe']}"
    if not count:
        return f"search: {gates} is reached with no further node in fp32, {after}; {recipe}"
    return f"search: {gates} is reached with {nodes}, {before} before and {after} after; {effort}; {recipe}"


def _search_level(accuracy: SearchedAccuracy) -> str:
    if figures.unknown_reason(accuracy):
        return f"no SQNR ({figures.unknown_reason(accuracy)})"
    level = "exact outputs" if accuracy["sqnr_db"] is None else f"{accuracy['sqnr_db']:.1f} dB"
    return f"{level} and {accuracy['score']:.2%} right" if "score" in accuracy else level
