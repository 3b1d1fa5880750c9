"""Measure one pass of a pipeline: the artifacts of each stage -> one session -> load -> samples -> result.

A request is one run through all stages, so that load, samples and verdicts are those of a single network.
"""

from __future__ import annotations

import contextlib
import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from sweep import models, spec
from sweep.analysis import accuracy as figures
from sweep.analysis import accuracy_gates
from sweep.backends import HOST_STEPS, Call, PipelinePart, SupportsPipelines, drawn_rows, registry, slices
from sweep.errors import SessionError, SweepError
from sweep.loadgen import ClientSession, in_rank_order
from sweep.runner.messages import Result
from sweep.runner.worker import marked_streams, reference
from sweep.runner.worker.accuracy_check import ROUNDED, outputs_under_load
from sweep.runner.worker.artifact_keys import file_content
from sweep.runner.worker.artifacts import emulated_file, emulation, make_artifacts
from sweep.storage import samples_file
from sweep.system import ClockWatch, Stopwatch, array_files, clock_jumps, environment, host_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from sweep.backends import Backend, Session
    from sweep.loadgen import Communicator
    from sweep.runner.messages import Request
    from sweep.runner.worker.artifacts import Artifacts
    from sweep.runner.worker.events import Events
    from sweep.runner.worker.reference import Infer
    from sweep.spec import JsonDict, Pipeline, Stage, Variant
    from sweep.storage import Accuracy, EngineInfo, ModelCost, PointSamples, Realised, StageEngine
    from sweep.storage.cache import Cache

    Arrays = Mapping[str, np.ndarray]
    Drive = Callable[[Session, Request, Callable[[str, int, int], None]], list[PointSamples]]

_MOST_GMACS = 5_000.0  # of the reference of one request: minutes on a few cores
_REFERENCE = "onnxruntime fp32, all stages, same inputs"


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltStage:
    """Hold what one stage is made of.

    Attributes:
        stage: the stage.
        variant: the variant of its network alone; that of the pipeline for a host step.
        artifacts: its graphs and its engine; None for a host step.
    """

    stage: Stage
    variant: Variant
    artifacts: Artifacts | None

    def part(self, seed: int) -> PipelinePart:
        """Return what a backend loads."""
        if self.artifacts is None:
            return PipelinePart(stage=self.stage, variant=self.variant)
        network, batch = models.signature(self.variant.onnx.model), self.variant.engine.batch
        return PipelinePart(
            stage=self.stage,
            variant=self.variant,
            engine=self.artifacts.engine.path,
            info=self.artifacts.engine.info,
            feeds=models.draw(network, batch, seed),
            row_inputs=frozenset(item.name for item in network.inputs if item.batch_axis == 0),
        )


def stage_variant(variant: Variant, stage: Stage) -> Variant:
    """Return the variant of the network of a stage alone."""
    assert stage.model is not None  # noqa: S101 - for mypy: only networks are asked for
    precision = stage.precision or variant.onnx.precision
    graph = variant.session.cuda_graph if stage.cuda_graph is None else stage.cuda_graph
    return dataclasses.replace(
        variant,
        onnx=spec.OnnxAxes(model=stage.model, precision=precision, graph=variant.onnx.graph, prune=variant.onnx.prune),
        engine=dataclasses.replace(variant.engine, batch=stage.batch or variant.engine.batch),
        session=dataclasses.replace(variant.session, cuda_graph=graph),
        pipeline=None,
    )


