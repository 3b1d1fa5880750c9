"""Define the columns of an outcome once, for the terminal's table, the page and its charts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from sweep import spec
from sweep.analysis import (
    carried_tail,
    curve_is_unusable,
    drifted,
    find_bottleneck,
    layers,
    light,
    memory,
    near,
    probably_higher,
    score,
    sqnr_text,
)
from sweep.report.comparison import compared, speedups
from sweep.report.frame_columns import energy_mj, gpu_compute_ms
from sweep.spec import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sweep.report.recommendation import Answer
    from sweep.spec import Axis, PercentileName, Slo
    from sweep.storage import Point, Record, SloResult

_DEFAULT_AXES = ("model.name", "precision.name", "batch")  # columns of a sweep in which nothing varies
_LOADED = 0.8  # of the peak, at which a latency under load is shown
_MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """Describe one figure of a variant.

    Attributes:
        name: by which charts find it, with its unit at the end; data files have the columns of `frame_columns`.
        heading: head of the column; a line feed is where the terminal may break it.
        text: record -> cell of a table.
        value: record -> the figure itself, for sorting and charts; None if it is unknown.
        better: whether more or less of it is better; None for a column that no chart draws.
        on_terminal: whether the terminal has room for it.
    """

    name: str
    heading: str
    text: Callable[[Record], str]
    value: Callable[[Record], float | str | None]
    better: Literal["more", "less"] | None = None
    on_terminal: bool = True

    @property
    def title(self) -> str:
        """Return the heading on one line."""
        return self.heading.replace("\n", " ")


def shown_axes(records: Sequence[Record]) -> Sequence[Axis]:
    """Return the axes that have a column: those that tell the variants apart, or the usual ones if nothing varies."""
    return compared(records).axes or tuple(spec.keyed()[key] for key in _DEFAULT_AXES)


def tail_of(records: Sequence[Record]) -> PercentileName:
    """Return the highest percentile, up to p99, that some point of the records carries."""
    return carried_tail(point for record in records for point in record.points) or "p99"


def figures(records: Sequence[Record], recommendation: Answer, slo: Slo | None) -> list[Column]:
    """Return the columns behind the axes, without those of which no record has a figure.

    Args:
        records: records of the outcome.
        recommendation: answer of the sweep.
        slo: latency objective; None without one, or where each record has its own.
    """
    tail, ratios = tail_of(records), speedups(records)
    columns = [
        Column(name="status", heading="status", text=status_text, value=status_text),
        Column(name="peak_samples_per_s", heading="peak\nsamples/s", text=peak_text, value=peak_ips, better="more"),
        *_speedup(ratios),
        *(_latencies(tail) if any(record.points for record in records) else []),
        *_ratio(recommendation),
        *_capacity(records, slo),
        Column(name="sqnr_db", heading="SQNR dB", text=sqnr_text, value=_sqnr, better="more"),
        Column(name="top1", heading="top-1", text=_score_text, value=score, better="more"),
        Column(
            name="energy_mj_per_sample", heading="mJ per\nsample", text=_energy_text, value=energy_mj, better="less"
        ),
        Column(
            name="device_memory_mib",
            heading="memory\nMiB",
            text=lambda record: format_number(memory_mib(record), "{:,.0f}"),
            value=memory_mib,
            better="less",
            on_terminal=False,
        ),
        Column(
            name="host_memory_mib",
            heading="host\nMiB",
            text=lambda record: format_number(host_memory_mib(record), "{:,.0f}"),
            value=host_memory_mib,
            better="less",
            on_terminal=False,
        ),
        Column(
            name="gpu_compute_p50_ms",
            heading="GPU p50\nms",
            text=lambda record: format_number(gpu_compute_ms(record), "{:.3g}"),
            value=gpu_compute_ms,
            better="less",
            on_terminal=False,
        ),
        *_roofline(records),
        Column(
            name="bottleneck",
            heading="limited by",
            text=lambda record: _limit(record) or "-",
            value=_limit,
            on_terminal=False,
        ),
    ]
    optional = {"bottleneck", "top1", "energy_mj_per_sample", "device_memory_mib", "host_memory_mib"}
    optional |= {"gpu_compute_p50_ms", "tflops", "compute_peak_share", "full_from_batch"}
    return [
        column
        for column in columns
        if column.name not in optional or any(column.value(record) is not None for record in records)
    ]


def _speedup(ratios: Mapping[str, float]) -> list[Column]:
    if not ratios:
        return []
    return [
        Column(
            name="peak_over_fp32",
            heading="peak over\nfp32",
            text=lambda record: format_speedup(ratios.get(record.key)),
            value=lambda record: ratios.get(record.key),
            better="more",
        )
    ]


def _roofline(records: Sequence[Record]) -> list[Column]:
    """Return the columns that hold throughput against the GPU: for the page, the terminal has no room for them."""
    full = layers.full_batches(records)

    def share_text(record: Record) -> str:
        return format_number(layers.share_of_peak(record), "{:.1%}")

    return [
        Column(
            name="tflops",
            heading="TFLOP/s",
            text=lambda record: _tflops_text(layers.achieved_tflops(record)),
            value=layers.achieved_tflops,
            better="more",
            on_terminal=False,
        ),
        Column(
            name="compute_peak_share",
            heading="of the GPU's\npeak",
            text=share_text,
            value=layers.share_of_peak,
            better="more",
            on_terminal=False,
        ),
        Column(
            name="full_from_batch",
            heading="full from\nbatch",
            text=lambda record: str(full.get(record.key, "-")),
            value=lambda record: str(full[record.key]) if record.key in full else None,
            on_terminal=False,
        ),
    ]


def _tflops_text(value: float | None) -> str:
    return format_number(value, "{:,.0f}" if value is not None and value >= 100 else "{:.3g}")  # noqa: PLR2004 - digits


def _ratio(recommendation: Answer) -> list[Column]:
    """Return the column of the ratio to the best; none where no ratio has an interval."""
    if not any(ratio.low != ratio.high for ratio in recommendation.ratios.values()):
        return []

    def low(record: Record) -> float | None:
        ratio = recommendation.ratios.get(record.key)
        return None if ratio is None or recommendation.ratio_text(record) == "-" else ratio.low

    return [Column(name="of_best_low", heading="of the best\n(95%)", text=recommendation.ratio_text, value=low)]


def _capacity(records: Sequence[Record], slo: Slo | None) -> list[Column]:
    """Return the column of the capacity: under `slo`, or where the records have several, under that of each."""
    if slo is None and len({slo_of(record) for record in records} - {None}) < 2:  # noqa: PLR2004 - several
        return []

    def text(record: Record) -> str:
        capacity = capacity_text(record.slo)
        own = slo_of(record)
        return f"{capacity} ({own})" if slo is None and own is not None and capacity != "-" else capacity

    heading = f"samples/s at\n{'its SLO' if slo is None else slo}"
    value = capacity_ips
    return [Column(name="capacity_samples_per_s", heading=heading, text=text, value=value, better="more")]


def slo_of(record: Record) -> Slo | None:
    """Return the latency objective under which the capacity of a record was searched; None without one."""
    if record.slo is None:
        return None
    try:
        return spec.of_percent(record.slo["percentile"], record.slo["limit_ms"])
    except KeyError:  # a percentile of another version
        return None


def common_slo(records: Sequence[Record]) -> Slo | None:
    """Return the latency objective of all records that have one; None if there is none, or several."""
    slos = {slo_of(record) for record in records} - {None}
    return slos.pop() if len(slos) == 1 else None


def _latencies(tail: PercentileName) -> list[Column]:
    return [
        _latency("p50_light_ms", "p50 ms\nlight", "p50", light),
        _latency(f"{tail}_light_ms", f"{tail} ms\nlight", tail, light),
        _latency(f"{tail}_at_80_percent_ms", f"{tail} ms\nat 80%", tail, _loaded),
    ]


def _latency(name: str, heading: str, percentile: PercentileName, point_of: Callable[[Record], Point | None]) -> Column:
    def text(record: Record) -> str:
        return latency_text(point_of(record), percentile)

    def value(record: Record) -> float | None:
        point = point_of(record)
        return None if point is None else point["latency_ms"][percentile]

    return Column(name=name, heading=heading, text=text, value=value, better="less")


def _loaded(record: Record) -> Point | None:
    return near(record, _LOADED)


def status_text(record: Record) -> str:
    """Format the status of a record, with what qualifies an ``ok``: a drift of the machine, a curve without a point."""
    remarks: list[str] = [str(record.status)]
    remarks += ["drift"] if drifted(record) else []
    remarks += ["no usable curve"] if record.status == "ok" and curve_is_unusable(record) else []
    return ", ".join(remarks)


def peak_text(record: Record) -> str:
    """Format the peak of a record, samples/s, with ``~`` in front if its verdict is not ok."""
    if record.peak is None or record.peak["ips"] is None:
        return "-"
    return f"{'' if record.peak['verdict'] == Verdict.OK else '~'}{record.peak['ips']:,.0f}"


def peak_ips(record: Record) -> float | None:
    """Return the peak of a record, samples/s; None if it is unknown."""
    return None if record.peak is None else record.peak["ips"]


def format_speedup(ratio: float | None) -> str:
    """Format a peak over that of fp32, as in ``1.83x``."""
    return format_number(ratio, "{:.2f}x")


def latency_text(point: Point | None, percentile: PercentileName) -> str:
    """Format the latency of a point, ms: ``~`` in front if the point is not ok, ``>`` if it is probably higher."""
    value = None if point is None else point["latency_ms"][percentile]
    if point is None or value is None:
        return "-"
    mark = ">" if probably_higher(point, percentile) else ""
    return f"{mark if point['verdict'] == Verdict.OK else '~'}{value:.3g}"


def capacity_text(slo: SloResult | None) -> str:
    """Format the capacity, samples/s, with ``~`` in front if no run at that very rate confirmed it."""
    if slo is None or slo["capacity_ips"] is None:
        return "-"
    return f"{'' if slo.get('confirmed') else '~'}{slo['capacity_ips']:,.0f}"


def capacity_ips(record: Record) -> float | None:
    """Return the capacity of a record under its SLO, samples/s; None if there is none."""
    return None if record.slo is None else record.slo["capacity_ips"]


def _sqnr(record: Record) -> float | None:
    """Return the SQNR, dB; None where it is unknown, and for equal outputs, which have none."""
    return None if record.accuracy is None or sqnr_text(record) in {"-", "exact"} else record.accuracy["sqnr_db"]


def _score_text(record: Record) -> str:
    return format_number(score(record), "{:.2%}")


def _energy_text(record: Record) -> str:
    return format_number(energy_mj(record), "{:.3g}")


def memory_mib(record: Record) -> float | None:
    """Return the memory that the session takes on the device, MiB; of several clients, that of all of them."""
    size = memory.device_bytes(record)
    return None if size is None else size / _MIB


def host_memory_mib(record: Record) -> float | None:
    """Return the most memory of the host that the worker held up to the first run, MiB."""
    size = memory.host_bytes(record)
    return None if size is None else size / _MIB


def _limit(record: Record) -> str | None:
    """Return the name of what limits a variant; None where nothing was measured."""
    limit = find_bottleneck(record)
    return None if limit is None else str(limit.limit)


def format_number(value: float | None, form: str) -> str:
    """Format a number for a table; ``-`` for one that is unknown."""
    return "-" if value is None else form.format(value)
