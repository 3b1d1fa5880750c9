"""Define the interface that every backend implements: build an engine from typed ONNX, load it, report its limits.

The load generator sees only ``Session`` and ``Stream``; it knows nothing of models.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from sweep.spec import EngineAxes, SessionAxes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from sweep.spec import JsonDict, Shape, Stage, Variant

# by name, once: a plan asks a hundred thousand times
_ENGINE = tuple((item.name, getattr(EngineAxes(), item.name)) for item in fields(EngineAxes))
_SESSION = tuple((item.name, getattr(SessionAxes(), item.name)) for item in fields(SessionAxes))


class ShapesAt(Protocol):
    """Give the concrete shape of each input."""

    def __call__(self, batch: int, shape: Shape | None = None, /) -> Mapping[str, tuple[int, ...]]:
        """Return the shapes at `batch` samples and at the sizes of `shape`; None stands for the network's own sizes."""
        ...


class Clock(Protocol):
    """Measure monotonic time in nanoseconds, real or virtual."""

    def now_ns(self) -> int:
        """Return the current time, in ns."""
        ...

    def sleep_until_ns(self, due_ns: int) -> int:
        """Return at ``due_ns`` or as soon after it as possible.

        Args:
            due_ns: time of the wake-up on this clock, in ns.

        Returns:
            The time of the return, in ns.
        """
        ...


class Stream(Protocol):
    """Run inferences of one execution context in the order in which they are enqueued.

    Attributes:
        clock: the clock its completions are read from.
        max_depth: inferences it can hold in flight; 1 where ``enqueue`` runs to completion.
    """

    clock: Clock
    max_depth: int

    def enqueue(self, samples: int | None = None) -> None:
        """Start one inference.

        Args:
            samples: None runs the batch that the session was loaded at. A smaller number, the first ones of it, is
                allowed only where ``Session.partial_batches``.
        """
        ...

    def wait(self) -> None:
        """Block until the oldest inference in flight is complete."""
        ...


@runtime_checkable
class SupportsPolling(Protocol):
    """Extend a ``Stream`` that can report completions without blocking.

    Attributes:
        spins: a waiting thread should poll continuously, so that one thread can serve several streams.
    """

    spins: bool

    def poll(self) -> bool:
        """Return whether the oldest inference in flight is complete; a complete one counts as waited for."""
        ...


@runtime_checkable
class SupportsShapes(Protocol):
    """Extend a ``Stream`` that runs inferences of several shapes."""

    def enqueue_shape(self, number: int) -> None:
        """Start one inference of the shape ``load.engine_shapes[number]``, at the full batch."""
        ...


