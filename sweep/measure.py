"""One pass of one variant, inside the worker: model -> typed ONNX -> engine -> session -> load -> samples."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from sweep import accuracy, axes, held, models, prepare, samples, scoring, typed_onnx
from sweep.backends import registry
from sweep.backends.base import GivesEachStreams
from sweep.cache import Cache, Entry
from sweep.load import curve, points, search, servers
from sweep.load.meeting import ALONE, Member, in_turn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    import numpy as np

    from sweep.axes import JsonDict, LoadAxes, Variant
    from sweep.backends.base import Backend, Session
    from sweep.load.meeting import Meeting

Made = TypeVar("Made")
_TOLD_S = 1.0  # between two words on how far the scoring is
_BURST_S = 0.2  # on all streams, before the outputs are looked at once more
_SHORT_BURST_S = 0.002  # of those that follow on a GPU, each with a look
_LOOKS_S = 1.2  # of bursts and looks together
ROUNDED = "emulated: every 16-bit tensor is rounded, arithmetic between them is fp32"
RANDOM_RANGES = "ranges of activations come from seeded random inputs; model.calibration= takes your own"
PRUNED = "weights pruned 2:4 by magnitude: speed counts, accuracy means nothing (the reference is pruned too)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What the worker is asked to do.

    Attributes:
        variant: what to measure.
        repeat: which pass, from 0.
        rates_ips: ladder of an earlier pass, samples/s; None places one.
        cache: root of the shared cache.
        samples: where the raw samples go (npz).
        cache_limit_bytes: what the cache may hold; None lets it grow.
        gates: what outputs have to keep, else the variant is invalid.
        search: the SLO whose capacity is searched, instead of a pass over the load; None for a pass.
        known: the variant's samples so far, where a capacity is searched (npz).
        accuracy: compare the outputs with fp32; the sentinel's were compared already.
        only_build: stop once the engine is in the cache.
    """

    variant: Variant
    repeat: int
    rates_ips: list[float] | None
    cache: Path
    samples: Path
    cache_limit_bytes: int | None = None
    gates: accuracy.Gates = field(default_factory=accuracy.Gates)
    search: search.Ask | None = None
    known: Path | None = None
    accuracy: bool = True
    only_build: bool = False

    @property
    def scores(self) -> bool:
        """Whether this is the pass whose accuracy stands in the record: the last one, and no search."""
        return self.accuracy and self.search is None and self.repeat == self.variant.load.repeats - 1


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
    source = prepare.model_file(variant, cache)
    model = prepare.model_facts(variant, source, cache)
    if backend.runs_models and job.accuracy and not job.only_build:
        held.look(variant)
    report("onnx")
    passed, rewritten = prepare.passed_file(variant, source, cache)
    typed, converted = prepare.converted_file(variant, passed, cache)
    report("build")
    engine = prepare.build_engine(variant, backend, typed, cache)
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
            samples.save(job.samples, measured, durable=False)  # a part: the variant's file is made of it
        report("accuracy", done=1.0)
        if session.partial_batches and variant.load.batch_wait_ms is not None:
            session.streams[0].enqueue()  # the last inference may have been a part; accuracy is that of the whole batch
            session.streams[0].wait()
        looks = backend.runs_models and job.accuracy
        found = _accuracy(variant, backend, (source, typed), feeds, session, cache) if looks else None
        if found is not None and job.scores:
            found |= _score(variant, backend, (source, typed), session, cache, _heard(report))
        prepare.model_file(variant, cache)  # raises where a user's file has changed since it was read
    finally:
        session.close()
    realised = {**session.realised, "notes": [*session.realised["notes"], *_notes(variant, converted, model)]}
    if accuracy.is_tf32(variant.onnx.precision.dtype, found):
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
        or accuracy.contradicts(variant.onnx.precision.dtype, found, job.gates),
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
        return search.run(session, load, job.search, samples.load(job.known), report)
    batch = job.variant.engine.batch
    return curve.measure(session, load, batch=batch, repeat=job.repeat, rates_ips=job.rates_ips, report=report)


def _notes(variant: Variant, converted: JsonDict, model: JsonDict) -> list[str]:
    """What the table says beside the figures, with an asterisk."""
    guarded = converted.get("guarded")
    notes = [f"{len(guarded)} nodes stay in fp32, for they overflow fp16 (engine.guarded)"] if guarded else []
    drawn = converted.get("calibration")
    if drawn and drawn["source"] == prepare.RANDOM and variant.onnx.precision.quantize_ops:
        notes.append(RANDOM_RANGES)
    if model["opset_of_file"]:
        old, name = model["opset_of_file"], variant.onnx.model.name
        notes.append(f"{name} is of opset {old}: upgraded to {model['opset']} by onnx.version_converter")
    return [*notes, PRUNED] if variant.onnx.prune else notes


