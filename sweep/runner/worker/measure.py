"""Measure one pass of one variant, inside the worker: artifacts -> session -> load -> samples -> result."""

from __future__ import annotations

import contextlib
import functools
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from sweep import models, spec
from sweep.analysis import accuracy_gates
from sweep.backends import SupportsTurns, registry
from sweep.loadgen import (
    SINGLE_CLIENT,
    ClientSession,
    capacity_search,
    compiled_loop,
    in_rank_order,
    issue_loops,
    load_curve,
    shape_switch,
)
from sweep.models import evaluation
from sweep.runner.messages import Result
from sweep.runner.worker import (
    layer_profile,
    marked_streams,
    neighbours,
    pass_notes,
    pipeline_pass,
    plan_import,
    refused_inputs,
    shaped_session,
)
from sweep.runner.worker.accuracy_check import check_accuracy, heartbeat, score_session
from sweep.runner.worker.artifacts import make_artifacts, sibling_file
from sweep.runner.worker.compared_inputs import ComparedInputs
from sweep.runner.worker.model_files import model_file
from sweep.spec import shape_text
from sweep.storage import samples, samples_file
from sweep.storage.cache import Cache
from sweep.system import ClockWatch, Stopwatch, clock_jumps, host_memory, nvtx_ranges

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np

    from sweep.backends import Backend, Session, SupportsShapeProfiles
    from sweep.loadgen import Communicator
    from sweep.runner.messages import Request
    from sweep.runner.worker.artifacts import Artifacts
    from sweep.runner.worker.events import Events
    from sweep.spec import Variant
    from sweep.storage import Accuracy, EngineInfo, Realised, ShapeChange

    Arrays = Mapping[str, np.ndarray]

_NO_ENGINE: EngineInfo = {"key": ""}  # of a network beside the measured one, whose record is not written


@dataclass(frozen=True, slots=True, kw_only=True)
class _Timed:
    """Hold what a session did.

    Attributes:
        load_s: duration of loading, s.
        turns: batches that the requests took in turn.
        batches: batches that they should have taken.
        accuracy: errors of the outputs; None where none were compared.
        smaller: those of the engines of the smaller shapes of a load, the smallest first.
        beside_mismatch: how a network beside this one differs from what was requested, in one line; None if none does.
    """

    load_s: float
    turns: int
    batches: int
    accuracy: Accuracy | None
    smaller: list[Accuracy]
    beside_mismatch: str | None = None

    def notes(self) -> list[str]:
        """Return what the table says where the inputs of all requests were the same, and should not have been."""
        if self.turns == self.batches:
            return []
        return ["timed on the first batch of the samples: its inputs stay on the device, or sizes depend on the data"]


