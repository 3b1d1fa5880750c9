"""Axes of the load: change one of these and the session is driven anew."""

from __future__ import annotations

from dataclasses import dataclass, field

from sweep.spec.base import NOT_IN_KEY


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

    kind: str = "curve"
    arrivals: str = "poisson"
    depth: int = 2
    fractions: tuple[float, ...] = ()
    rates_ips: tuple[float, ...] = ()
    warmup_s: float = 0.3
    min_s: float = 1.0
    min_requests: int = 662
    max_s: float = 10.0
    max_wait_s: float = 1.0
    seed: int = 0
    repeats: int = 1
    batch_wait_ms: float | None = None
    trace: str | None = field(default=None, metadata=NOT_IN_KEY)
    trace_digest: str | None = None
    trace_scale: float | None = None
    trace_s: float | None = field(default=None, metadata=NOT_IN_KEY)
    points: int | None = None
    budget_s: float | None = None
    labels: LabelledData | None = None
