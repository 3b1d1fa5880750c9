"""One pass of one variant, inside the worker: model -> typed ONNX -> engine -> session -> load -> samples."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

from sweep import models, precision, spec
from sweep.analysis import accuracy_gates
from sweep.backends import registry
from sweep.loadgen import capacity_search, load_curve
from sweep.loadgen.communicator import ALONE, Member, in_turn
from sweep.models.datasets import evaluation
from sweep.runner.worker import artifacts
from sweep.runner.worker.accuracy_check import PRUNED, check_accuracy, heartbeat, score_session
from sweep.storage import samples, samples_file
from sweep.storage.cache import Cache, Entry

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np

    from sweep.backends.base import Backend, Session
    from sweep.loadgen.communicator import Meeting
    from sweep.runner.worker.job import Job
    from sweep.spec import JsonDict, LoadAxes, Variant

Made = TypeVar("Made")
RANDOM_RANGES = "ranges of activations come from seeded random inputs; model.calibration= takes your own"


def measure(
    job: Job,
    report: Callable[..., None],
    note: Callable[[str], None],
    taken: Callable[[str], None] = lambda _key: None,
    meeting: Meeting = ALONE,
) -> JsonDict:
    """Do the job; its raw samples are on disk when this returns.

    Args:
        job: what to do.
        report: called as report(stage, detail, done) when a stage starts, done from 0 to 1.
        note: called with one line on what a user should know.
        taken: called with the key of the engine in the cache while this pass still claims it.
        meeting: the other clients that measure this variant; the first one writes the samples of all.

    Returns:
        {model, engine, realised, accuracy, mismatch} as the record holds them, of this client; {engine} alone of a job
        that ends with the build.
    """
    with Cache(job.cache, job.cache_limit_bytes, note) as cache:
        return _measured(job, cache, report, taken, meeting)


def _measured(
    job: Job, cache: Cache, report: Callable[..., None], taken: Callable[[str], None], meeting: Meeting
) -> JsonDict:
    """The pass; what it takes from the cache stays in use until it is over."""
    variant, backend = job.variant, registry.get(job.variant.backend)
    report("model")
    source = artifacts.model_file(variant, cache)
    model = artifacts.model_facts(variant, source, cache)
    if backend.runs_models and job.accuracy and not job.only_build:
        evaluation.look(variant)
    report("onnx")
    passed, rewritten = artifacts.passed_file(variant, source, cache)
    typed, converted = artifacts.converted_file(variant, passed, cache)
    report("build")
    engine = artifacts.build_engine(variant, backend, typed, cache)
    taken(engine.path.name)
    if job.only_build:
        return {"engine": _engine_facts(variant, typed, engine)}
    report("load")
    feeds = _feeds(variant, backend)
    session, load_s = in_turn(meeting, lambda: _timed(lambda: backend.load(engine.path, engine.info, variant, feeds)))
    try:
        driven = session if meeting.clients == 1 else Member(session, meeting)
        measured = _drive(driven, job, lambda name, done, of: report("measure", name, done / of))
        if meeting.client == 0:
            samples_file.save(job.samples, measured, durable=False)  # a part: the variant's file is made of it
        report("accuracy", done=1.0)
        if session.partial_batches and variant.load.batch_wait_ms is not None:
            session.streams[0].enqueue()  # the last inference may have been a part; accuracy is that of the whole batch
            session.streams[0].wait()
        looks = backend.runs_models and job.accuracy
        found = check_accuracy(variant, backend, (source, typed), feeds, session, cache) if looks else None
        if found is not None and job.scores:
            found |= score_session(variant, backend, (source, typed), session, cache, heartbeat(report))
        artifacts.model_file(variant, cache)  # raises where a user's file has changed since it was read
    finally:
        session.close()
    realised = {**session.realised, "notes": [*session.realised["notes"], *_notes(variant, converted, model)]}
    if accuracy_gates.is_tf32(variant.onnx.precision.dtype, found):
        realised["precision"] = {"tf32": sum((realised.get("precision") or {}).values())}
    return {
        "model": model,
        "engine": {
            **_engine_facts(variant, typed, engine),
            **rewritten,
            **converted,
            "load_s": load_s,
            **session.engine_facts,
        },
        "realised": realised | _batching(variant.load, session),
        "mismatch": backend.mismatch(variant, session.realised)
        or accuracy_gates.contradicts(variant.onnx.precision.dtype, found, job.gates),
        "accuracy": found,
    }


def _timed(make: Callable[[], Made]) -> tuple[Made, float]:
    """What ``make`` gives, and the seconds that it took."""
    start = time.perf_counter()
    made = make()
    return made, time.perf_counter() - start


def _batching(load: LoadAxes, session: Session) -> JsonDict:
    """How a gathered batch that is not full was run, where batches are gathered."""
    if load.batch_wait_ms is None:
        return {}
    return {"partial_batches": "true size" if session.partial_batches else "padded"}


def _drive(session: Session, job: Job, report: Callable[[str, int, int], None]) -> list[samples.PointSamples]:
    """A pass over the load, or a search on top of what earlier passes showed."""
    load = job.variant.load
    if job.search is not None and job.known is not None:
        return capacity_search.run(session, load, job.search, samples_file.load(job.known), report)
    batch = job.variant.engine.batch
    return load_curve.measure(session, load, batch=batch, repeat=job.repeat, rates_ips=job.rates_ips, report=report)


def _notes(variant: Variant, converted: JsonDict, model: JsonDict) -> list[str]:
    """What the table says beside the figures, with an asterisk."""
    guarded = converted.get("guarded")
    notes = [f"{len(guarded)} nodes stay in fp32, for they overflow fp16 (engine.guarded)"] if guarded else []
    drawn = converted.get("calibration")
    if drawn and drawn["source"] == artifacts.RANDOM and variant.onnx.precision.quantize_ops:
        notes.append(RANDOM_RANGES)
    if model["opset_of_file"]:
        old, name = model["opset_of_file"], variant.onnx.model.name
        notes.append(f"{name} is of opset {old}: upgraded to {model['opset']} by onnx.version_converter")
    return [*notes, PRUNED] if variant.onnx.prune else notes


def _feeds(variant: Variant, backend: Backend) -> dict[str, np.ndarray]:
    """The inputs that are timed; a backend that computes nothing needs none of the user's."""
    model, batch = variant.onnx.model, variant.engine.batch
    return evaluation.feeds(variant, batch) if backend.runs_models else models.feeds(model, batch, variant.load.seed)


def _engine_facts(variant: Variant, typed: Path, engine: Entry) -> JsonDict:
    converted = not precision.passes_through(variant.onnx.precision)
    return {
        "key": engine.path.name,
        "onnx_key": typed.parent.name if converted else spec.onnx_key(variant),
        "build_s": engine.seconds,
        "cached": engine.cached,
        "bytes": engine.bytes,
        "device_memory_bytes": None,
        "artifacts": [f"artifacts/{engine.path.name}/{name}" for name in engine.info.get("artifacts", ())],
    }