def measure(request: Request, events: Events, communicator: Communicator = SINGLE_CLIENT) -> Result:
    """Do what `request` asks; its raw samples are on disk when this returns.

    Args:
        request: what to do.
        events: hears of each stage, of the engine's key, and of what the user should know.
        communicator: connects the clients that measure this variant; the first one writes the samples of all.

    Returns:
        What this client found; the engine alone where the request ends with the build, or is for its layers.
    """
    variant, backend, watch = request.variant, registry.get(request.variant.backend), ClockWatch()
    ranges = nvtx_ranges.attached_ranges()
    with (
        marked_streams.marked_stages(events, variant.label, ranges),
        Cache(request.cache, request.cache_limit_bytes, events.note) as cache,  # pins what the pass uses until its end
        refused_inputs.explained(variant, cache) if _is_one_model(variant, backend) else contextlib.nullcontext(),
    ):
        if variant.pipeline is not None:
            return pipeline_pass.measure(request, events, communicator, cache, _drive)
        load_beside = functools.partial(_load_beside, backend, cache, events)
        if variant.session.beside is not None and communicator.rank:
            neighbours.serve(request, events, communicator, load_beside)
            return Result(engine=_NO_ENGINE)
        events.stage("model")
        loops = _load_loops(variant, backend)
        if backend.runs_models and request.accuracy and not request.only_build:
            evaluation.look(variant)
        made = [
            (each, make_artifacts(each, backend, cache, events, request.build))
            for each in shaped_session.variants_with_engines(variant, backend)
        ]
        artifacts = made[-1][1]
        _await_loops(loops, events)  # before the engine is loaded, whose time the record tells
        done = _without_load(request, backend, artifacts, cache, events)
        if done is not None:
            return done
        engines = [
            shaped_session.ShapedEngine(variant=each, artifacts=own, inputs=timed_inputs(each, backend, own))
            for each, own in shaped_session.served_by(made, backend)
        ]
        inputs = engines[-1].inputs
        session, load_s = in_rank_order(communicator, lambda: _load(backend, engines))
        try:
            turns = _take_turns(session, inputs)
            with marked_streams.marked_inferences(session, ranges):
                points, beside_mismatch = _drive_all(session, request, communicator, events, load_beside)
            if communicator.rank == 0:
                samples_file.save(request.samples, points, durable=False)  # the variant's own file is made of these
            if turns > 1:
                _return_to_first(session, inputs)
            _measure_shape_changes(session, request, communicator)
            accuracy = _check(session, request, artifacts, inputs, (cache, events))
            others_accuracy = shaped_session.check_smaller(session, request, cache)
            if variant.reference is not None:
                model_file(variant, cache)  # raises where a user's file has changed since it was read
            if variant.onnx.precision.path is not None:
                sibling_file(variant, cache)  # likewise
        finally:
            session.close()
        if watch.jump_s():  # between two points, whose windows share the budget of the pass
            raise clock_jumps.jumped(watch.jump_s())
    timed = _Timed(
        load_s=load_s,
        turns=turns,
        batches=len(inputs.batches),
        accuracy=accuracy,
        smaller=others_accuracy,
        beside_mismatch=beside_mismatch,
    )
    return _describe(request, artifacts, session, timed)


def _load_loops(variant: Variant, backend: Backend) -> Future[float | None]:
    """Load the compiled loops beside what else precedes the window, where the variant's streams may use them.

    Returns:
        How long they took to compile, s; None where they were read from the disk or are not needed.
    """
    loaded: Future[float | None] = Future()
    if not (backend.on_gpu and variant.session.cuda_graph and compiled_loop.is_enabled()):
        loaded.set_result(None)
        return loaded

    def load() -> None:
        try:
            loaded.set_result(compiled_loop.load())
        except BaseException as error:  # noqa: BLE001 - raised where the result is read
            loaded.set_exception(error)

    threading.Thread(target=load, daemon=True).start()
    return loaded


def _await_loops(loops: Future[float | None], events: Events) -> None:
    compiled_s = loops.result()
    if compiled_s is not None:
        events.note(f"compiled the loops that issue requests in {compiled_s:.0f} s, once for this machine")


def _without_load(
    request: Request, backend: Backend, artifacts: Artifacts, cache: Cache, events: Events
) -> Result | None:
    """Return the result of a request that ends with the build, or is for the layers of the engine; None for others."""
    variant = request.variant
    if request.only_build:
        for other in spec.members_of(variant)[1:]:
            make_artifacts(other, backend, cache, events)
        return Result(engine=artifacts.engine_facts(variant))
    if request.layers is not None and request.client:
        return Result(engine=artifacts.engine_facts(variant))  # the first client alone profiles
    events.stage("load")
    if request.layers is None:
        return None
    inputs = timed_inputs(variant, backend, artifacts)
    layer_profile.write_profile(request.layers, variant, artifacts, inputs.batches[0], events)
    return Result(engine=artifacts.engine_facts(variant))


def _is_one_model(variant: Variant, backend: Backend) -> bool:
    return backend.runs_models and variant.pipeline is None


def timed_inputs(variant: Variant, backend: Backend, artifacts: Artifacts) -> ComparedInputs:
    """Return the inputs that are timed; a backend that computes nothing needs none of the user's."""
    model, batch, plan = variant.onnx.model, variant.engine.batch, variant.engine.plan
    if plan is not None and variant.load.samples is None:
        return _single(plan_import.feeds(variant, artifacts.engine.info), batch)
    if not backend.runs_models:
        return _single(models.feeds(model, batch, variant.load.seed), batch)
    batches, counts = zip(*evaluation.turns(variant), strict=True)
    inputs = ComparedInputs(batches=batches, counts=counts, size=evaluation.samples_of_an_inference(variant))
    if plan is None:
        return inputs
    info = artifacts.engine.info
    return inputs.changed(lambda feeds: plan_import.fed(variant, info, feeds))


