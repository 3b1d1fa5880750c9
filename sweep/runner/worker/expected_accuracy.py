"""Compute the error that rounding alone explains, on onnxruntime's CPU provider, for the inputs that were timed.

The floor of fp32 comes from runs that give other sums: without graph optimizations, with the products summed in the
reverse order, with everything between the products in float64, and with inputs that are off by one unit in the last
place, which shows how far the network amplifies an error. A file that is int8 already also runs with its pairs fused
into integer kernels. onnxruntime has no float64 kernels for convolutions, so that a run in float64 alone would cover
few networks.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from sweep import precision, spec
from sweep.analysis import accuracy, accuracy_gates
from sweep.errors import SweepError
from sweep.models import evaluation
from sweep.runner.worker import artifacts, model_files
from sweep.runner.worker.compared_inputs import ComparedInputs
from sweep.runner.worker.reference import compared_outputs, inputs_identity, reference_outputs, runner
from sweep.system import Stopwatch, child_seed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sweep.backends import Session
    from sweep.runner.worker.artifacts import OnnxFiles
    from sweep.spec import JsonDict, Variant
    from sweep.storage import ExpectedAccuracy
    from sweep.storage.cache import Cache

    Outputs = Mapping[str, np.ndarray]

MOST_GMACS = 20.0
"""Limit the cost of one run, for it takes seconds on a few cores: a larger batch is computed at a smaller one, where
SQNR is the same within a decibel or two, and a network whose single sample costs more is not computed."""

FURTHER_DRAWS = 2
"""Number of further inputs on which outputs that look like TF32's are compared."""

_GMACS_PER_SECOND = 20.0  # what one core of a server does in float32, roughly
_REVISION = 4  # part of the cache's key: raise it when other figures are computed for the same graph
_ROUNDOFF_DB = 20 * math.log10(2.0**24 / 8)  # where no other order exists: eight units of roundoff


def draws_random_numbers(variant: Variant, model: Path, feeds: Outputs, cache: Cache) -> list[str]:
    """Return the operators whose random numbers reach the outputs of the fp32 graph; empty where none do.

    A graph that holds such operators is run twice: what it draws may not matter.
    """

    def build(_: Path) -> JsonDict:
        names = precision.random_ops(model)
        if not names:
            return {"random": []}
        infer = runner(model)
        return {"random": [] if accuracy.identical(infer(feeds), infer(feeds)) else names}

    key = spec.digest("random", _REVISION, *inputs_identity(variant, model, feeds))
    names: list[str] = cache.get("references", key, build, {"model": variant.onnx.model.name}).info["random"]
    return names