@runtime_checkable
class SupportsPartTimes(Protocol):
    """Extend a ``Stream`` that times the parts of an inference, on the device and on the host."""

    def take_parts_ms(self) -> NDArray[np.float32]:
        """Return and discard the part times of each inference waited for since the last call, oldest first.

        Returns:
            Array of shape (inferences, 4), in ms: copy to the device, compute and copy to the host by the device's
            clock, then the host's time in the enqueue alone. NaN where a part was not timed.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedCalls:
    """Describe the inferences of a stream as calls of C functions, for loops that run without the interpreter.

    Every function returns an ``int``, 0 for success, and takes at most four integers or pointers.

    Attributes:
        calls: calls of one inference, by its samples (None: the batch of the load), in order: address of the function
            and four arguments, shape (places, steps, 5). The inference of number n takes place n modulo places. A step
            whose address is 0 is none.
        launch: step that starts the computation; its time on the host is what ``take_parts_ms`` gives last.
        events: handles of the events before, between and after the parts of an inference, shape (places, parts + 1).
        synchronise: address of the function that waits for an event.
        query: address of the function that tells whether an event was reached.
        not_ready: answer of ``query`` for an event that was not.
        elapsed: address of the function that writes the time between two events, ms, as a float.
        enter: address and argument of the function that a thread calls first; address 0 for none.
        number: inferences that the stream has started so far.
    """

    calls: Mapping[int | None, NDArray[np.int64]]
    launch: int
    events: NDArray[np.int64]
    synchronise: int
    query: int
    not_ready: int
    elapsed: int
    enter: tuple[int, int]
    number: int


@runtime_checkable
class SupportsPreparedCalls(Protocol):
    """Extend a ``Stream`` whose inferences can be started by compiled code."""

    def prepared_calls(self) -> PreparedCalls | None:
        """Return the calls of an inference; None where Python has to make them. No inference is in flight."""
        ...

    def adopt(
        self,
        counts: tuple[int, int, int],
        gpu_ms: Sequence[NDArray[np.float32]],
        host_ns: Sequence[NDArray[np.int64]],
    ) -> None:
        """Take over what compiled code did on the stream.

        Args:
            counts: inferences started, seen complete and read since the stream was made.
            gpu_ms: arrays, one behind the other, of the part times by the device's clock of each inference that was
                read, shape (inferences, parts), ms.
            host_ns: arrays of the host's time in the launch of each, ns.
        """
        ...

    def fail_call(self, call: str, error: int) -> None:
        """Raise the error that a C function returned to compiled code.

        Args:
            call: ``enqueue``, ``wait``, or the name of another function.
            error: what it returned.

        Raises:
            SessionError: always.
        """
        ...


@runtime_checkable
class SupportsShapeProfiles(Protocol):
    """Extend a ``Backend`` whose engine can serve several shapes (``EngineAxes.profiles``)."""

    def load_shapes(
        self, engine: Path, info: JsonDict, variant: Variant, feeds: Sequence[Mapping[str, np.ndarray]]
    ) -> list[Session]:
        """Load one engine for all shapes of the load.

        Args:
            engine: folder that ``build`` filled.
            info: facts that ``build`` returned.
            variant: its session axes decide how the engine is loaded.
            feeds: value of each input at the full batch, for each of ``engine.profiles.shapes``.

        Returns:
            A session for each shape, of which the last owns the engine; its ``realised`` and ``engine_facts`` are those
            of all. One of them runs an inference at a time.

        Raises:
            SessionError: the engine cannot be loaded or run once at each shape.
        """
        ...


@runtime_checkable
class SupportsEmulation(Protocol):
    """Extend a ``Backend`` that does not round as some types do."""

    def emulation(self, variant: Variant) -> str | None:
        """Return which results of ``variant`` must come from a float32 graph that rounds explicitly.

        Args:
            variant: its precision decides.

        Returns:
            ``engine`` if the library has no kernels of the types: the rounding graph is built and timed. ``outputs`` if
            it has kernels that compute in float32: the timed engine stays and accuracy comes from the rounding graph.
            None for neither.
        """
        ...


@runtime_checkable
class SupportsPlans(Protocol):
    """Extend a ``Backend`` that runs serialised engines (plans) which were built elsewhere."""

    def import_plan(self, content: bytes, variant: Variant, target: Path) -> JsonDict:
        """Write a plan into the empty folder ``target``, once the library has loaded it.

        Args:
            content: the serialised engine.
            variant: its plan, and the plugins that it needs.
            target: folder to fill.

        Returns:
            Facts as ``Backend.build`` returns them, with ``inputs``: for each one {name, dtype, shape, least, best,
            most}, where an open size of the shape is -1 and the last three are the shapes of the first profile; and
            ``outputs``: {name, dtype, shape}.

        Raises:
            SessionError: the library refused the plan; with its own last message.
            UnsupportedError: a tensor of the plan cannot be fed or read.
        """
        ...


@runtime_checkable
class SupportsBuildsAnywhere(Protocol):
    """Extend a ``Backend`` that builds engines on machines which cannot run them."""

    def unsupported_build(self, variant: Variant) -> str | None:
        """Return why the engine of ``variant`` cannot be built on this machine, in one line; None if it can."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileLimits:
    """Limit the inferences of a layer profile.

    Attributes:
        inferences: inferences to profile.
        seconds: time for them, s; fewer are profiled where they would take longer.
        least: inferences that are profiled however long they take.
    """

    inferences: int = 100
    seconds: float = 3.0
    least: int = 5

    def count(self, each_s: float) -> int:
        """Return how many inferences of ``each_s`` seconds are profiled."""
        affordable = self.inferences if each_s <= 0 else int(self.seconds / each_s)
        return max(min(affordable, self.inferences), min(self.least, self.inferences))