def measure(request: Request, events: Events, communicator: Communicator, cache: Cache, drive: Drive) -> Result:
    """Do what `request` asks of a pipeline; its raw samples are on disk when this returns.

    Args:
        request: what to do.
        events: hears of each stage, and of the engines' keys.
        communicator: connects the clients that measure this variant.
        cache: keeps what is made.
        drive: puts a session under the load of a request.

    Raises:
        SweepError: a stage of the pipeline failed; the message names it.
    """
    variant, backend, watch = request.variant, registry.get(request.variant.backend), ClockWatch()
    assert variant.pipeline is not None  # noqa: S101 - for mypy: only variants with one come here
    built = [_build(variant, stage, backend, cache, events, request.build) for stage in variant.pipeline.stages]
    if request.only_build:
        return Result(engine=_engine_facts(built))
    if request.layers is not None:
        raise SessionError("layers=true profiles one network; give model=NAME in place of pipeline=, a stage at a time")
    events.stage("load")
    externals = draw_externals(built, variant)
    session, load_s = in_rank_order(communicator, lambda: _load(backend, built, variant, externals))
    try:
        driven = session if communicator.size == 1 else ClientSession(session, communicator)
        with marked_streams.marked_inferences(session, None):
            points = drive(driven, request, lambda name, done, of: events.stage("measure", name, done / of))
        if communicator.rank == 0:
            samples_file.save(request.samples, points, durable=False)
        events.stage("accuracy", done=1.0)
        accuracy, note = None, None
        if backend.runs_models and request.accuracy:
            accuracy, note = _check(built, variant, session, externals, cache)
    finally:
        session.close()
    if watch.jump_s():
        raise clock_jumps.jumped(watch.jump_s())
    return _describe(request, backend, built, session, (load_s, accuracy, note))


def _build(
    variant: Variant, stage: Stage, backend: Backend, cache: Cache, events: Events, build: str | None
) -> BuiltStage:
    if stage.host is not None:
        return BuiltStage(stage=stage, variant=variant, artifacts=None)
    own = stage_variant(variant, stage)
    with _named(stage):
        return BuiltStage(stage=stage, variant=own, artifacts=make_artifacts(own, backend, cache, events, build))


@contextlib.contextmanager
def _named(stage: Stage) -> Iterator[None]:
    """Put the name of a stage in front of an error's message."""
    try:
        yield
    except SweepError as error:
        error.args = (f"stage {stage.name}: {error}",)
        raise


def draw_externals(built: Sequence[BuiltStage], variant: Variant) -> dict[str, np.ndarray]:
    """Return the tensors that come from outside, each as the first network takes it that reads it."""
    assert variant.pipeline is not None  # noqa: S101 - for mypy: only variants with one come here
    values: dict[str, np.ndarray] = {}
    for tensor in (link.tensor for link in variant.pipeline.externals()):
        reader, port = next(
            (item, link.port)
            for item in built
            if item.artifacts is not None
            for link in item.stage.inputs
            if link.tensor == tensor
        )
        network = models.signature(reader.variant.onnx.model)
        values[tensor] = models.draw(network, variant.engine.batch, variant.load.seed)[port]
    return values


def _load(backend: Backend, built: Sequence[BuiltStage], variant: Variant, externals: Arrays) -> tuple[Session, float]:
    """Load the engines as one session, and time that, s."""
    assert isinstance(backend, SupportsPipelines)  # noqa: S101 - for mypy: the plan refuses the others
    before, watch = host_memory.resident_bytes(), Stopwatch()
    known = host_memory.reset_peak() and backend.runs_models
    session = backend.load_pipeline([item.part(variant.load.seed) for item in built], variant, externals)
    seconds = watch.seconds()
    if known:
        session.engine_facts["host_memory_bytes"] = host_memory.peak_bytes()
        session.engine_facts["host_memory_before_bytes"] = before
    return session, seconds


def by_hand(
    pipeline: Pipeline,
    infers: Mapping[str, Infer],
    batches: Mapping[str, int],
    first: Arrays,
    size: int,
    rows: Mapping[int, int],
) -> dict[str, np.ndarray]:
    """Run the stages of one request one by one, on arrays.

    Args:
        pipeline: its stages.
        infers: function that runs the network of each stage, by the name of the stage.
        batches: rows of one inference of each.
        first: tensors that come from outside.
        size: samples of the request.
        rows: rows that the host steps draw, by the number of the stage.

    Returns:
        The outputs of the pipeline, by the names of the tensors.
    """
    values = dict(first)
    for number, run in pipeline.runs():
        stage = pipeline.stages[number]
        inputs = {link.port: values[link.tensor] for link in stage.inputs}
        with _named(stage):
            if stage.host is not None:
                call = Call(run=run, count=stage.count, batch=size, rows=rows.get(number))
                outputs = HOST_STEPS[stage.host].run(inputs, call)
            else:
                outputs = _sliced(infers[stage.name], stage, inputs, batches[stage.name])
        values |= {link.tensor: outputs[link.port] for link in stage.outputs}
    return {name: values[name] for name in pipeline.outputs}