def _feeds(variant: Variant, backend: Backend) -> dict[str, np.ndarray]:
    """The inputs that are timed; a backend that computes nothing needs none of the user's."""
    model, batch = variant.onnx.model, variant.engine.batch
    return held.feeds(variant, batch) if backend.runs_models else models.feeds(model, batch, variant.load.seed)


def _accuracy(
    variant: Variant,
    backend: Backend,
    files: tuple[Path, Path],
    feeds: Mapping[str, np.ndarray],
    session: Session,
    cache: Cache,
) -> JsonDict:
    """Errors of what was timed, then of every stream after further bursts. ``files``: fp32, typed.

    Where what was timed hides rounding, the first are those of a run that rounds.
    """
    source, typed = files
    expected = prepare.reference_outputs(variant, source, feeds, cache)
    emulation, timed = prepare.emulation(variant, backend), session.outputs()
    rounded = timed
    if emulation == "outputs":
        rounded = accuracy.run(prepare.emulated_file(variant, typed, cache), feeds)
    notes = ([ROUNDED] if emulation else []) + ([PRUNED] if variant.onnx.prune else [])
    own = variant.onnx.precision.tool == "none" and not typed_onnx.passes_through(variant.onnx.precision)
    reference = accuracy.TYPED_REFERENCE if own else accuracy.REFERENCE
    found = accuracy.against(expected, rounded, "; ".join(notes) or None, reference)
    ran: list[int] = []
    looks = _looks(session, variant.load.depth, _LOOKS_S if backend.on_gpu else 0.0, ran)
    again = {**accuracy.again(expected, timed, looks), "inferences": sum(ran)}
    return found | {"again": again}


def _looks(session: Session, depth: int, seconds: float, ran: list[int]) -> Iterator[dict[int, dict[str, np.ndarray]]]:
    """The outputs of every stream after each of several bursts on all of them; ``ran`` gets their inferences.

    The first burst is the longest. A GPU's kernels may race, once in a hundred inferences: it gets ``seconds``.
    """
    until = time.perf_counter() + seconds
    with servers.quiet_interpreter():  # each burst would collect garbage for 10 ms
        while not ran or time.perf_counter() < until:
            ran.append(points.burst(session, depth, _SHORT_BURST_S if ran else _BURST_S))
            if isinstance(session, GivesEachStreams):
                yield {number: session.outputs_of(number) for number in range(len(session.streams))}
            else:
                yield {0: session.outputs()}


def _heard(report: Callable[..., None]) -> Callable[[int], None]:
    """Says how far the scoring is, now and then: a worker that is silent for long is taken for one that hangs."""
    last = time.monotonic()

    def tell(done: int) -> None:
        nonlocal last
        if time.monotonic() - last >= _TOLD_S:
            last = time.monotonic()
            report("accuracy", f"{done:,} labelled samples", 1.0)

    return tell


def _score(
    variant: Variant,
    backend: Backend,
    files: tuple[Path, Path],
    session: Session,
    cache: Cache,
    tell: Callable[[int], None],
) -> JsonDict:
    """Top-1 of what was timed and of fp32, where samples have labels; of a run that rounds, as in ``_accuracy``."""
    labelled, batch = held.of(variant), variant.engine.batch
    if labelled is None:
        return {}
    source, typed = files
    rounding = prepare.emulation(variant, backend) == "outputs"
    infer = accuracy.runner(prepare.emulated_file(variant, typed, cache)) if rounding else session.infer
    score = scoring.score(labelled, batch, infer, tell)
    reference = prepare.reference_score(variant, source, labelled, cache, tell)
    return {"score": score, "reference_score": reference, "scored_on": labelled.what}


def _engine_facts(variant: Variant, typed: Path, engine: Entry) -> JsonDict:
    converted = not typed_onnx.passes_through(variant.onnx.precision)
    return {
        "key": engine.path.name,
        "onnx_key": typed.parent.name if converted else axes.onnx_key(variant),
        "build_s": engine.seconds,
        "cached": engine.cached,
        "bytes": engine.bytes,
        "device_memory_bytes": None,
        "artifacts": [f"artifacts/{engine.path.name}/{name}" for name in engine.info.get("artifacts", ())],
    }
