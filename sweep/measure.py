"""One pass of one variant, inside the worker: model -> typed ONNX -> engine -> session -> load -> samples."""

from __future__ import annotations

import importlib.metadata
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sweep import accuracy, axes, models, samples, typed_onnx
from sweep.backends import registry
from sweep.backends.base import Emulates
from sweep.cache import MANIFEST, Cache, Entry
from sweep.load import curve, search

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from sweep.axes import JsonDict, LoadAxes, ModelRef, Variant
    from sweep.backends.base import Backend, Session

MODEL_FILE = "model.onnx"
REFERENCE_FILE = "outputs.npz"
_CALIBRATION_SAMPLES = 8  # in each calibration batch
ROUNDED = "emulated: every 16-bit tensor is rounded, arithmetic between them is fp32"
PRUNED = "weights pruned 2:4 by magnitude: speed counts, accuracy means nothing (the reference is pruned too)"
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
        cache_limit_bytes: what the cache may hold; None lets it grow.
        min_sqnr_db: outputs further than this from the reference make the variant invalid; None for the default.
        search: the SLO whose capacity is searched, instead of a pass over the load; None for a pass.
        known: the variant's samples so far, where a capacity is searched (npz).
        accuracy: compare the outputs with fp32; the sentinel's were compared already.
    """

    variant: Variant
    repeat: int
    rates_ips: list[float] | None
    cache: Path
    samples: Path
    cache_limit_bytes: int | None = None
    min_sqnr_db: float | None = None
    search: search.Ask | None = None
    known: Path | None = None
    accuracy: bool = True


def measure(
    job: Job,
    report: Callable[..., None],
    note: Callable[[str], None],
    taken: Callable[[str], None] = lambda _key: None,
) -> JsonDict:
    """Do the job; its raw samples are on disk when this returns.

    Args:
        job: what to do.
        report: called as report(stage, detail, done) when a stage starts, done from 0 to 1.
        note: called with one line on what a user should know.
        taken: called with the key of the engine in the cache while this pass still claims it.

    Returns:
        {engine, realised, accuracy, mismatch, facts} as the record holds them.
    """
    with Cache(job.cache, job.cache_limit_bytes, note) as cache:
        return _measured(job, cache, report, taken)


def _measured(job: Job, cache: Cache, report: Callable[..., None], taken: Callable[[str], None]) -> JsonDict:
    """The pass; what it takes from the cache stays in use until it is over."""
    variant, backend = job.variant, registry.get(job.variant.backend)
    signature = models.signature(variant.onnx.model)
    report("model")
    source = model_file(variant, cache)
    report("onnx")
    typed, converted = converted_file(variant, source, cache)
    report("build")
    engine = build_engine(variant, backend, typed, cache)
    taken(engine.path.name)
    report("load")
    feeds = models.draw(signature, variant.engine.batch, variant.load.seed)
    start = time.perf_counter()
    session = backend.load(engine.path, engine.info, variant, feeds)
    load_s = time.perf_counter() - start
    try:
        samples.save(job.samples, _drive(session, job, lambda name, done, of: report("measure", name, done / of)))
        report("accuracy", done=1.0)
        if session.partial_batches and variant.load.batch_wait_ms is not None:
            session.streams[0].enqueue()  # the last inference may have been a part; accuracy is that of the whole batch
            session.streams[0].wait()
        found = _accuracy(variant, backend, (source, typed), session, cache) if job.accuracy else None
    finally:
        session.close()
    realised = {**session.realised, "notes": [*session.realised["notes"], *_notes(variant, converted)]}
    return {
        "engine": {**_engine_facts(variant, typed, engine), **converted, "load_s": load_s, **session.engine_facts},
        "realised": realised | _batching(variant.load, session),
        "mismatch": backend.mismatch(variant, session.realised)
        or accuracy.contradicts(variant.onnx.precision.dtype, found, job.min_sqnr_db),
        "accuracy": found,
    }


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


def model_file(variant: Variant, cache: Cache) -> Path:
    """The fp32 ONNX: a user's own file as it is, or the zoo's network from the cache; pruned if that is asked for."""
    dense = _dense_file(variant, cache)
    if variant.onnx.prune is None:
        return dense

    def build(folder: Path) -> JsonDict:
        return {"pruned": typed_onnx.prune(dense, folder / MODEL_FILE)}

    key = axes.digest("pruned", variant.onnx.prune, variant.onnx.model)
    return cache.get("models", key, build).path / MODEL_FILE


def _dense_file(variant: Variant, cache: Cache) -> Path:
    model = variant.onnx.model
    if model.path is not None:
        return models.resolve(model, cache.root)

    def build(folder: Path) -> JsonDict:
        models.resolve(model, folder / MODEL_FILE)
        return {"model": model.name, "revision": model.revision}

    return cache.get("models", model_key(model), build, {"model": model.name}).path / MODEL_FILE


def model_key(model: ModelRef) -> str:
    """Key of the zoo's network in the cache."""
    return axes.digest("model", model.name, model.revision)


def typed_file(variant: Variant, source: Path, cache: Cache) -> Path:
    """The ONNX whose types are the precision; fp32 is the source itself, once its types are seen to be so."""
    return converted_file(variant, source, cache)[0]