def _single(feeds: Arrays, batch: int) -> ComparedInputs:
    return ComparedInputs(batches=(feeds,), counts=(batch,), size=batch)


def _take_turns(session: Session, inputs: ComparedInputs) -> int:
    """Let requests take the batches in turn, where there are several; return how many do."""
    if len(inputs.batches) > 1 and isinstance(session, SupportsTurns):
        return session.take_turns(inputs.batches)
    return 1


def _return_to_first(session: Session, inputs: ComparedInputs) -> None:
    """Run the first batch once more on every stream: its outputs are looked at next."""
    if isinstance(session, SupportsTurns):
        session.take_turns(inputs.batches[:1])
    for stream in session.streams:
        stream.enqueue()
        stream.wait()


def _measure_shape_changes(session: Session, request: Request, communicator: Communicator) -> None:
    """Measure what a change between the shapes of the load costs, in the pass whose settings stand in the record.

    Nothing is measured with several clients: the others would have to stand still.
    """
    names = [shape_text(shape) for shape in request.variant.load.engine_shapes]
    if not (names and request.scores and communicator.size == 1):
        return
    changes: list[ShapeChange] = [
        cast(
            "ShapeChange",
            {
                "shape": names[row["engine"]],
                "after": names[row["after"]],
                **{name: value for name, value in row.items() if name not in {"engine", "after"}},
            },
        )
        for row in shape_switch.measure(session, len(names))
    ]
    session.realised["shape_changes"] = changes


def _load(backend: Backend, engines: Sequence[shaped_session.ShapedEngine]) -> tuple[Session, float]:
    """Load the engines, and time that, in seconds; their facts get the memory of the host that this took."""
    before = host_memory.resident_bytes()
    known = host_memory.reset_peak() and backend.runs_models
    watch = Stopwatch()
    sessions: list[Session] = []
    with contextlib.ExitStack() as loaded:  # closes them where a later one cannot be loaded
        if len(engines) > 1 and engines[-1].variant.engine.profiles is not None:
            entry = engines[-1].artifacts.engine
            feeds = [each.inputs.batches[0] for each in engines]
            sessions += cast("SupportsShapeProfiles", backend).load_shapes(
                entry.path, entry.info, engines[-1].variant, feeds
            )
        else:
            for each in engines:
                entry = each.artifacts.engine
                sessions.append(backend.load(entry.path, entry.info, each.variant, each.inputs.batches[0]))
                loaded.callback(sessions[-1].close)
        loaded.pop_all()
    session = shaped_session.combine(sessions, engines)
    seconds = watch.seconds()
    if known:
        session.engine_facts["host_memory_bytes"] = host_memory.peak_bytes()
        session.engine_facts["host_memory_before_bytes"] = before
    return session, seconds


def _load_beside(backend: Backend, cache: Cache, events: Events, member: Variant) -> Session:
    """Load a network that runs beside the measured one."""
    artifacts = make_artifacts(member, backend, cache, events)
    events.stage("load")
    inputs = timed_inputs(member, backend, artifacts)
    return backend.load(artifacts.engine.path, artifacts.engine.info, member, inputs.batches[0])


def _drive_all(
    session: Session, request: Request, communicator: Communicator, events: Events, load_beside: neighbours.Loader
) -> tuple[list[samples.PointSamples], str | None]:
    """Put the session under its load, together with other clients of it or beside other networks.

    Returns:
        The samples, and how a network beside it differs from what was requested, in one line.
    """
    company: neighbours.Neighbours | None = None

    def report(name: str, done: int, of: int) -> None:
        if company is not None:
            company.check()
        events.stage("measure", name, done / of)

    if request.variant.session.beside is None:
        driven = session if communicator.size == 1 else ClientSession(session, communicator)
        return _drive(driven, request, report), None
    company = neighbours.Neighbours(request, communicator, load_beside)
    try:
        company.start()
        points = _drive(session, request, report)
        session.realised["beside"], mismatch = company.stop(points)
    finally:
        company.close()
    return points, mismatch


