"""Declare the axes of the load: if one changes, the session is measured again."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from sweep.spec.axis import SPECIAL, TrtexecFlag, axis, flag, plain_text
from sweep.spec.base import NOT_IN_KEY, source_name, source_override
from sweep.spec.checks import above_zero, at_least, each_above_zero, each_rate
from sweep.spec.network_inputs import Dimension  # noqa: TC001 - get_type_hints
from sweep.spec.shape_mix import (
    Shape,
    ShapeMix,
    buckets_overrides,
    buckets_word,
    engine_of,
    engine_shapes,
    mix_cell,
    mix_overrides,
    mix_word,
)

_PLACE = 30  # in labels, after every axis of the graph, engine and session
_MS = 1000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledData:
    """Describe a user's own labelled samples, on which the session is scored after it was timed.

    Attributes:
        kind: npz, images (a folder with one folder per class) or function.
        name: of the function; None for files.
        path: absolute path of the files; None for a function. Not in the key: ``digest`` is.
        digest: sha256 of the files, or of the function's source file.
        output: name of the output [batch,classes] whose arg max is the predicted class.
        classes: number of classes; None if the model's file leaves it open. Not in the key: it follows from the model.
    """

    kind: str
    name: str | None = None
    path: str | None = field(default=None, metadata=NOT_IN_KEY)
    digest: str | None = None
    output: str
    classes: int | None = field(default=None, metadata=NOT_IN_KEY)

    @property
    def source(self) -> str:
        """Return the name of the samples in messages and records."""
        return str(self.name if self.path is None else self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleData:
    """Describe a user's own inputs, which are timed and on which the outputs are compared.

    Attributes:
        kind: npz, npy or folder (of both).
        name: always None: no function gives them.
        path: absolute path of the file or folder. Not in the key: ``digest`` is.
        digest: sha256 of the files.
        count: number of samples. Not in the key: it follows from the content.
        calibrating: number of the first samples that only calibration sees; 0 where calibration has data of its own, or
            where the samples are too few to be set apart.
    """

    kind: str
    name: str | None = None
    path: str | None = field(default=None, metadata=NOT_IN_KEY)
    digest: str | None = None
    count: int = field(default=0, metadata=NOT_IN_KEY)
    calibrating: int = 0

    @property
    def source(self) -> str:
        """Return the path of the samples, for messages."""
        return str(self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadAxes:
    """Hold the axes of the load: if one changes, the session is measured again. Times in s, rates in samples/s.

    Attributes:
        kind: ``curve`` (closed loop, then a rate ladder), ``closed``, ``trace`` (closed loop, then the arrivals of a
            file), or an arrival process (open loop at ``rates_ips``).
        arrivals: arrival process of the rate ladder, a name in ``loadgen.arrival_processes.PROCESSES``.
        depth: inferences kept in flight per stream by the closed loop.
        fractions: the rate ladder as fractions of the closed loop's peak; empty places ``points`` rungs.
        points: rungs of a placed ladder; None if ``fractions`` are given.
        budget_s: seconds for all passes over the load of a variant; None leaves each point to its own limits.
        rates_ips: offered rates if ``kind`` is an arrival process.
        warmup_s: shortest warm-up; it goes on until the throughput is stable.
        min_s: shortest measured window of a point.
        min_requests: fewest measured requests of a point; 662 support a p99.
        max_s: longest measured window of a point; percentiles that its requests do not support are null.
        max_wait_s: longest wait of a request; one that waits longer marks its point ``overloaded``.
        seed: random seed of the arrival schedules and the input values.
        repeats: starts of each engine. Each loads the engine in a fresh process and makes one pass over the whole load,
            interleaved with the other variants' passes.
        builds: engines built afresh, without the cache, which the passes take in turn; None takes one from the cache.
        batch_wait_ms: server batching: requests are single samples, gathered up to the engine's batch or until the
            oldest has waited this long, ms; None leaves batching to the client.
        trace: absolute path of the file of arrivals. Not in the key: ``trace_digest`` is.
        trace_digest: sha256 of that file.
        trace_scale: factor on the replay speed of the trace; None is 1.
        labels: samples that the session is scored on after the load; None takes those of the model, if it has any.
        samples: inputs that are timed and compared on; None takes those of ``labels`` or the model, else random ones.
        trace_s: time from its first to its last arrival as replayed. Not in the key: it follows from the others.
        shapes: shapes of the requests; None gives all of them that of the model.
        buckets: shapes that have an engine, to which requests are padded; None gives each shape of ``shapes`` one.
    """

    kind: str = axis(
        "curve",
        key="load.kind",
        help=(
            "curve (closed loop, then a rate ladder), closed (peak only), {processes} (at load.rates_ips), "
            "or trace (recorded arrivals)"
        ),
        place=_PLACE,
        column="load",
        trtexec=SPECIAL,
    )
    arrivals: str = axis(
        "poisson",
        key="load.arrivals",
        help="arrival process of the rate ladder: {described_processes}",
        place=_PLACE,
        trtexec=SPECIAL,
    )
    depth: int = axis(
        2,
        key="load.depth",
        help="closed loop: inferences in flight per stream",
        check=at_least(1),
        place=_PLACE,
        trtexec=SPECIAL,
    )
    fractions: tuple[float, ...] = axis(
        (),
        key="load.fractions",
        help="offered rates of the curve as fractions of the peak (empty: load.points rates are placed)",
        check=each_above_zero,
        place=_PLACE,
        trtexec=SPECIAL,
    )
    rates_ips: tuple[float, ...] = axis(
        (),
        key="load.rates_ips",
        help="load.kind={processes}: offered rates, samples/s",
        check=each_rate,
        place=_PLACE,
        trtexec=SPECIAL,
    )
    warmup_s: float = axis(
        0.3,
        key="load.warmup_s",
        help="shortest warm-up of a point, s; it continues until the throughput is stable",
        check=at_least(0),
        place=_PLACE,
        trtexec=TrtexecFlag(run=flag("--warmUp", lambda warmup_s: f"{warmup_s * _MS:g}")),
    )
    min_s: float = axis(
        1.0,
        key="load.min_s",
        help="shortest measured window of a point, s",
        check=above_zero,
        place=_PLACE,
        trtexec=TrtexecFlag(run=flag("--duration")),
    )
    min_requests: int = axis(
        662,
        key="load.min_requests",
        help="fewest measured requests of a point; 64 support a p90, 662 a p99, 6636 a p99.9",
        check=at_least(1),
        place=_PLACE,
        trtexec=TrtexecFlag(run=flag("--iterations")),
    )
    max_s: float = axis(
        10.0,
        key="load.max_s",
        help="longest measured window of a point, s; percentiles that its requests do not support stay empty",
        check=above_zero,
        place=_PLACE,
        trtexec=SPECIAL,
    )
    max_wait_s: float = axis(
        1.0,
        key="load.max_wait_s",
        help="longest wait of a request, s; one that waits longer marks its point as overloaded",
        check=above_zero,
        place=_PLACE,
        trtexec=SPECIAL,
    )
    seed: int = axis(
        0,
        key="seed",
        help="random seed of the input values, the arrivals and the order of passes",
        check=at_least(0, most=2**64 - 1),
        place=_PLACE,
        trtexec=SPECIAL,
    )
    repeats: int = axis(
        1,
        key="repeats",
        help=(
            "passes over the whole load of a variant, each in a fresh process, interleaved with the passes of "
            "other variants"
        ),
        check=at_least(1, most=10_000),
        place=_PLACE,
        trtexec=TrtexecFlag(note="one run is one pass"),
    )
    builds: int | None = axis(
        None,
        key="builds",
        help="engines to build afresh for a variant, each started repeats times (null: one, from the cache)",
        check=at_least(1, most=1_000),
        place=_PLACE,
        trtexec=TrtexecFlag(note="one run is of one engine"),
    )
    batch_wait_ms: float | None = axis(
        None,
        key="batching.max_wait_ms",
        help=(
            "server batching: longest wait of a sample for others to fill the batch, ms (null: a request is "
            "a whole batch)"
        ),
        check=at_least(0),
        word=lambda wait_ms: f"w{plain_text(wait_ms)}ms",
        place=_PLACE,
        trtexec=TrtexecFlag(note="it gathers no single samples; every inference is a full batch"),
    )
    trace: str | None = axis(
        None,
        key="load.trace",
        help="load.kind=trace: file of arrival times, s, one per line or in a column arrival_s",
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
        help="load.kind=trace: factor on the replay speed (null: 1)",
        check=above_zero,
        word=lambda scale: f"x{plain_text(scale)}",
        place=_PLACE,
        trtexec=SPECIAL,
    )
    trace_s: float | None = axis(None, key=None, place=_PLACE, in_key=False)
    points: int | None = axis(
        None,
        key="load.points",
        help=(
            "number of offered rates of the curve, placed by the measured service times: denser near the "
            "knee, one past it"
        ),
        cli_default=7,
        hint=int,
        place=_PLACE,
        trtexec=SPECIAL,
    )
    budget_s: float | None = axis(
        None,
        key="load.budget_s",
        help="time for the whole load of a variant, all passes, s (null: the limits of each point apply)",
        place=_PLACE,
        trtexec=TrtexecFlag(note="it runs until --duration and --iterations are both reached"),
    )
    labels: LabelledData | None = axis(
        None,
        key="model.labels",
        help=(
            "labelled samples to score the engine on: an .npz with labels, images:FOLDER with one folder "
            "per class, or package.module:function"
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
    samples: SampleData | None = axis(
        None,
        key="model.samples",
        help=(
            "inputs of your own to time, compare and calibrate on: an .npz with an array per input, an .npy, or a "
            "folder of them (null: those of model.labels or the model, else random)"
        ),
        hint=str | None,
        place=_PLACE,
        cell=source_name,
        overrides=lambda data: {"model.samples": source_override(data, prefixes=())},
        trtexec=SPECIAL,
    )

    shapes: ShapeMix | None = axis(
        None,
        key="load.shapes",
        help=(
            "shapes of the requests with their weights, as {64:0.5,128:0.5} of the one named dimension, a list of "
            "{shape:,share:}, a distribution, as {lognormal:{median:100,sigma:0.6,least:8,most:384,step:8}}, or a CSV "
            "file of sizes that is replayed in order (null: all have that of the model)"
        ),
        hint=Any,
        word=mix_word,
        place=_PLACE,
        cell=mix_cell,
        overrides=mix_overrides,
        trtexec=TrtexecFlag(note="it runs one shape; these flags are for the largest"),
    )
    buckets: tuple[tuple[Dimension, ...], ...] | None = axis(
        None,
        key="load.buckets",
        help="load.shapes: shapes that have an engine, to which requests are padded (null: each shape has one)",
        hint=Any,
        word=buckets_word,
        place=_PLACE,
        cell=lambda buckets: "null" if buckets is None else buckets_word(buckets).removeprefix("buckets"),
        overrides=buckets_overrides,
        trtexec=TrtexecFlag(note="it pads nothing"),
    )

    @property
    def engine_shapes(self) -> tuple[Shape, ...]:
        """Return the shapes that have an engine, the smallest first; () where the requests have no shapes of theirs."""
        return () if self.shapes is None else engine_shapes(self.shapes, self.buckets)

    @property
    def engine_places(self) -> tuple[int, ...]:
        """Return, for each entry of ``shapes``, the place of its engine in ``engine_shapes``."""
        engines = self.engine_shapes
        entries = () if self.shapes is None else self.shapes.entries
        return tuple(engine_of(entry.shape, engines) or 0 for entry in entries)

    @property
    def passes(self) -> int:
        """Return the passes over the load: one for each start of each engine."""
        return self.repeats * (self.builds or 1)

    def build_of(self, repeat: int) -> int | None:
        """Return the number of the engine that pass `repeat` starts; None where one engine serves all of them."""
        return None if self.builds is None else repeat % self.builds
