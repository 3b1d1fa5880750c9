"""Set the ways to serve the shapes of one load side by side: engines, memory, speed, padding, changes of shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sweep.spec import PER_ENGINE, PER_SHAPE, digest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.storage import Record

_MIB = 1 << 20
_WORDS_OF_A_WAY = ("profiles-", "switched", "mix", "buckets")  # of a label
_NOT_OF_A_WAY = ("label", "profiles", "profile_switch", "model_ref", "load")


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeWay:
    """Hold what one way to serve the shapes of a load takes and gives. None stands for what is not known.

    Attributes:
        record: what was measured.
        way: how the shapes are served: ``per_engine``, ``range``, ``per_shape`` or ``per_shape, switched``.
        engines: number of engines.
        profiles: optimization profiles of all of them.
        contexts: execution contexts.
        engine_bytes: size of the engines on disk, bytes.
        device_bytes: memory that the session takes on the device, bytes.
        allocated_bytes: memory that the library allocated for engines and contexts at its peak, and that of inputs and
            outputs, bytes; without what CUDA keeps for the kernels of a process.
        context_bytes: scratch memory of the contexts of one stream, bytes.
        graphs: number of CUDA graphs.
        graph_bytes: memory of the CUDA graphs, bytes.
        peak_ips: peak of the closed loop, samples/s.
        padding: share of the computed elements that is padding.
        p50_ms: median latency by shape, ms; in the closed loop, or at the lowest rate where there is none.
        change_ms: largest addition of a change of shape to the time of the inference after it, ms.
        gpu_change_ms: the same by CUDA events.
        first_run_ms: longest first inference of a shape, ms.
    """

    record: Record
    way: str
    engines: int | None
    profiles: int | None
    contexts: int | None
    engine_bytes: int | None
    device_bytes: int | None
    allocated_bytes: int | None
    context_bytes: int | None
    graphs: int | None
    graph_bytes: int | None
    peak_ips: float | None
    padding: float | None
    p50_ms: dict[str, float | None]
    change_ms: float | None
    gpu_change_ms: float | None
    first_run_ms: float | None


def way_of(record: Record) -> ShapeWay | None:
    """Return how a record's shapes were served; None where its requests had one shape, and where none was measured."""
    part: Any = record.peak or next(iter(record.points), None)
    if part is None or "shapes" not in part:
        return None
    realised: dict[str, Any] = dict(record.realised or {})
    engine: dict[str, Any] = dict(record.engine or {})
    shapes: list[dict[str, Any]] = list(realised.get("shapes") or [])
    changes: list[dict[str, Any]] = list(realised.get("shape_changes") or [])
    sizes = {item["engine"]: item["bytes"] for item in shapes} or {engine.get("key"): engine.get("bytes")}
    profiles, switched = record.variant.get("profiles"), bool(record.variant.get("profile_switch"))
    graphs: dict[str, Any] = engine.get("graphs") or {}
    contexts = realised.get("contexts")
    if profiles is None and contexts is not None:
        contexts *= len(shapes) or 1  # the record has those of one engine
    one_context = profiles is not None and (profiles["way"] != PER_SHAPE or switched)
    return ShapeWay(
        record=record,
        way=_way_text(record, switched=switched),
        engines=len(sizes) if shapes else None,
        profiles=None if not shapes else len(sizes) if profiles is None else engine.get("profiles") or 1,
        contexts=contexts,
        engine_bytes=None if None in sizes.values() else sum(sizes.values()),
        device_bytes=engine.get("device_memory_bytes"),
        allocated_bytes=_allocated_bytes(engine),
        context_bytes=engine.get("context_memory_bytes") if one_context or not shapes else _context_bytes(shapes),
        graphs=graphs.get("count"),
        graph_bytes=graphs.get("memory_bytes"),
        peak_ips=record.peak["ips"] if record.peak else None,
        padding=part.get("padding"),
        p50_ms={item["shape"]: item["latency_ms"]["p50"] for item in part["shapes"]},
        change_ms=_largest(changes, "change_ms", "stay_ms"),
        gpu_change_ms=_largest(changes, "gpu_change_ms", "gpu_stay_ms"),
        first_run_ms=max((item["first_run_ms"] for item in shapes if "first_run_ms" in item), default=None),
    )


def _way_text(record: Record, *, switched: bool) -> str:
    """Word the way of a record, as ``per_shape, switched`` or ``per_engine, padded to 128, 384``."""
    profiles, buckets = record.variant.get("profiles"), record.variant["load"].get("buckets")
    words = [PER_ENGINE if profiles is None else profiles["way"], *(["switched"] if switched else [])]
    return ", ".join([*words, *([f"padded to {_shapes_text(buckets)}"] if buckets else [])])