def _drive(session: Session, request: Request, report: Callable[[str, int, int], None]) -> list[samples.PointSamples]:
    """Put the session under the load of the request, or search the capacity on top of what earlier passes showed."""
    load = request.variant.load
    if not session.virtual:
        loop = issue_loops.loop_name(session.streams, mixed=load.shapes is not None)
        session.realised["loop"] = loop
        if loop == "compiled" and "driven_by" in session.realised:
            session.realised["driven_by"] = "a thread a stream"
    if request.search is not None and request.earlier_samples is not None:
        return capacity_search.run(session, load, request.search, samples_file.load(request.earlier_samples), report)
    batch = request.variant.engine.batch
    return load_curve.measure(
        session, load, batch=batch, repeat=request.repeat, rates_ips=request.rates_ips, report=report
    )


def _check(
    session: Session, request: Request, artifacts: Artifacts, inputs: ComparedInputs, resources: tuple[Cache, Events]
) -> Accuracy | None:
    """Compare the outputs of the session that was timed, and score it; None where no model ran."""
    variant, backend, (cache, events) = request.variant, registry.get(request.variant.backend), resources
    events.stage("accuracy", done=1.0)
    if session.partial_batches and variant.load.batch_wait_ms is not None:
        session.streams[0].enqueue()  # the last inference may have been a part; accuracy is that of the whole batch
        session.streams[0].wait()
    if not (backend.runs_models and request.accuracy):
        return None
    accuracy = check_accuracy(variant, backend, artifacts.onnx, inputs, session, cache)
    if request.scores:
        score = (
            None
            if artifacts.onnx is None
            else score_session(variant, backend, artifacts.onnx, session, cache, heartbeat(events))
        )
        if score is not None:
            return cast("Accuracy", {**accuracy, **score})  # mypy combines no two tables with optional keys
    return accuracy


def _describe(request: Request, artifacts: Artifacts, session: Session, timed: _Timed) -> Result:
    """Return what the record says of this pass."""
    variant, backend, accuracy = request.variant, registry.get(request.variant.backend), timed.accuracy
    dtype = variant.onnx.precision.dtype
    realised = {
        **session.realised,
        "notes": [
            *session.realised["notes"],
            *pass_notes.of_variant(variant, artifacts, request.cache),
            *pass_notes.of_accuracy(dtype, accuracy),
        ],
    }
    if backend.runs_models:
        realised["inputs"] = evaluation.describe(variant)
        realised["notes"] += [*evaluation.notes(variant), *timed.notes()]
    if variant.load.samples is not None and backend.runs_models:
        realised["input_batches"] = timed.turns
    if accuracy_gates.is_tf32(dtype, accuracy):
        realised["precision"] = {"tf32": sum((realised.get("precision") or {}).values())}
    if variant.load.batch_wait_ms is not None:
        realised["partial_batches"] = "true size" if session.partial_batches else "padded"
    mismatch, gate = backend.mismatch(variant, session.realised), None
    fault = accuracy_gates.fault(dtype, accuracy, request.gates)
    if mismatch is None and fault is not None:
        mismatch, gate = fault.message, fault.gate
    if mismatch is None:
        mismatch, gate = shaped_session.mismatch_of_smaller(session, request, timed.smaller)
    mismatch = mismatch or timed.beside_mismatch
    facts, graph_facts = artifacts.engine_facts(variant), artifacts.onnx.facts if artifacts.onnx else {}
    # Casts, for ``backends`` know no record: what a session says of itself is untyped until the parent checks it.
    return Result(
        model=artifacts.model,
        engine=cast("EngineInfo", {**facts, **graph_facts, "load_s": timed.load_s, **session.engine_facts}),
        realised=cast("Realised", realised),
        accuracy=accuracy,
        mismatch=mismatch,
        gate=gate,
    )
