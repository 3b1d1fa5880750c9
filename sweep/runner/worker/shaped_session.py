"""Run the shapes of a load on one engine each, loaded side by side in one process, or all of them on one engine.

A stream of the load has a stream of every shape, and runs one inference at a time: the engines' own streams would
overlap, and a first-in-first-out server would be none.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from sweep.analysis import accuracy_gates
from sweep.backends import SupportsPartTimes, SupportsPolling, SupportsShapes, registry
from sweep.runner.worker.accuracy_check import check_accuracy
from sweep.spec import shape_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from sweep.backends import Backend, Session, Stream
    from sweep.runner.messages import Request
    from sweep.runner.worker.artifacts import Artifacts
    from sweep.runner.worker.compared_inputs import ComparedInputs
    from sweep.spec import JsonDict, Shape, Variant
    from sweep.storage import Accuracy
    from sweep.storage.cache import Cache


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ShapedEngine:
    """Hold what one shape of a load runs on.

    Attributes:
        variant: the variant, with the network at that shape.
        artifacts: its graphs and its engine.
        inputs: its inputs.
    """

    variant: Variant
    artifacts: Artifacts
    inputs: ComparedInputs

    def facts(self, session: Session) -> JsonDict:
        """Return what the record says of the engine."""
        facts: Any = self.artifacts.engine_facts(self.variant)
        own = getattr(session, "shape_facts", session.engine_facts)  # of a session that owns the engine of all shapes
        return {
            "shape": shape_text(self.variant.onnx.model.shape),
            "engine": facts["key"],
            "build_s": facts["build_s"],
            "bytes": facts["bytes"],
            "device_memory_bytes": session.engine_facts.get("device_memory_bytes"),
            **{
                name: own[name]
                for name in ("context_memory_bytes", "first_run_ms", "graphs")
                if own.get(name) is not None
            },
        }


def variants_with_engines(variant: Variant, backend: Backend) -> list[Variant]:
    """Return the variant at the shape of each engine of its load, the smallest first; the last is `variant` itself.

    A backend that runs no models has one engine whatever the shapes, and so has an engine with profiles over them.
    """
    if not backend.runs_models or variant.engine.profiles is not None:
        return [variant]
    return variants_at_shapes(variant)


def served_by(made: Sequence[tuple[Variant, Artifacts]], backend: Backend) -> Sequence[tuple[Variant, Artifacts]]:
    """Return the variant at each shape of its load with what serves it: its own artifacts, or those of one engine.

    Args:
        made: what ``variants_with_engines`` returns, with the artifacts of each.
        backend: loads the engines.
    """
    variant, artifacts = made[-1]
    if variant.engine.profiles is None or not backend.runs_models:
        return made
    return [(each, artifacts) for each in variants_at_shapes(variant)]


def variants_at_shapes(variant: Variant) -> list[Variant]:
    """Return the variant with the network at each shape of its load, the smallest first; the last is `variant`."""
    return [*(_at(variant, shape) for shape in variant.load.engine_shapes[:-1]), variant]


def combine(sessions: Sequence[Session], engines: Sequence[ShapedEngine]) -> Session:
    """Return one session that runs the shapes of the load: that of a single engine itself, where it can."""
    largest = engines[-1].variant
    if largest.load.shapes is None or isinstance(sessions[-1].streams[0], SupportsShapes):
        return sessions[-1]
    return ShapedSession(sessions, engines)


def _at(variant: Variant, shape: Shape) -> Variant:
    model = dataclasses.replace(variant.onnx.model, shape=shape)
    return dataclasses.replace(variant, onnx=dataclasses.replace(variant.onnx, model=model))


class ShapedStream:
    """Run each inference on the stream of the engine of its shape.

    Args:
        streams: one of each engine, the smallest first.
    """

    max_depth = 1

    def __init__(self, streams: Sequence[Stream]) -> None:
        self.clock = streams[-1].clock
        self._streams = streams
        self._running: Any = streams[-1]

    def enqueue(self, samples: int | None = None) -> None:
        """Start one inference on the largest engine."""
        self._running = self._streams[-1]
        self._running.enqueue(samples)

    def enqueue_shape(self, number: int) -> None:
        """Start one inference on engine ``number``."""
        self._running = self._streams[number]
        self._running.enqueue()

    def wait(self) -> None:
        """Block until the inference in flight is complete."""
        self._running.wait()


class PolledShapedStream(ShapedStream):
    """Do so on streams that can be polled and that time the parts of an inference."""

    def __init__(self, streams: Sequence[Any]) -> None:
        super().__init__(streams)
        self.spins: bool = all(stream.spins for stream in streams)
        self._served: list[int] = []

    def enqueue(self, samples: int | None = None) -> None:
        """Start one inference on the largest engine."""
        self._served.append(len(self._streams) - 1)
        super().enqueue(samples)

    def enqueue_shape(self, number: int) -> None:
        """Start one inference on engine ``number``."""
        self._served.append(number)
        super().enqueue_shape(number)

    def poll(self) -> bool:
        """Return whether the inference in flight is complete; a complete one counts as waited for."""
        return bool(self._running.poll())

    def take_parts_ms(self) -> NDArray[np.float32]:
        """Return and discard the part times of each inference since the last call, oldest first, ms."""
        parts = [stream.take_parts_ms() for stream in self._streams]  # type: ignore[attr-defined]  # made of such
        served = np.array(self._served, dtype=np.int64)
        self._served.clear()
        times = np.full((len(served), parts[0].shape[1]), np.nan, dtype=np.float32)
        for number, own in enumerate(parts):
            times[served == number] = own
        return times


class ShapedSession:
    """Hold the sessions of all shapes of a load of several, as one.

    Args:
        sessions: one of each shape, the smallest first; outputs and settings are those of the last, which owns the
            engine where one serves them all.
        engines: what they run.
    """

    virtual = False
    partial_batches = False

    def __init__(self, sessions: Sequence[Session], engines: Sequence[ShapedEngine]) -> None:
        self.sessions, self.engines = sessions, engines
        self.streams: Sequence[Stream] = [
            _shaped(streams) for streams in zip(*(session.streams for session in sessions), strict=True)
        ]
        largest = sessions[-1]
        each = [engine.facts(session) for engine, session in zip(engines, sessions, strict=True)]
        self.realised: JsonDict = {**largest.realised, "shapes": each}
        self._one_engine = engines[-1].variant.engine.profiles is not None
        self.engine_facts: JsonDict = largest.engine_facts if self._one_engine else dict(largest.engine_facts)
        if self._one_engine:
            for facts in each:
                facts["device_memory_bytes"] = None  # that of the engine stands in the record's ``engine``
        else:
            self.engine_facts |= _sums(each)

    def prepare(self, sizes: Sequence[int]) -> None:
        """Do nothing: only whole batches run."""

    def outputs(self) -> dict[str, np.ndarray]:
        """Return the outputs, by name, of the last inference of the largest engine on the first stream."""
        return self.sessions[-1].outputs()

    def infer(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the outputs of one inference of the largest engine with other inputs."""
        return self.sessions[-1].infer(feeds)

    def close(self) -> None:
        """Release every engine."""
        for session in self.sessions:
            session.close()
        memory = [session.engine_facts.get("memory") for session in self.sessions]
        if not self._one_engine and all(memory):  # known once an engine is closed
            self.engine_facts["memory"] = _sum_memory([own for own in memory if own])