def _sliced(infer: Infer, stage: Stage, inputs: Arrays, batch: int) -> dict[str, np.ndarray]:
    """Run a network over the rows of its inputs in slices of its batch, the last one filled up with the first rows."""
    assert stage.model is not None  # noqa: S101 - for mypy: only networks are run
    by_row = {item.name for item in models.signature(stage.model).inputs if item.batch_axis == 0}
    rows = next((len(value) for port, value in inputs.items() if port in by_row), None)
    if rows is None or rows == batch:
        return infer(inputs)
    parts = []
    for start in slices(rows, batch):
        places = np.arange(start, start + batch) % rows
        parts.append(infer({port: value[places] if port in by_row else value for port, value in inputs.items()}))
    return {
        name: np.concatenate([part[name] for part in parts])[:rows] if len(value) == batch else value
        for name, value in parts[0].items()
    }


def _gmacs(built: Sequence[BuiltStage]) -> float:
    """Return the multiply-adds of one request, 1e9."""
    return sum(
        (item.artifacts.model["gmacs"] or 0.0) * item.variant.engine.batch * item.stage.count
        for item in built
        if item.artifacts is not None and item.artifacts.model is not None
    )


def _check(
    built: Sequence[BuiltStage], variant: Variant, session: Session, externals: Arrays, cache: Cache
) -> tuple[Accuracy | None, str | None]:
    """Compare the outputs of the session with those of the fp32 pipeline; None where that takes too long."""
    gmacs = _gmacs(built)
    if gmacs > _MOST_GMACS:
        return None, f"not compared: the fp32 pipeline takes {gmacs:,.0f} GMACs a request, above {_MOST_GMACS:,.0f}"
    expected = _reference(built, variant, externals, cache)
    first = session.infer(externals)
    rounded, note = first, None
    if any(_emulates(item) for item in built):
        rounded, note = _run(built, variant, externals, lambda item: _rounding_file(item, cache)), ROUNDED
    compared = figures.against(expected, rounded, note, _REFERENCE)
    left_out = figures.left_out(expected, first, first)
    if left_out:
        compared["not_compared"] = left_out
    inferences: list[int] = []
    draws = any(stage.rows is not None for stage in (item.stage for item in built))
    looks = (
        outputs_under_load(session, variant.load, inferences) if not draws else iter([{0: session.infer(externals)}])
    )
    repeated = figures.again(expected, first, looks)
    repeated["inferences"] = sum(inferences)
    compared["again"] = repeated
    return compared, None


def _emulates(item: BuiltStage) -> bool:
    return item.artifacts is not None and emulation(item.variant, registry.get(item.variant.backend)) == "outputs"


def _rounding_file(item: BuiltStage, cache: Cache) -> Path:
    assert item.artifacts is not None and item.artifacts.onnx is not None  # noqa: S101, PT018 - for mypy: a network
    typed = item.artifacts.onnx.typed
    return emulated_file(item.variant, typed, cache) if _emulates(item) else typed


def _run(
    built: Sequence[BuiltStage], variant: Variant, externals: Arrays, file: Callable[[BuiltStage], Path]
) -> dict[str, np.ndarray]:
    """Run the graphs that `file` names on onnxruntime, with the rows of the first request of the first stream."""
    assert variant.pipeline is not None  # noqa: S101 - for mypy: only variants with one come here
    networks = [item for item in built if item.artifacts is not None]
    infers = {item.stage.name: reference.runner(file(item)) for item in networks}
    batches = {item.stage.name: item.variant.engine.batch for item in networks}
    rows = {number: drawn[0] for number, drawn in drawn_rows(variant.pipeline, variant.load.seed, 0).items()}
    return by_hand(variant.pipeline, infers, batches, externals, variant.engine.batch, rows)