def converted_file(variant: Variant, source: Path, cache: Cache) -> tuple[Path, JsonDict]:
    """As ``typed_file``, and what the record says of the conversion: {convert_s, onnx_bytes, onnx_notes, guarded}."""
    precision = variant.onnx.precision
    if typed_onnx.passes_through(precision):
        typed_onnx.check_label(source, precision)
        return source, {}

    def build(folder: Path) -> JsonDict:
        converted = typed_onnx.convert(source, precision, calibration(variant), folder / MODEL_FILE)
        return {"dtypes": converted.dtypes, "notes": list(converted.notes), "guarded": list(converted.guarded)}

    about = {"model": variant.onnx.model.name, "precision": precision.name}
    entry = cache.get("onnx", onnx_cache_key(variant), build, about)
    told = {"onnx_notes": entry.info["notes"], "guarded": entry.info.get("guarded", [])}
    return entry.path / MODEL_FILE, {"convert_s": entry.seconds, "onnx_bytes": entry.bytes, **told}


def onnx_cache_key(variant: Variant) -> str:
    """Key of the typed ONNX in the cache: what was asked, and the converters that made it."""
    tools = {name: importlib.metadata.version(name) for name in typed_onnx.TOOLS}
    return axes.digest(axes.onnx_key(variant), typed_onnx.REVISION, tools)


def emulated_file(variant: Variant, typed: Path, cache: Cache) -> Path:
    """The typed graph in float32, rounded explicitly wherever it holds 16 bits."""

    def build(folder: Path) -> JsonDict:
        return {"rounded": typed_onnx.emulate(typed, folder / MODEL_FILE)}

    about = {"model": variant.onnx.model.name, "precision": f"{variant.onnx.precision.name}, emulated"}
    return cache.get("onnx", axes.digest("emulated", onnx_cache_key(variant)), build, about).path / MODEL_FILE


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
    built_from = emulated_file(variant, typed, cache) if _emulation(variant, backend) == "engine" else typed

    def shapes(batch: int) -> dict[str, tuple[int, ...]]:
        return {spec.name: spec.concrete(batch) for spec in signature.inputs}

    return cache.get(
        "engines",
        engine_cache_key(variant, backend, built_from),
        lambda folder: backend.build(built_from, variant, shapes, folder),
        _about_engine(variant, backend),
    )


def _about_engine(variant: Variant, backend: Backend) -> JsonDict:
    """What a person looking at the cache wants to know of an engine; it decides nothing."""
    facts, knobs = backend.facts(), axes.projection(variant.engine)
    return {
        "model": variant.onnx.model.name,
        "precision": variant.onnx.precision.name,
        "batch": knobs.pop("batch", None),
        "knobs": knobs,
        "library": facts.get("tensorrt") or f"{backend.name} {facts.get(backend.name, '')}".rstrip(),
    }


def engine_cache_key(variant: Variant, backend: Backend, typed: Path) -> str:
    """Key of the built engine: what was asked, of which graph and weights, by which library and processor.

    Args:
        variant: its engine axes.
        backend: builds it.
        typed: the typed ONNX, whose content counts and whose place does not.
    """
    from sweep import facts

    machine: dict[str, Any] = facts.machine()
    built_by = {name: value for name, value in backend.facts().items() if name not in _OUTLIVED}
    hardware = [machine[name] for name in ("cpu", "gpu", "compute_capability")]
    return axes.digest(axes.engine_key(variant), built_by, *hardware, _content(typed))


def _notes(variant: Variant, converted: JsonDict) -> list[str]:
    """What the table says beside the figures, with an asterisk."""
    guarded = converted.get("guarded")
    notes = [f"{len(guarded)} nodes stay in fp32, for they overflow fp16 (engine.guarded)"] if guarded else []
    return [*notes, PRUNED] if variant.onnx.prune else notes


def _emulation(variant: Variant, backend: Backend) -> str | None:
    return backend.emulation(variant) if isinstance(backend, Emulates) else None


def _accuracy(
    variant: Variant, backend: Backend, files: tuple[Path, Path], session: Session, cache: Cache
) -> JsonDict | None:
    """Errors of what was timed; of a run that rounds, where what was timed hides rounding. ``files``: fp32, typed."""
    if not backend.runs_models:
        return None
    source, typed = files
    feeds = models.draw(models.signature(variant.onnx.model), variant.engine.batch, variant.load.seed)
    emulation, outputs = _emulation(variant, backend), session.outputs()
    if emulation == "outputs":
        outputs = accuracy.run(emulated_file(variant, typed, cache), feeds)
    notes = ([ROUNDED] if emulation else []) + ([PRUNED] if variant.onnx.prune else [])
    expected = reference_outputs(variant, source, feeds, cache)
    return accuracy.against(expected, outputs, "; ".join(notes) or None)


def reference_outputs(
    variant: Variant, source: Path, feeds: Mapping[str, np.ndarray], cache: Cache
) -> dict[str, np.ndarray]:
    """Outputs of the fp32 graph for these inputs, computed once for all engines that are held against them."""

    def build(folder: Path) -> JsonDict:
        np.savez(folder / REFERENCE_FILE, **accuracy.run(source, feeds))  # type: ignore[arg-type]  # allow_pickle is none
        return {}

    drawn = (variant.onnx.model.inputs, variant.engine.batch, variant.load.seed)
    key = axes.digest("reference", _content(source), *drawn, importlib.metadata.version("onnxruntime"))
    about = {"model": variant.onnx.model.name, "precision": "fp32", "batch": variant.engine.batch}
    with np.load(cache.get("references", key, build, about).path / REFERENCE_FILE, allow_pickle=False) as file:
        return dict(file)


def _content(onnx: Path) -> Any:
    """What tells this graph and its weights from any other; of a file in the cache its manifest says it."""
    manifest = onnx.parent / MANIFEST
    return json.loads(manifest.read_bytes())["files"] if manifest.is_file() else models.file_digest(onnx)


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
