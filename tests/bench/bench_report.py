"""Figures of interleaved runs -> rows with ratios, spreads and verdicts -> a table. Pure, less the printing."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from bench_loops import Figures
from rich.table import Table

SHORT_US = 10  # GPU time under which an engine counts as one of about 5 us; else the stricter bound of 20 us holds
LEAST_RATIO, LEAST_RATIO_SHORT, LEAST_RATIO_STREAMS = 0.99, 0.97, 0.95
LEAST_RATIO_COMPILED = 0.98
MOST_ADDED_US, MOST_ADDED_COMPILED_US, MOST_LAG_US = 2.0, 1.0, 5.0
MOST_TIMER_PERCENT = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One comparison.

    Attributes:
        engine: which.
        gpu_us: its event time, median.
        what: what is compared, subject first.
        ours_us: the subject's median.
        theirs_us: what it is held against, median.
        kind: of ``result``: ratio (of throughputs), added_us, lag_us or percent.
        result: median over the pairs.
        low: least of the pairs.
        high: greatest of the pairs.
        target: bound on ``result``; None where nothing is promised.
        p50_us: the subject's latency, median of the runs.
        p99_us: the same at the 99th percentile.
        least_share: inferences of the subject's least served stream over the mean.
    """

    engine: str
    gpu_us: float
    what: str
    ours_us: float
    theirs_us: float
    kind: str
    result: float
    low: float
    high: float
    target: float | None = None
    p50_us: float | None = None
    p99_us: float | None = None
    least_share: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without one."""
        if self.target is None:
            return None
        if self.kind == "ratio":
            return self.result >= self.target
        return (abs(self.result) if self.kind == "percent" else self.result) <= self.target


def least_ratio(gpu_us: float) -> float:
    """The bound on one stream's throughput, for an engine of that GPU time."""
    return LEAST_RATIO_SHORT if gpu_us < SHORT_US else LEAST_RATIO


def ratio(
    engine: str, what: str, ours: Sequence[Figures], theirs: Sequence[Figures], target: float | None = None
) -> Row:
    """Throughput of ``ours`` over that of ``theirs``, pair by pair."""
    pairs = [them.us / us.us for us, them in zip(ours, theirs, strict=True)]
    medians = [median_of(runs, "us") for runs in (ours, theirs)]
    return _row(ours, pairs, medians, engine=engine, what=what, kind="ratio", target=target)


def added(
    engine: str, what: str, ours: Sequence[Figures], theirs: Sequence[Figures], target: float | None = None
) -> Row:
    """Median latency of ``ours`` less that of ``theirs``, pair by pair, in us."""
    pairs = [us.p50_us - them.p50_us for us, them in zip(ours, theirs, strict=True)]
    medians = [median_of(runs, "p50_us") for runs in (ours, theirs)]
    return _row(ours, pairs, medians, engine=engine, what=what, kind="added_us", target=target)


def timer(engine: str, what: str, host_us: Sequence[float], event_us: Sequence[float], gpu_us: float) -> Row:
    """Host time over event time of the same work, in percent above it."""
    pairs = [(host / event - 1) * 100 for host, event in zip(host_us, event_us, strict=True)]
    return Row(
        engine=engine,
        gpu_us=gpu_us,
        what=what,
        ours_us=statistics.median(host_us),
        theirs_us=statistics.median(event_us),
        kind="percent",
        result=statistics.median(pairs),
        low=min(pairs),
        high=max(pairs),
        target=MOST_TIMER_PERCENT,
    )


def lag(engine: str, what: str, ours_us: Sequence[float], theirs_us: Sequence[float]) -> Row:
    """Issue lags of runs, in us; the result is the median of ours."""
    return Row(
        engine=engine,
        gpu_us=0.0,
        what=what,
        ours_us=statistics.median(ours_us),
        theirs_us=statistics.median(theirs_us),
        kind="lag_us",
        result=statistics.median(ours_us),
        low=min(ours_us),
        high=max(ours_us),
        target=MOST_LAG_US,
    )


def _row(ours: Sequence[Figures], pairs: Sequence[float], medians: Sequence[float], **known) -> Row:
    return Row(
        gpu_us=median_of(ours, "gpu_us"),
        ours_us=medians[0],
        theirs_us=medians[1],
        result=statistics.median(pairs),
        low=min(pairs),
        high=max(pairs),
        p50_us=median_of(ours, "p50_us"),
        p99_us=median_of(ours, "p99_us"),
        least_share=median_of(ours, "least_share"),
        **known,
    )


def median_of(runs: Sequence[Figures], name: str) -> float:
    return statistics.median(getattr(run, name) for run in runs)


_FORMATS = {"ratio": "{:.4f}", "added_us": "{:+.2f} us", "percent": "{:+.3f}%", "lag_us": "{:.2f} us"}
_TARGETS = {"ratio": ">= {:g}", "added_us": "<= {:g} us", "percent": "within {:g}%", "lag_us": "<= {:g} us"}


def table(title: str, rows: Sequence[Row], ours: str, theirs: str) -> Table:
    """The rows as they are printed. ``ours`` and ``theirs`` head the two columns of times."""
    made = Table(title=title, title_justify="left")
    for name in ("engine", "GPU us", "what"):
        made.add_column(name, justify="right" if name == "GPU us" else "left", no_wrap=True)
    for name in (ours, theirs, "result", "low .. high", "p50 / p99 us", "target"):
        made.add_column(name, justify="right", no_wrap=True)
    made.add_column("verdict", no_wrap=True)
    for row in rows:
        show = _FORMATS[row.kind].format
        made.add_row(
            row.engine,
            f"{row.gpu_us:.1f}",
            row.what,
            f"{row.ours_us:.2f}",
            f"{row.theirs_us:.2f}",
            show(row.result),
            f"{show(row.low)} .. {show(row.high)}",
            "" if row.p50_us is None else f"{row.p50_us:.1f} / {row.p99_us:.1f}",
            "" if row.target is None else _TARGETS[row.kind].format(row.target),
            {None: "", True: "met", False: "not met"}[row.met],
        )
    return made