def _reference(built: Sequence[BuiltStage], variant: Variant, externals: Arrays, cache: Cache) -> dict[str, np.ndarray]:
    """Compute the outputs of the fp32 pipeline, once for all precisions."""

    def model(item: BuiltStage) -> Path:
        assert item.artifacts is not None and item.artifacts.onnx is not None  # noqa: S101, PT018 - as above
        return item.artifacts.onnx.model

    def build(folder: Path) -> JsonDict:
        outputs = _run(built, variant, externals, model)
        np.savez(folder / reference.REFERENCE_FILE, **outputs)  # type: ignore[arg-type]  # allow_pickle is none
        return {}

    stages = [
        (item.stage.name, item.stage.host, item.stage.inputs, item.stage.outputs, item.stage.loop, item.stage.count)
        for item in built
    ]
    rows = [(item.stage.rows, item.stage.most_rows, item.variant.engine.batch) for item in built]
    files = [file_content(model(item)) for item in built if item.artifacts is not None]
    assert variant.pipeline is not None  # noqa: S101 - for mypy: only variants with one come here
    identity = (variant.pipeline.outputs, variant.engine.batch, variant.load.seed)
    key = spec.digest(
        "pipeline", *map(tuple, stages), *rows, files, *identity, environment.library_version("onnxruntime")
    )
    entry = cache.get("references", key, build, {"model": variant.pipeline.name, "precision": "fp32"})
    return array_files.read_arrays(entry.path / reference.REFERENCE_FILE, follow=False)


def _engine_facts(built: Sequence[BuiltStage]) -> EngineInfo:
    """Return what ``Record.engine`` says of the engines together, and of each."""
    each: list[StageEngine] = []
    files: list[str] = []
    for item in built:
        if item.artifacts is None:
            continue
        facts = item.artifacts.engine_facts(item.variant)
        files += facts.get("artifacts", [])
        each.append(
            {
                "stage": item.stage.name,
                "engine": facts["key"],
                "precision": item.variant.onnx.precision.name,
                "batch": item.variant.engine.batch,
                "build_s": facts["build_s"],
                "bytes": facts["bytes"],
                "plan_digest": facts["plan_digest"],
            }
        )
    digests = [facts["plan_digest"] for facts in each]
    return {
        "key": spec.digest("pipeline", *[facts["engine"] for facts in each]),
        "build_s": sum(facts["build_s"] or 0.0 for facts in each),
        "cached": all(item.artifacts.engine.cached for item in built if item.artifacts is not None),
        "plan_digest": None if None in digests else spec.digest("pipeline", *digests),
        "bytes": sum(facts["bytes"] or 0 for facts in each),
        "device_memory_bytes": None,
        "artifacts": files,
        "stages": each,
    }


def _costs(built: Sequence[BuiltStage]) -> ModelCost:
    """Return the weights of all networks, and the multiply-adds of one sample through all runs of all stages."""
    costs = [(item, item.artifacts.model) for item in built if item.artifacts is not None and item.artifacts.model]
    known = [cost["gmacs"] * item.stage.count for item, cost in costs if cost["gmacs"] is not None]
    return {
        "parameters": sum(cost["parameters"] for _, cost in costs),
        "gmacs": sum(known) if len(known) == len(costs) else None,
        "opset": None,
        "opset_of_file": None,
        "made_from": None,
    }


def _coarsest_type(built: Sequence[BuiltStage]) -> str:
    """Return the type of the stages that may lose most, by what it has to keep; fp32 where all are."""
    dtypes = {item.variant.onnx.precision.dtype for item in built if item.artifacts is not None}
    return min(sorted(dtypes - {"fp32"}), key=accuracy_gates.least_db, default="fp32")


def _describe(
    request: Request,
    backend: Backend,
    built: Sequence[BuiltStage],
    session: Session,
    timed: tuple[float, Accuracy | None, str | None],
) -> Result:
    """Return what the record says of this pass."""
    load_s, accuracy, note = timed
    realised: JsonDict = dict(session.realised)
    each: JsonDict = realised.pop("stages", {})
    realised["notes"] = [*realised["notes"], *([note] if note else [])]
    if backend.runs_models:
        realised["inputs"] = f"random, seed {request.variant.load.seed}"
    mismatch, gate = None, None
    for item in built:
        if mismatch is None and item.stage.name in each:
            own = backend.mismatch(item.variant, each[item.stage.name])
            mismatch = None if own is None else f"stage {item.stage.name}: {own}"
    fault = accuracy_gates.fault(_coarsest_type(built), accuracy, request.gates)
    if mismatch is None and fault is not None:
        mismatch, gate = fault.message, fault.gate
    facts = {**_engine_facts(built), "load_s": load_s, **session.engine_facts}
    return Result(
        model=_costs(built),
        engine=cast("EngineInfo", facts),
        realised=cast("Realised", realised),
        accuracy=accuracy,
        mismatch=mismatch,
        gate=gate,
    )
