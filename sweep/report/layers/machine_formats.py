"""Write a layer profile, or the difference of two, for scripts, spreadsheets and trace viewers."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any

import msgspec

from sweep.report.layers import wording

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sweep.report.layers.difference import LayerDifference
    from sweep.report.layers.profiles import Source

FORMAT, FORMAT_VERSION = "sweep-layers", 1
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # first characters by which a spreadsheet takes a text for a formula
_HEAD = ("key", "label", "backend", "device", "batch", "precision", "inferences", "source", "cuda_graph")
_OWN = 1_000_000  # number of the track of layers whose stream is not known


def as_json(source: Source) -> bytes:
    """Return the analysis of a profile: what it is of, ``rows``, ``totals``, ``findings``, ``peaks`` and ``notes``."""
    return _json({**_head(source), **msgspec.to_builtins(source.analysis)})


def difference_json(difference: LayerDifference) -> bytes:
    """Return the difference of two profiles: ``headline``, ``causes`` and ``groups``; times in us."""
    return _json(
        {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "headline": difference.headline,
            "of": "sample" if difference.per_sample else "inference",
            "a": {**_head(difference.a), "us": difference.a_us},
            "b": {**_head(difference.b), "us": difference.b_us},
            "causes": [{**msgspec.to_builtins(cause), "change_us": cause.change_us} for cause in difference.causes],
            "groups": [
                {
                    **{name: getattr(group, name) for name in ("name", "op", "what", "presence", "nodes")},
                    **{name: getattr(group, name) for name in ("a_us", "b_us", "change_us", "ratio")},
                    "a": [row.name for row in group.a],
                    "b": [row.name for row in group.b],
                }
                for group in difference.groups
            ],
            "notes": difference.notes,
        }
    )


def as_csv(source: Source) -> str:
    """Return one row a layer, in the order in which they run, with units in the names of the columns."""
    heads = ["index", "layer", "kind", "category", "nodes", "operators", "added", "types", "time_us", "p10_us"]
    heads += ["p90_us", "share", "flops", "bytes", "tflops", "gb_per_s", "bound", "stream", "tactic"]
    layers = source.profile["layers"]
    return _csv(
        heads,
        (
            [
                *(row.index, row.name, row.kind, row.category, " ".join(row.nodes), " ".join(row.op_kinds), row.added),
                *(wording.types_text(source, row), row.time_us, row.p10_us, row.p90_us, row.share, row.flops),
                *(row.bytes, row.tflops, row.gb_per_s, row.bound),
                *(layers[row.index]["stream"], layers[row.index]["tactic"]),
            ]
            for row in source.analysis.rows
        ),
    )


def difference_csv(difference: LayerDifference) -> str:
    """Return one row a group of layers that compute the same nodes, the largest difference first."""
    heads = ["node", "operator", "what", "only", "a_us", "b_us", "b_minus_a_us", "b_over_a", "a_layers", "b_layers"]
    return _csv(
        heads,
        (
            [
                *(group.name, group.op, group.what, None if group.presence == "both" else group.presence),
                *(group.a_us, group.b_us, group.change_us, group.ratio),
                *(" | ".join(row.name for row in rows) for rows in (group.a, group.b)),
            ]
            for group in difference.groups
        ),
    )


def as_trace(sources: Sequence[Source]) -> bytes:
    """Return a trace that Perfetto and chrome://tracing open: a process a profile, a track a stream, a slice a layer.

    The profile has medians, no start times: the layers of a profile stand one behind the other in the order in which
    they run, also those of several streams, which may have run at the same time.
    """
    events: list[dict[str, Any]] = []
    for number, source in enumerate(sources, 1):
        name = wording.headline(source)
        events.append({"ph": "M", "pid": number, "name": "process_name", "args": {"name": name}})
        streams = {layer["stream"] for layer in source.profile["layers"]}
        for stream in sorted(streams, key=lambda value: (value is None, value or 0)):
            track = "layers" if stream is None else f"stream {stream}"
            events.append(
                {"ph": "M", "pid": number, "tid": _track(stream), "name": "thread_name", "args": {"name": track}}
            )
        events += _slices(source, number)
    return _json({"traceEvents": events, "displayTimeUnit": "ns"})


def _slices(source: Source, process: int) -> Iterable[dict[str, Any]]:
    start = 0.0
    for row in source.analysis.rows:
        layer = source.profile["layers"][row.index]
        if row.time_us is None:
            continue
        place = {"ph": "X", "pid": process, "tid": _track(layer["stream"])}
        arguments = {
            "layer": row.name,
            "nodes": list(row.nodes),
            "kind": row.kind,
            "types": wording.types_text(source, row),
            "tflops": row.tflops,
            "gb_per_s": row.gb_per_s,
            "bound": row.bound,
            "tactic": layer["tactic"],
        }
        yield {
            **place,
            "name": wording.layer_text(row),
            "cat": row.category,
            "ts": start,
            "dur": row.time_us,
            "args": {name: value for name, value in arguments.items() if value is not None},
        }
        kernel_start = start
        for kernel in layer.get("kernels", []):
            time = kernel["time"]["median_us"]
            yield {**place, "name": kernel["name"], "cat": "kernel", "ts": kernel_start, "dur": time}
            kernel_start += time
        start += row.time_us


def _track(stream: int | None) -> int:
    return _OWN if stream is None else stream + 1


def _head(source: Source) -> dict[str, Any]:
    profile: Any = source.profile
    return {"format": FORMAT, "version": FORMAT_VERSION, **{name: profile[name] for name in _HEAD}}


def _json(value: Any) -> bytes:
    return (json.dumps(value, allow_nan=False, indent=1) + "\n").encode(errors="backslashreplace")


def _csv(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(heads)
    writer.writerows([_plain(value) for value in row] for row in rows)
    return out.getvalue()


def _plain(value: Any) -> Any:
    """Return a value as a spreadsheet may have it: a name of a network is never a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
