"""Axes of the load: change one of these and the session is driven anew."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePath

from sweep.spec.axis import SPECIAL, TrtexecFlag, axis, flag, plain_text
from sweep.spec.base import NOT_IN_KEY, source_name, source_override
from sweep.spec.checks import above_zero, at_least, each_above_zero

_PLACE = 30  # after every axis that makes another engine or session
_MS = 1000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledData:
    """A user's own samples whose classes are known: what the session is scored on once it was timed.

    Attributes:
        kind: npz, images (a folder with a folder a class) or function.
        name: of the function; None for files.
        path: absolute path of the files; None for a function. Not in the key: ``digest`` is.
        digest: sha256 of the files, or of the function's source file.
        output: name of the output [batch,classes] whose largest entry is the answer.
        classes: how many there are; None where the file leaves it open. Not in the key: the model's digest says it.
    """

    kind: str
    name: str | None = None
    path: str | None = field(default=None, metadata=NOT_IN_KEY)
    digest: str | None = None
    output: str
    classes: int | None = field(default=None, metadata=NOT_IN_KEY)

    @property
    def source(self) -> str:
        """What messages and records call it."""
        return str(self.name if self.path is None else self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadAxes:
    """How the session is driven. Times in seconds, rates in samples/s.

    Attributes:
        kind: ``curve`` (closed, then open at a ladder), ``closed``, ``trace`` (closed, then the arrivals of a
            file), or an arrival process (open at ``rates_ips``).
        arrivals: arrival process of the curve's ladder, a name in ``loadgen.arrival_processes.PROCESSES``.
        depth: inferences kept in flight per stream by the closed loop.
        fractions: the curve's ladder, as fractions of the closed loop's peak; empty places ``points`` rungs.
        points: rungs of a placed ladder; None where ``fractions`` say it.
        budget_s: seconds for all passes over the load of a variant; None leaves each point to its own limits.
        rates_ips: offered rates where ``kind`` is an arrival process.
        warmup_s: shortest warm-up; it goes on until the throughput is stable.
        min_s: shortest measured window of a point.
        min_requests: fewest measured requests of a point (662 carry a p99, see stats.min_count).
        max_s: longest measured window of a point; percentiles the count cannot carry are null.
        max_wait_s: backlog bound; a request that waited longer marks the point ``overloaded``.
        seed: of the arrival schedules and the input values.
        repeats: passes over the whole load, interleaved with the other variants' passes.
        batch_wait_ms: server batching: requests are single samples, gathered up to the engine's batch or until the
            oldest has waited this long, ms; None leaves batching to the client.
        trace: absolute path of the file of arrivals. Not in the key: ``trace_digest`` is.
        trace_digest: sha256 of that file.
        trace_scale: how many times faster the trace is replayed; None means as it is.
        labels: samples that the session is scored on after the load; None scores nothing, or what the network brings.
        trace_s: from its first to its last arrival as replayed, seconds. Not in the key: it follows from the others.
    """

    kind: str = axis(
        "curve",
        key="load.kind",
        help="curve (closed loop for the peak, then a ladder), closed, {processes} or trace",
        place=_PLACE,
        column="load",
        trtexec=SPECIAL,
    )
    arrivals: str = axis(
        "poisson",
        key="load.arrivals",
        help="arrivals on the curve's ladder: {described_processes}",
        place=_PLACE,
        trtexec=SPECIAL,
    )
    depth: int = axis(
        2,
        key="load.depth",
        help="inferences in flight per stream in the closed loop",
        check=at_least(1),
        place=_PLACE,
        trtexec=SPECIAL,
    )
    fractions: tuple[float, ...] = axis(
        (),
        key="load.fractions",
        help="a ladder of your own, as fractions of the peak; empty places load.points",
        check=each_above_zero,
        place=_PLACE,
        trtexec=SPECIAL,
    )
    rates_ips: tuple[float, ...] = axis(
        (),
        key="load.rates_ips",
        help="offered samples/s of load.kind={processes}",
        check=each_above_zero,
        place=_PLACE,
        trtexec=SPECIAL,
    )
    warmup_s: float = axis(
        0.3,
        key="load.warmup_s",
        help="shortest warm-up; it goes on until the throughput is stable",
        check=at_least(0),
        place=_PLACE,
        trtexec=TrtexecFlag(run=flag("--warmUp", lambda warmup_s: f"{warmup_s * _MS:g}")),
    )
    min_s: float = axis(
        1.0,
        key="load.min_s",
        help="shortest measured window of a point",
        check=above_zero,
        place=_PLACE,
        trtexec=TrtexecFlag(run=flag("--duration")),
    )
    min_requests: int = axis(
        662,
        key="load.min_requests",
        help="fewest measured requests of a point; 662 carry a p99, 64 a p90, 6636 a p99.9",
        check=at_least(1),
        place=_PLACE,
        trtexec=TrtexecFlag(run=flag("--iterations")),
    )
    max_s: float = axis(
        10.0,
        key="load.max_s",
        help="longest measured window of a point; percentiles beyond its count stay empty",
        check=above_zero,
        place=_PLACE,
        trtexec=SPECIAL,
    )
    max_wait_s: float = axis(
        1.0,
        key="load.max_wait_s",
        help="backlog bound: a request that waited longer marks the point overloaded",
        check=above_zero,
        place=_PLACE,
        trtexec=SPECIAL,
    )
    seed: int = axis(
        0,
        key="seed",
        help="of inputs, arrivals and the order of passes",
        check=at_least(0),
        place=_PLACE,
        trtexec=SPECIAL,
    )
    repeats: int = axis(
        1,
        key="repeats",
        help="passes over the whole load, interleaved with the other variants' passes",
        check=at_least(1),
        place=_PLACE,
        trtexec=TrtexecFlag(note="one run is one pass"),
    )
    batch_wait_ms: float | None = axis(
        None,
        key="batching.max_wait_ms",
        help=(
            "requests are single samples, run once batch are there or the oldest waited this long; null: no gathering"
        ),
        check=at_least(0),
        word=lambda wait_ms: f"w{plain_text(wait_ms)}ms",
        place=_PLACE,
        trtexec=TrtexecFlag(note="it gathers no single samples; every inference is a full batch"),
    )
    trace: str | None = axis(
        None,
        key="load.trace",
        help="load.kind=trace: file of arrival times in seconds, one a line or column arrival_s",
        word=lambda path: f"trace-{PurePath(path).stem}",
        place=_PLACE,
        cell=lambda path: "null" if path is None else PurePath(path).name,
        trtexec=SPECIAL,
        in_key=False,
    )
    trace_digest: str | None = axis(None, key=None, place=_PLACE)
    trace_scale: float | None = axis(
        None,
        key="load.trace_scale",
        help="load.kind=trace: replay it this many times faster (null: as it is)",
        check=above_zero,
        word=lambda scale: f"x{plain_text(scale)}",
        place=_PLACE,
        trtexec=SPECIAL,
    )
    trace_s: float | None = axis(None, key=None, place=_PLACE, in_key=False)
    points: int | None = axis(
        None,
        key="load.points",
        help="rungs of the ladder, placed by what the closed loop showed: more at the knee, one past it",
        cli_default=7,
        hint=int,
        place=_PLACE,
        trtexec=SPECIAL,
    )
    budget_s: float | None = axis(
        None,
        key="load.budget_s",
        help="seconds for the whole load of a variant; null leaves each point to its limits",
        place=_PLACE,
        trtexec=TrtexecFlag(note="it runs until --duration and --iterations are both reached"),
    )
    labels: LabelledData | None = axis(
        None,
        key="model.labels",
        help=(
            "samples with their classes, for the score: an .npz with labels, images:FOLDER of a folder a class, "
            "package.module:function"
        ),
        hint=str | None,
        place=_PLACE,
        cell=source_name,
        overrides=lambda data: {
            "model.labels": source_override(data, prefixes=("images",)),
            "model.scores": None if data is None else data.output,
        },
        trtexec=TrtexecFlag(note="it scores no labelled samples"),
    )
