"""Define and encode the messages between the parent process and its workers.

Each message is one line of JSON. A worker reads ``Request`` lines on stdin and answers with events on what was its
stdout, the last of them a ``Result`` or a ``Failure``. Of several clients each sends ``Exchange`` events on the way,
and reads one ``Values`` line for each.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from sweep.errors import MessageError, shorten
from sweep.loadgen import SearchRequest
from sweep.spec import Gates, Variant
from sweep.storage import record_types as types

_SHOWN = 120  # characters of a line that an error shows
_EVENT_PREFIX = b'{"event":'  # of every line that a worker sends; anything else was printed by a library

M = TypeVar("M")


class LayersRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Ask for the profile of the layers of an engine.

    Attributes:
        path: file that takes it.
        key: key of the variant.
        label: its label.
        device: name of the GPU or CPU that it runs on.
    """

    path: Path
    key: str
    label: str
    device: str | None


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """Ask a worker for one pass of one variant, the search of its capacity, its engine alone, or its layers alone.

    Attributes:
        variant: what to measure.
        cache: root of the shared cache.
        samples: file that takes the raw samples (npz).
        repeat: number of the pass, from 0.
        rates_ips: rate ladder of an earlier pass, samples/s; None places one.
        cache_limit_bytes: most that the cache may hold; None lets it grow.
        gates: accuracy that the outputs have to keep, else the variant is invalid.
        search: SLO whose capacity is searched instead of a pass over the load; None for a pass.
        earlier_samples: samples of the variant so far, for the search of a capacity (npz); None for a pass.
        accuracy: compare the outputs with fp32; False for the sentinel, whose outputs were compared already.
        only_build: stop once the engine is in the cache.
        layers: profile the layers of the engine, and measure nothing; None for anything else.
        build: name of an engine that is built afresh for this sweep; None takes the engine of the cache.
        client: number of this worker among the clients of the variant, from 0.
        limits_s: longest silence of single stages, {build, load, point}; the parent enforces them.
    """

    variant: Variant
    cache: Path
    samples: Path
    repeat: int = 0
    rates_ips: list[float] | None = None
    cache_limit_bytes: int | None = None
    gates: Gates = msgspec.field(default_factory=Gates)
    search: SearchRequest | None = None
    earlier_samples: Path | None = None
    accuracy: bool = True
    only_build: bool = False
    layers: LayersRequest | None = None
    build: str | None = None
    client: int = 0
    limits_s: dict[str, float | None] = msgspec.field(default_factory=dict)

    @property
    def scores(self) -> bool:
        """Return whether this is the pass whose accuracy stands in the record: the last one, and no search."""
        return self.accuracy and self.search is None and self.repeat == self.variant.load.passes - 1


class ProfileRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Ask for inferences of one loaded engine below a profiler (``worker.profiled_inferences``).

    Attributes:
        variant: what to run.
        cache: root of the shared cache.
        engine: key of the engine in the cache.
        inferences: inferences of each stream that the profiler records; 1 or more.
        warmup: inferences of each stream before them.
        eager: run without the CUDA graph that the variant has.
    """

    variant: Variant
    cache: Path
    engine: str
    inferences: int
    warmup: int
    eager: bool = False


class Values(msgspec.Struct, frozen=True):
    """Answer an ``Exchange``: the values of all clients, in the order of their numbers."""

    values: list[Any]


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag=str.lower):
    """Tell the parent something; the base of all that a worker sends."""


class Stage(Event, frozen=True, kw_only=True):
    """Tell that a stage of the pipeline starts, or has come further.

    Attributes:
        stage: its name, as it stands in the record's ``error.stage``.
        detail: what of it is done now.
        done: share of it that is done, 0 to 1.
    """

    stage: str
    detail: str = ""
    done: float = 0.0


class Note(Event, frozen=True, kw_only=True):
    """Tell the user one line."""

    text: str


class Engine(Event, frozen=True, kw_only=True):
    """Tell that the engine of this pass is in the cache under ``key``, pinned there by the worker."""

    key: str


class Exchange(Event, frozen=True, kw_only=True):
    """Ask for the values of all clients, and give this one's own.

    Attributes:
        round: how many exchanges this client made before in this request.
        value: value of this client.
    """

    round: int
    value: Any = None


class Result(Event, frozen=True, kw_only=True):
    """End a request that is done.

    Attributes:
        engine: table as in ``Record.engine``.
        model: table as in ``Record.model``; None where only the engine was built, as for all that follow.
        realised: table as in ``Record.realised``.
        accuracy: table as in ``Record.accuracy``.
        mismatch: how what ran differs from what was requested, in one line; None if it does not.
        gate: name of the accuracy gate that ``mismatch`` is about (a field of ``Gates``); None for none.
    """

    engine: types.EngineInfo
    model: types.ModelCost | None = None
    realised: types.Realised | None = None
    accuracy: types.Accuracy | None = None
    mismatch: str | None = None
    gate: str | None = None


class Failure(Event, frozen=True, kw_only=True):
    """End a request that failed.

    Attributes:
        stage: stage of the pipeline.
        kind: name of the exception's class.
        message: message of the exception, in one line.
    """

    stage: str
    kind: str
    message: str


_TABLES = ("engine", "model", "realised", "accuracy")  # a backend may add keys of its own to them

AnyEvent = Stage | Note | Engine | Exchange | Result | Failure


def encode(message: Request | ProfileRequest | Values | AnyEvent) -> bytes:
    """Encode `message` as one line, its end included."""
    # The standard library's JSON carries what msgspec's refuses: file names that are no UTF-8, and NaN.
    plain = msgspec.to_builtins(message, enc_hook=_to_builtin, str_keys=True)
    return json.dumps(plain).encode() + b"\n"


def decode(line: bytes | str, kind: type[M]) -> M:
    """Decode one line into an instance of `kind`, the class of a message.

    Raises:
        MessageError: the line is no such message.
    """
    return _decode(line, kind)  # type: ignore[no-any-return]  # of a type that the caller names


def decode_event(line: bytes) -> AnyEvent | None:
    """Decode one line of a worker; None for a line that a library printed before the worker took its stdout over.

    Raises:
        MessageError: the line is an event, and malformed.
    """
    return _decode(line, AnyEvent) if line.startswith(_EVENT_PREFIX) else None


def _decode(line: bytes | str, kind: Any) -> Any:
    try:
        raw = json.loads(line)
        message = msgspec.convert(raw, type=kind, dec_hook=lambda hint, value: hint(value))
    except (ValueError, msgspec.ValidationError, RecursionError) as error:
        text = line.decode(errors="replace") if isinstance(line, bytes) else line
        raise MessageError(f"a message between processes is malformed ({error}): {shorten(text, _SHOWN)!r}") from error
    if not isinstance(message, Result):
        return message
    tables = {name: types.with_unknown_keys(getattr(message, name), raw[name]) for name in _TABLES if name in raw}
    return msgspec.structs.replace(message, **tables)


def _to_builtin(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float):  # numpy's is a subclass
        return float(value)
    raise TypeError(f"a message holds a {type(value).__name__}, which JSON cannot carry")
