"""What a backend is: builds an engine from typed ONNX, loads it into a session, and says what it cannot do.

The load generator sees only ``Session`` and ``Stream``; it knows nothing of models.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from sweep.spec import EngineAxes, SessionAxes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from sweep.spec import JsonDict, Variant

    ShapesAt = Callable[[int], Mapping[str, tuple[int, ...]]]

# by name, once: a plan asks a hundred thousand times
_ENGINE = tuple((item.name, getattr(EngineAxes(), item.name)) for item in fields(EngineAxes))
_SESSION = tuple((item.name, getattr(SessionAxes(), item.name)) for item in fields(SessionAxes))


class Clock(Protocol):
    """Monotonic nanoseconds, real or virtual."""

    def now_ns(self) -> int:
        """The time now."""
        ...

    def sleep_until_ns(self, due_ns: int) -> int:
        """Return at ``due_ns`` or as soon after it as can be, and the time then."""
        ...


class Stream(Protocol):
    """One execution context: inferences on it run in the order they were enqueued.

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
        """Return when the oldest inference in flight is complete."""
        ...


@runtime_checkable
class Polled(Protocol):
    """What a ``Stream`` has besides if it can be asked, without waiting, what is complete.

    Attributes:
        spins: whoever waits for it is to spend the time asking, so that one thread can serve several streams.
    """

    spins: bool

    def poll(self) -> bool:
        """Whether the oldest inference in flight is complete; if so it counts as waited for."""
        ...


@runtime_checkable
class TimesParts(Protocol):
    """What a ``Stream`` has besides if the parts of an inference are timed, by the device itself and on the host."""

    def take_parts_ms(self) -> NDArray[np.float32]:
        """Times of each inference waited for since the last call, oldest first, and forget them.

        Returns:
            One row an inference, in ms: host to device, compute, device to host by the device's own clock, then the
            host's time in the enqueue alone. NaN where nothing was timed.
        """
        ...


@runtime_checkable
class Emulates(Protocol):
    """What a ``Backend`` has besides if it does not round as some types do."""

    def emulation(self, variant: Variant) -> str | None:
        """What has to come from a graph that rounds explicitly, in float32.

        Returns:
            ``engine`` where the library has no kernels of the types: that graph is built and timed. ``outputs`` where
            it has, but computes in float32: what is timed stays, accuracy comes from that graph. None for neither.
        """
        ...


class Session(Protocol):
    """A loaded engine.

    Attributes:
        streams: its execution contexts.
        virtual: each stream carries its own virtual clock; nothing takes real time.
        partial_batches: ``enqueue`` takes fewer samples than the batch; else a batch that is not full runs padded.
        realised: what was loaded, against what was asked (the record's ``realised``).
        engine_facts: what loading showed of the engine, such as device memory (joins the record's ``engine``).
    """

    streams: Sequence[Stream]
    virtual: bool
    partial_batches: bool
    realised: JsonDict
    engine_facts: JsonDict

    def prepare(self, sizes: Sequence[int]) -> None:
        """Make every stream take batches of these sizes, where ``partial_batches``; nothing is timed meanwhile.

        Raises:
            SessionError: a size cannot be run.
        """
        ...

    def outputs(self) -> dict[str, np.ndarray]:
        """Outputs of the last inference on the first stream."""
        ...

    def infer(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs of one inference with other inputs, on the first stream; nothing is timed meanwhile.

        Args:
            feeds: every input, shaped and typed as at load. They stay bound.
        """
        ...

    def close(self) -> None:
        """Give back what the session holds."""
        ...


@runtime_checkable
class GivesEachStreams(Protocol):
    """What a ``Session`` has besides if each stream's outputs can be had."""

    def outputs_of(self, number: int) -> dict[str, np.ndarray]:
        """Outputs of the last inference on stream ``number``, from 0."""
        ...


class Backend(Protocol):
    """One inference library.

    Attributes:
        name: as in ``backend=``.
        honours: engine and session axes that it acts on. Any other, set, makes a variant ``unsupported``.
        runs_models: it computes real outputs, so accuracy can be checked.
        on_gpu: it runs on the GPU, whose state is then watched.
    """

    name: str
    honours: frozenset[str]
    runs_models: bool
    on_gpu: bool

    def unsupported(self, variant: Variant) -> str | None:
        """Why this backend cannot run ``variant`` here, in one line; None if it can."""
        ...

    def environment(self, variant: Variant) -> dict[str, str]:
        """Variables that the worker needs before any library is loaded; the same for all that share an engine."""
        ...

    def facts(self) -> JsonDict:
        """Versions that a comparison must agree on."""
        ...

    def build(self, onnx: Path, variant: Variant, shapes: ShapesAt, target: Path) -> JsonDict:
        """Build an engine into the empty folder ``target``.

        Args:
            onnx: the typed ONNX.
            variant: its engine axes decide what is built.
            shapes: gives the concrete shape of each input at a batch.
            target: folder to fill.

        Returns:
            What is known of the engine and wanted again at load (plain values). ``artifacts`` among it names the
            files in ``target`` that people may want to look at; they are kept with the sweep.

        Raises:
            BuildError: with the library's own last message.
        """
        ...

    def load(self, engine: Path, info: JsonDict, variant: Variant, feeds: Mapping[str, np.ndarray]) -> Session:
        """Load the engine of ``build`` with its streams, inputs bound to ``feeds``.

        Raises:
            SessionError: the engine cannot be loaded or run once.
        """
        ...

    def mismatch(self, variant: Variant, realised: JsonDict) -> str | None:
        """How what ran differs from what was asked (the variant is then ``invalid``); None if it does not."""
        ...


def unhonoured(backend: Backend, variant: Variant) -> str | None:
    """The first axis that is set and that ``backend`` does not act on, as a reason; None for none."""
    for axes, defaults in ((variant.engine, _ENGINE), (variant.session, _SESSION)):
        for name, default in defaults:
            value = getattr(axes, name)
            if value != default and name not in backend.honours:
                return f"{backend.name} does not have {name} (asked: {name}={value})"
    return None


def why_unsupported(backend: Backend, variant: Variant) -> str | None:
    """Every reason known before running: an axis that the backend lacks, or its own word."""
    return unhonoured(backend, variant) or backend.unsupported(variant)