@runtime_checkable
class SupportsLayerProfile(Protocol):
    """Extend a ``Backend`` that can tell where the time of an inference goes."""

    def profile_layers(
        self,
        engine: Path,
        info: JsonDict,
        variant: Variant,
        feeds: Mapping[str, np.ndarray],
        onnx: Path | None,
        limits: ProfileLimits,
    ) -> JsonDict:
        """Load an engine by itself, and time each of its layers over many inferences.

        Nothing else is measured meanwhile, nor in this process afterwards.

        Args:
            engine: folder that ``build`` filled.
            info: facts that ``build`` returned.
            variant: its session axes decide how the engine is loaded.
            feeds: value of each input at the full batch.
            onnx: the typed graph, whose nodes the layers compute; None for a plan that came without one.
            limits: bound the inferences.

        Returns:
            The fields of a layer profile that the backend knows: inferences, source, cuda_graph, timed_us, profiled_us,
            layer_cost_us, gaps_us, layers and notes. The nodes of a layer are called as ``onnx_shapes.node_names``
            calls them.

        Raises:
            SessionError: the engine cannot be loaded or run, or its layers cannot be timed.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelinePart:
    """Hold what one stage of a pipeline runs on.

    Attributes:
        stage: the stage.
        variant: the variant, with the network, the precision and the batch of the stage.
        engine: folder that ``Backend.build`` filled; None for a host step.
        info: facts that it returned.
        feeds: value of each input at the batch of the stage, whose types and shapes count.
        row_inputs: inputs whose first dimension is the batch.
    """

    stage: Stage
    variant: Variant
    engine: Path | None = None
    info: JsonDict = field(default_factory=dict)
    feeds: Mapping[str, np.ndarray] = field(default_factory=dict)
    row_inputs: frozenset[str] = frozenset()


@runtime_checkable
class SupportsPipelines(Protocol):
    """Extend a ``Backend`` that runs several engines in one request, tensors handed from one to the next.

    The streams of such a session time the stages: ``take_parts_ms`` has a column for each after the four of
    ``SupportsPartTimes``, in ms. ``infer`` takes and returns the tensors of the pipeline by their own names; rows that
    a host step draws are then those of the first request. ``realised["stages"]`` has what each network's session says.
    """

    def load_pipeline(
        self, parts: Sequence[PipelinePart], variant: Variant, externals: Mapping[str, np.ndarray]
    ) -> Session:
        """Load the engines of a pipeline with its streams, the tensors that come from outside bound to ``externals``.

        Args:
            parts: one of each stage.
            variant: its pipeline and its session axes decide how the engines are loaded.
            externals: value of each tensor that no stage writes first.

        Raises:
            SessionError: a stage cannot be loaded or run once; the message names it.
        """
        ...


class Session(Protocol):
    """Hold a loaded engine with its streams.

    Attributes:
        streams: its execution contexts.
        virtual: each stream carries its own virtual clock; nothing takes real time.
        partial_batches: ``enqueue`` accepts fewer samples than the batch; otherwise an incomplete batch runs padded.
        realised: the settings that took effect, for comparison with the request (the record's ``realised``).
        engine_facts: properties of the engine that only loading shows, such as device memory (joins the record's
            ``engine``).
    """

    streams: Sequence[Stream]
    virtual: bool
    partial_batches: bool
    realised: JsonDict
    engine_facts: JsonDict

    def prepare(self, sizes: Sequence[int]) -> None:
        """Make every stream accept batches of ``sizes``, where ``partial_batches``; no inference is timed meanwhile.

        Args:
            sizes: batch sizes, in samples, each at most the session's batch.

        Raises:
            SessionError: a size cannot be run.
        """
        ...

    def outputs(self) -> dict[str, np.ndarray]:
        """Return the outputs, by name, of the last inference on the first stream."""
        ...

    def infer(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the outputs of one inference on the first stream with other inputs; nothing is timed meanwhile.

        Args:
            feeds: every input, with the shape and dtype that it had at load. The values stay bound.

        Returns:
            Each output by name.
        """
        ...

    def close(self) -> None:
        """Release the engine and all memory of the session."""
        ...


@runtime_checkable
class SupportsStreamOutputs(Protocol):
    """Extend a ``Session`` that can read the outputs of every stream."""

    def outputs_of(self, number: int) -> dict[str, np.ndarray]:
        """Return the outputs, by name, of the last inference on stream ``number``, counted from 0."""
        ...


@runtime_checkable
class SupportsTurns(Protocol):
    """Extend a ``Session`` that can take other inputs in each inference."""

    def take_turns(self, batches: Sequence[Mapping[str, np.ndarray]]) -> int:
        """Feed these inputs in turn on every stream, one batch an inference; nothing is timed meanwhile.

        Fewer samples than the batch (``Stream.enqueue``) remain those of the load.

        Args:
            batches: every input of each, with the shape and dtype that it had at load. The values stay bound.

        Returns:
            The batches that take turns; 1, the first one, where inputs cannot change between inferences.
        """
        ...


@runtime_checkable
class SupportsProfilerCapture(Protocol):
    """Extend a ``Session`` that runs on a GPU, whose profiler can be told which part of a process to record."""

    def start_profiler(self) -> None:
        """Tell an attached profiler to record from here (``cudaProfilerStart``); without one nothing happens."""
        ...

    def stop_profiler(self) -> None:
        """Wait for what the GPU still does, then tell the profiler to stop (``cudaProfilerStop``)."""
        ...


class Backend(Protocol):
    """Adapt one inference library.

    Attributes:
        name: as in ``backend=``.
        honours: engine and session axes that take effect. Any other axis, if set, makes a variant ``unsupported``.
        runs_models: the outputs are real, so accuracy can be checked.
        on_gpu: inference runs on the GPU, whose state is then monitored.
    """

    name: str
    honours: frozenset[str]
    runs_models: bool
    on_gpu: bool

    def unsupported(self, variant: Variant) -> str | None:
        """Return why this backend cannot run ``variant`` on this machine, in one line; None if it can."""
        ...

    def environment(self, variant: Variant) -> dict[str, str]:
        """Return the variables that a worker sets before it loads a library; equal for all variants of one engine."""
        ...

    def facts(self) -> JsonDict:
        """Return the versions, by fact name, that must be equal for a comparison."""
        ...

    def build(self, onnx: Path, variant: Variant, shapes: ShapesAt, target: Path) -> JsonDict:
        """Build an engine into the empty folder ``target``.

        Args:
            onnx: the typed ONNX.
            variant: its engine axes decide what is built.
            shapes: maps a batch, in samples, to the concrete shape of each input.
            target: folder to fill.

        Returns:
            Facts of the engine that ``load`` needs again (JSON values). ``artifacts`` names the files in ``target``
            that are worth inspecting; the sweep keeps a copy of them.

        Raises:
            BuildError: the library refused the graph; with its own last message.
        """
        ...

    def load(self, engine: Path, info: JsonDict, variant: Variant, feeds: Mapping[str, np.ndarray]) -> Session:
        """Load the engine of ``build`` with its streams, inputs bound to ``feeds``.

        Args:
            engine: folder that ``build`` filled.
            info: facts that ``build`` returned.
            variant: its session axes decide how the engine is loaded.
            feeds: value of each input at the full batch.

        Raises:
            SessionError: the engine cannot be loaded or run once.
        """
        ...

    def mismatch(self, variant: Variant, realised: JsonDict) -> str | None:
        """Return how ``realised`` differs from the request, in one line; None if it does not.

        A variant with a difference is ``invalid``.
        """
        ...


def find_unhonoured_axis(backend: Backend, variant: Variant) -> str | None:
    """Return a reason that names the first axis which is set and has no effect in ``backend``; None without one."""
    for axes, defaults in ((variant.engine, _ENGINE), (variant.session, _SESSION)):
        for name, default in defaults:
            value = getattr(axes, name)
            if value != default and name not in backend.honours:
                return f"{backend.name} does not have {name} (asked: {name}={value})"
    return None


def unsupported_reason(backend: Backend, variant: Variant, *, only_build: bool = False) -> str | None:
    """Return why ``backend`` cannot run ``variant`` here, from its axes or its own check; None if it can.

    Args:
        backend: the inference library.
        variant: what it would run.
        only_build: its engine is built and not run.
    """
    reason = find_unhonoured_axis(backend, variant)
    if reason is None and variant.pipeline is not None and not isinstance(backend, SupportsPipelines):
        reason = f"{backend.name} does not run pipelines"
    if reason is None and only_build and isinstance(backend, SupportsBuildsAnywhere):
        return backend.unsupported_build(variant)
    return reason or backend.unsupported(variant)
