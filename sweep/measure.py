"""One pass of one variant, inside the worker: model -> typed ONNX -> engine -> session -> load -> samples."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sweep import accuracy, axes, models, samples, typed_onnx
from sweep.backends import registry
from sweep.cache import Cache, Entry
from sweep.load import curve

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np

    from sweep.axes import JsonDict, Variant
    from sweep.backends.base import Backend

MODEL_FILE = "model.onnx"
_CALIBRATION_SAMPLES = 8  # in each calibration batch
_OUTLIVED = ("driver", "cuda")  # facts of a backend whose change leaves its engines valid


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What the worker is asked to do.

    Attributes:
        variant: what to measure.
        repeat: which pass, from 0.
        rates_ips: ladder of an earlier pass, samples/s; None places one.
        cache: root of the shared cache.
        samples: where the raw samples go (npz).
        accuracy: compare the outputs with fp32; the sentinel's were compared already.
    """

    variant: Variant
    repeat: int
    rates_ips: list[float] | None
    cache: Path
    samples: Path
    accuracy: bool = True


def measure(job: Job, report: Callable[..., None], note: Callable[[str], None]) -> JsonDict:
    """Do the job; its raw samples are on disk when this returns.

    Args:
        job: what to do.
        report: called as report(stage, detail, done) when a stage starts, done from 0 to 1.
        note: called with one line on what a user should know.

    Returns:
        {engine, realised, accuracy, mismatch, facts} as the record holds them.
    """
    variant, backend = job.variant, registry.get(job.variant.backend)
    cache = Cache(job.cache)
    signature = models.signature(variant.onnx.model)
    report("model")
    source = model_file(variant, cache)
    report("onnx")
    typed = typed_file(variant, source, cache)
    report("build")
    engine = build_engine(variant, backend, typed, cache)
    if engine.note:
        note(engine.note)
    report("load")
    feeds = models.draw(signature, variant.engine.batch, variant.load.seed)
    start = time.perf_counter()
    session = backend.load(engine.path, engine.info, variant, feeds)
    load_s = time.perf_counter() - start
    try:
        points = curve.measure(
            session,
            variant.load,
            batch=variant.engine.batch,
            repeat=job.repeat,
            rates_ips=job.rates_ips,
            report=lambda name, done, of: report("measure", name, done / of),
        )
        samples.save(job.samples, points)
        report("accuracy", done=1.0)
        found = accuracy.compare(source, feeds, session.outputs()) if backend.runs_models and job.accuracy else None
    finally:
        session.close()
    return {
        "engine": {**_engine_facts(variant, engine), "load_s": load_s, **session.engine_facts},
        "realised": session.realised,
        "mismatch": backend.mismatch(variant, session.realised)
        or accuracy.contradicts(variant.onnx.precision.dtype, found),
        "accuracy": found,
    }


def model_file(variant: Variant, cache: Cache) -> Path:
    """The fp32 ONNX: a user's own file as it is, or the zoo's network from the cache."""
    model = variant.onnx.model
    if model.path is not None:
        return models.resolve(model, cache.root)

    def build(folder: Path) -> JsonDict:
        models.resolve(model, folder / MODEL_FILE)
        return {"model": model.name, "revision": model.revision}

    return cache.get("models", axes.digest("model", model.name, model.revision), build).path / MODEL_FILE


def typed_file(variant: Variant, source: Path, cache: Cache) -> Path:
    """The ONNX whose types are the precision; fp32 is the source itself, once its types are seen to be so."""
    precision = variant.onnx.precision
    if typed_onnx.passes_through(precision):
        typed_onnx.check_label(source, precision)
        return source

    def build(folder: Path) -> JsonDict:
        converted = typed_onnx.convert(source, precision, calibration(variant), folder / MODEL_FILE)
        return {"dtypes": converted.dtypes, "notes": list(converted.notes)}

    return cache.get("onnx", axes.onnx_key(variant), build).path / MODEL_FILE


def calibration(variant: Variant) -> list[dict[str, np.ndarray]]:
    """Seeded random batches, never those that are timed: their seeds are set apart."""
    signature = models.signature(variant.onnx.model)
    batched = any(spec.batch_axis is not None for spec in signature.inputs)
    batch = _CALIBRATION_SAMPLES if batched else 1
    count = variant.onnx.precision.calibration_batches or 0
    return [models.draw(signature, batch, 1_000_000 + number) for number in range(count)]


def build_engine(variant: Variant, backend: Backend, typed: Path, cache: Cache) -> Entry:
    """The engine from the cache, built if it is not there; library versions are part of its key."""
    signature = models.signature(variant.onnx.model)
    shapes = {spec.name: spec.concrete(variant.engine.batch) for spec in signature.inputs}
    return cache.get(
        "engines", engine_cache_key(variant, backend), lambda folder: backend.build(typed, variant, shapes, folder)
    )


def engine_cache_key(variant: Variant, backend: Backend) -> str:
    """Key of the built engine: what was asked, and the library and processor that built it."""
    from sweep import facts

    machine: dict[str, Any] = facts.machine()
    built_by = {name: value for name, value in backend.facts().items() if name not in _OUTLIVED}
    hardware = [machine[name] for name in ("cpu", "gpu", "compute_capability")]
    return axes.digest(axes.engine_key(variant), built_by, *hardware)


def _engine_facts(variant: Variant, engine: Entry) -> JsonDict:
    return {
        "key": engine.path.name,
        "onnx_key": axes.onnx_key(variant),
        "build_s": engine.seconds,
        "cached": engine.cached,
        "bytes": engine.bytes,
        "device_memory_bytes": None,
    }