def _shapes_text(shapes: Sequence[Any]) -> str:
    """Return shapes of a record's table of axes, as ``64, 384``, or with the names of several dimensions."""
    alone = all(len(shape) == 1 for shape in shapes)
    return ", ".join(
        "+".join(str(item["size"]) if alone else f"{item['name']}:{item['size']}" for item in shape) for shape in shapes
    )


def _allocated_bytes(engine: dict[str, Any]) -> int | None:
    memory: dict[str, Any] = engine.get("memory") or {}
    if "peak_bytes" not in memory:
        return None
    return int(memory["peak_bytes"]) + int(memory.get("buffers_bytes") or 0)


def _context_bytes(shapes: list[dict[str, Any]]) -> int | None:
    """Return the scratch memory of the contexts of a stream that has one for each shape."""
    each = [item.get("context_memory_bytes") for item in shapes]
    return None if None in each else sum(size for size in each if size is not None)


def _largest(changes: list[dict[str, Any]], after: str, stay: str) -> float | None:
    return max((change[after] - change[stay] for change in changes if after in change), default=None)


def groups(records: Sequence[Record]) -> list[list[ShapeWay]]:
    """Return the records that differ in nothing but the way in which the shapes of their load are served.

    Args:
        records: of a sweep, or of several.

    Returns:
        Groups of two ways or more, each in the order of the records.
    """
    found: dict[str, list[ShapeWay]] = {}
    for record in records:
        way = way_of(record)
        if way is not None:
            found.setdefault(_alike(record), []).append(way)
    return [group for group in found.values() if len({way.way for way in group}) > 1]


def _alike(record: Record) -> str:
    """Return what records have in common that differ in the way alone."""
    variant = record.variant
    model = {name: value for name, value in variant["model_ref"].items() if name != "open_dimensions"}
    rest = {name: value for name, value in variant.items() if name not in _NOT_OF_A_WAY}
    load = {name: value for name, value in variant["load"].items() if name != "buckets"}
    return digest(model, rest, load)


HEADS = (
    *(
        "way",
        "engines",
        "profiles",
        "contexts",
        "engines MiB",
        "allocated MiB",
        "device MiB",
        "contexts MiB",
        "graphs",
        "graphs MiB",
    ),
    *("peak samples/s", "p50 ms", "padding", "change ms", "change GPU ms", "first run ms"),
)


def table_of(group: Sequence[ShapeWay]) -> tuple[str, list[tuple[str, ...]]]:
    """Return the title of the table of one group, then its rows, of which the first has the heads.

    Columns in which nothing is known are left out.
    """
    table = [HEADS, *map(_cells, group)]
    kept = [place for place in range(len(HEADS)) if any(row[place] != "-" for row in table[1:])]
    variant = group[0].record.variant
    shapes = _shapes_text([entry["shape"] for entry in variant["load"]["shapes"]["entries"]])
    words = [word for word in str(variant["label"]).split() if not word.startswith(_WORDS_OF_A_WAY)]
    return f"Ways to serve the shapes {shapes} of {' '.join(words)}:", [
        tuple(row[place] for place in kept) for row in table
    ]


def lines(records: Sequence[Record]) -> list[str]:
    """Return the tables of all groups as lines of text, for a page that has no table for them: a line a way."""
    texts = []
    for group in groups(records):
        title, (heads, *cells) = table_of(group)
        texts.append(title)
        for way, *values in cells:
            known = [f"{head} {value}" for head, value in zip(heads[1:], values, strict=True) if value != "-"]
            texts.append(f"{way}: {', '.join(known)}")
    return texts


def _cells(way: ShapeWay) -> tuple[str, ...]:
    return (
        way.way,
        *(_count(value) for value in (way.engines, way.profiles, way.contexts)),
        *(_mib(value) for value in (way.engine_bytes, way.allocated_bytes, way.device_bytes, way.context_bytes)),
        _count(way.graphs),
        _mib(way.graph_bytes),
        "-" if way.peak_ips is None else f"{way.peak_ips:,.0f}",
        " / ".join("-" if value is None else f"{value:.3g}" for value in way.p50_ms.values()) or "-",
        "-" if way.padding is None else f"{way.padding:.1%}",
        *(_signed(value) for value in (way.change_ms, way.gpu_change_ms)),
        "-" if way.first_run_ms is None else f"{way.first_run_ms:.3g}",
    )


def _count(value: int | None) -> str:
    return "-" if value is None else str(value)


def _mib(value: int | None) -> str:
    return "-" if value is None else f"{value / _MIB:,.1f}"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.3f}"