def _sum_memory(memory: Sequence[JsonDict]) -> JsonDict:
    """Return the device memory of several engines together; without the timelines, whose clocks differ."""
    sums: JsonDict = {}
    for name in dict.fromkeys(name for own in memory for name in own):
        values = [own.get(name) for own in memory]
        if all(isinstance(value, int) for value in values):
            sums[name] = sum(value for value in values if isinstance(value, int))
        elif all(isinstance(value, dict) for value in values):
            sums[name] = _sum_memory([value for value in values if isinstance(value, dict)])
    return sums


def _sums(each: Sequence[JsonDict]) -> JsonDict:
    """Return the memory of the session and of its CUDA graphs over all engines, as far as every one of them tells."""
    sums: JsonDict = {}
    memory = [facts["device_memory_bytes"] for facts in each]
    if all(size is not None for size in memory):
        sums["device_memory_bytes"] = sum(memory)
    graphs = [facts["graphs"] for facts in each if "graphs" in facts]
    if len(graphs) == len(each):
        sums["graphs"] = {name: sum(own[name] for own in graphs) for name in graphs[0]}
    return sums


def _shaped(streams: Sequence[Stream]) -> ShapedStream:
    timed = all(isinstance(stream, SupportsPolling) and isinstance(stream, SupportsPartTimes) for stream in streams)
    return PolledShapedStream(streams) if timed else ShapedStream(streams)


def check_smaller(session: Session, request: Request, cache: Cache) -> list[Accuracy]:
    """Compare the outputs of the engines of all shapes but the largest; their SQNR stands beside each in the record."""
    if not (isinstance(session, ShapedSession) and request.accuracy):
        return []
    accuracies = []
    for own, engine, facts in zip(session.sessions[:-1], session.engines, session.realised["shapes"], strict=False):
        backend = registry.get(engine.variant.backend)
        accuracies.append(check_accuracy(engine.variant, backend, engine.artifacts.onnx, engine.inputs, own, cache))
        facts["sqnr_db"] = accuracies[-1].get("sqnr_db")
    return accuracies


def mismatch_of_smaller(
    session: Session, request: Request, smaller: Sequence[Accuracy]
) -> tuple[str | None, str | None]:
    """Return how the first engine of a smaller shape differs from the request, and the gate that this is about."""
    if not isinstance(session, ShapedSession):
        return None, None
    for engine, own in zip(session.engines[:-1], session.sessions, strict=False):
        mismatch = registry.get(engine.variant.backend).mismatch(engine.variant, own.realised)
        if mismatch is not None:
            return f"at {shape_text(engine.variant.onnx.model.shape)}: {mismatch}", None
    for engine, accuracy in zip(session.engines, smaller, strict=False):
        fault = accuracy_gates.fault(engine.variant.onnx.precision.dtype, accuracy, request.gates)
        if fault is not None:
            return f"at {shape_text(engine.variant.onnx.model.shape)}: {fault.message}", fault.gate
    return None, None