def expected_accuracy(
    variant: Variant, onnx: OnnxFiles, inputs: ComparedInputs, reference: Outputs, cache: Cache
) -> ExpectedAccuracy:
    """Compute ``Record.accuracy.expected``, or take it from the cache.

    Args:
        variant: what was timed.
        onnx: its graphs.
        inputs: those on which the outputs were compared.
        reference: outputs of the fp32 graph for them, by name.
        cache: keeps the figures.
    """
    gmacs = _sample_gmacs(variant, onnx, inputs, cache)
    batch = variant.engine.batch
    if gmacs > MOST_GMACS:
        note = f"not computed for {gmacs:.3g} GMACs a sample; {MOST_GMACS:g} GMACs are the limit"
        return {"floor_db": None, "tf32_db": None, "expected_db": None, "note": note}
    smaller: list[str] = []
    if gmacs * batch > MOST_GMACS:
        batch = int(MOST_GMACS // gmacs)
        variant = dataclasses.replace(variant, engine=dataclasses.replace(variant.engine, batch=batch))
        inputs = ComparedInputs(batches=(evaluation.feeds(variant, batch),), counts=(batch,), size=batch)
        reference = reference_outputs(variant, onnx.model, inputs.batches[0], cache)
        smaller = [f"computed at batch {batch}"]
    elif gmacs * batch * len(inputs.batches) > MOST_GMACS:
        inputs, reference = compared_outputs(
            variant, onnx.model, inputs.first(int(MOST_GMACS // (gmacs * batch))), cache
        )
        smaller = [f"computed on {inputs.samples} of the samples"]
    about = {"model": variant.onnx.model.name, "precision": "rounding"}

    def network(folder: Path) -> JsonDict:
        return _network_figures(onnx.model, inputs, reference, folder)

    key = spec.digest("rounding", _REVISION, *inputs_identity(variant, onnx.model, *inputs.batches))
    figures = cache.get("references", key, network, about).info
    floor_db, tf32_db, dtype = figures["floor_db"], figures["tf32_db"], variant.onnx.precision.dtype
    notes = [*smaller, *figures["notes"]]
    if dtype == "fp32":
        expected_db = floor_db
    elif dtype == "tf32":
        expected_db = tf32_db
    elif onnx.model_is_typed and artifacts.holds_bf16(variant, onnx.typed, cache):
        # The reference rounds at every tensor, and kernels that fuse round less often.
        expected_db = None
        notes.append("not computed for a file in bfloat16")
    else:

        def typed(_: Path) -> JsonDict:
            file = artifacts.emulated_file(variant, onnx.typed, cache)
            emulated = _level(reference, lambda: inputs.run(runner(file)))
            return {"level": emulated}

        key = spec.digest("typed", _REVISION, key, inputs_identity(variant, onnx.typed)[0])
        level = cache.get("references", key, typed, about).info["level"]
        if isinstance(level, str):
            notes.append(f"no rounding of {variant.onnx.precision.name}: {level}")
        # Outputs that equal the reference say that rounding adds nothing to the floor.
        expected_db = None if isinstance(level, str) else floor_db if level is None else min(level, floor_db)
    return {"floor_db": floor_db, "tf32_db": tf32_db, "expected_db": expected_db, "note": "; ".join(notes) or None}


def _sample_gmacs(variant: Variant, onnx: OnnxFiles, inputs: ComparedInputs, cache: Cache) -> float:
    """Return the cost of one sample in GMACs; where the graph does not tell it, from the time of one inference."""
    counted: float | None = model_files.model_facts(variant, onnx.model, cache)["gmacs"]
    if counted is not None:
        return counted

    def build(_: Path) -> JsonDict:
        infer = runner(onnx.model)
        watch = Stopwatch()
        infer(inputs.batches[0])
        return {"gmacs": watch.seconds() * _GMACS_PER_SECOND / inputs.size}

    key = spec.digest("time", _REVISION, *inputs_identity(variant, onnx.model, inputs.batches[0]))
    timed: float = cache.get("references", key, build, {"model": variant.onnx.model.name}).info["gmacs"]
    return timed


def _network_figures(model: Path, inputs: ComparedInputs, reference: Outputs, place: Path) -> JsonDict:
    """Return {floor_db, tf32_db, notes} of an fp32 graph, whose versions, each as large, are written to `place`."""
    notes: list[str] = []
    with tempfile.TemporaryDirectory(dir=place) as folder:
        reordered, rounded, wide = (Path(folder, f"{name}.onnx") for name in ("reordered", "tf32", "wide"))
        levels = [
            _level(reference, lambda: inputs.run(runner(model, optimize=False))),
            _level(reference, lambda: _run_version(precision.reverse_sums, model, reordered, inputs)),
            _level(reference, lambda: _run_version(precision.widen_sums, model, wide, inputs)),
            _level(reference, lambda: inputs.changed(_off_by_one_ulp).run(runner(model))),
        ]
        if precision.count_compute_types(model)["int8"]:  # its integer kernels round a few values to their neighbours
            levels.append(_level(reference, lambda: inputs.run(runner(model, fuse_pairs=True))))
        tf32 = _level(reference, lambda: _run_version(precision.round_products, model, rounded, inputs, optimize=False))
    measured = [level for level in levels if isinstance(level, float)]
    if not measured:
        notes.append("the floor is estimated from fp32's unit roundoff: no other order of its sums changes the outputs")
    if isinstance(tf32, str):
        notes.append(f"no TF32: {tf32}")
    return {
        "floor_db": min(measured, default=_ROUNDOFF_DB),
        "tf32_db": None if isinstance(tf32, str) else tf32,
        "notes": notes,
    }


def _run_version(
    write: Callable[[Path, Path], int], model: Path, target: Path, inputs: ComparedInputs, *, optimize: bool = True
) -> dict[str, np.ndarray]:
    """Run a version of a graph that `write` makes; it raises ``LookupError`` where there is nothing to change."""
    if not write(model, target):
        raise LookupError("the network has no such products")
    return inputs.run(runner(target, optimize=optimize))


def _off_by_one_ulp(feeds: Outputs) -> dict[str, np.ndarray]:
    """Return inputs of which every float is moved to a neighbour, up or down at random (seeded)."""
    rng = np.random.default_rng(0)

    def moved(value: np.ndarray) -> np.ndarray:
        if not np.issubdtype(value.dtype, np.floating):
            return value
        towards = np.where(rng.random(value.shape) < 0.5, -np.inf, np.inf)  # noqa: PLR2004 - a coin
        return cast("np.ndarray", np.nextafter(value, towards.astype(value.dtype)))

    return {name: moved(value) for name, value in feeds.items()}


def _level(reference: Outputs, outputs: Callable[[], Outputs]) -> float | str | None:
    """Return the SQNR of a run, dB; None where it equals the reference, the reason where it cannot be had.

    A graph that onnxruntime cannot run in another form is measured without the figure: it is an aid to a verdict.
    """
    try:
        figures = accuracy.errors(reference, outputs())
    except (SweepError, LookupError) as error:
        return str(error).splitlines()[0]
    except Exception as error:  # noqa: BLE001 - onnxruntime's errors share no class of their own
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    if figures.get("nonfinite"):
        return f"{figures['nonfinite']} outputs are not finite"
    return figures.get("unknown") or figures["sqnr_db"]


def fits_tf32_again(variant: Variant, model: Path, session: Session, cache: Cache) -> int:
    """Return on how many of ``FURTHER_DRAWS`` further inputs the session errs as TF32 does."""
    count = 0
    with tempfile.TemporaryDirectory(dir=cache.root / "references", prefix=".tf32.") as folder:
        rounded = Path(folder, "tf32.onnx")
        precision.round_products(model, rounded)
        infer, tf32 = runner(model), runner(rounded, optimize=False)
        for number in range(1, FURTHER_DRAWS + 1):
            load = dataclasses.replace(variant.load, seed=child_seed(variant.load.seed, number))
            feeds: dict[str, Any] = evaluation.feeds(dataclasses.replace(variant, load=load), variant.engine.batch)
            reference = infer(feeds)
            level, tf32_level = (
                accuracy.errors(reference, outputs)["sqnr_db"] for outputs in (session.infer(feeds), tf32(feeds))
            )
            count += accuracy_gates.fits_tf32(level, tf32_level)
    return count
