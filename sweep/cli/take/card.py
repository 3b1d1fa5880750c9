"""Write the card of a variant that is taken: what it does, how well, how that is known, and what it is bound to."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from sweep.analysis import joules, light, near, score, sqnr_text
from sweep.errors import printable_line
from sweep.report import verdict_lines
from sweep.spec import PER_SHAPE, Verdict, shape_text
from sweep.system import command_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sweep.cli.take.selection import Choice
    from sweep.spec import JsonDict, ShapeProfiles, Variant
    from sweep.storage import Peak, Point, Record

_MIB = 1 << 20
_FACTS = (
    *("gpu", "compute_capability", "driver", "cuda", "tensorrt", "cuda_bindings", "onnxruntime", "cpu", "cores"),
    *("os", "python", "numpy", "onnx", "sweep", "host"),
)
_Row = tuple[str, str, str, str]  # figure, value, 95% interval, meaning


def text(choice: Choice, variant: Variant, manifest: JsonDict, *, engine_bytes: int) -> str:
    """Return the card in Markdown.

    Args:
        choice: the variant, its sweep and why it is taken.
        variant: its axes.
        manifest: content of manifest.json.
        engine_bytes: size of the engine, bytes.
    """
    record = choice.record
    command = shlex.join([command_line.NAME, *manifest["command"]])
    lines = [
        f"# {_plain(choice.label)}",
        "",
        (
            f"Variant {record.key} of the sweep {_plain(choice.store.root.name)}, measured "
            f"{_plain(record.started_at)}. {_plain(_sentence(choice.reason))}"
        ),
        "",
        "## Use it",
        "",
        "    python infer.py            # one inference on inputs.npz; prints names and shapes of the outputs",
        "    python infer.py --check    # the same, and compares with outputs.npz",
        "    sha256sum -c SHA256SUMS    # every file is the one that was taken",
        "",
        f"It needs numpy and {_packages(variant)}. infer.py and engine.py are in the public domain (CC0).",
        f"When it was taken: {_plain(manifest['check'])}.",
        *_another_build(manifest),
        "",
        "## Figures",
        "",
        *_table(
            ("figure", "value", "95% interval", "what it means"),
            _figures(choice, engine_bytes),
        ),
        "",
        "Intervals are of this machine as it was: another GPU, driver or clock has other figures.",
        "",
        *(f"- {_plain(line)}" for line in _remarks(choice)),
        "",
        "## How it was served",
        "",
        *(f"- {line}" for line in _served(variant)),
        "",
        "## What it is bound to",
        "",
        _bound(variant),
        "",
        *_table(("fact", "value"), [(name, str(value)) for name, value in manifest["bound_to"].items()]),
        "",
        "infer.py names each of these that differs where it runs.",
        "",
        "## How it was made",
        "",
        f"    {_plain(command)}",
        "",
        *(f"- {line}" for line in _made(manifest["recipe"], variant)),
        "",
        "Facts of the machine that measured it:",
        "",
        *_table(
            ("fact", "value"),
            [(name, str(value)) for name in _FACTS if (value := dict(record.facts).get(name)) is not None],
        ),
        "",
        "record.json is the whole record, with every rate that was tried; manifest.json has the facts for programs,",
        "and the SHA-256 of each file.",
        "",
    ]
    return "\n".join(lines)


def _plain(value: str) -> str:
    """Return a text of a record on one line, without what Markdown would read as a table or as HTML."""
    return printable_line(value).replace("|", "\\|").replace("<", "&lt;")


def _sentence(reason: str) -> str:
    return reason[:1].upper() + reason[1:].rstrip(".") + "."


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
        *(f"| {' | '.join(_plain(cell) for cell in row)} |" for row in rows),
    ]


def _packages(variant: Variant) -> str:
    return "onnxruntime" if variant.backend == "onnxruntime" else f"{variant.backend} with cuda-python"


def _another_build(manifest: JsonDict) -> list[str]:
    if manifest["engine"]["is_the_measured_one"]:
        return []
    return [
        "",
        (
            "**The engine was built again, and is not the one that was timed** (its SHA-256 differs): builders choose "
            "kernels by timing them. Measure it once more before you rely on the figures."
        ),
    ]


def _figures(choice: Choice, engine_bytes: int) -> list[_Row]:
    record = choice.record
    return [
        *_peak(record),
        *_capacity(record),
        *_latency(light(record), "light load"),
        *_latency(near(record, 0.8), "80% of the peak"),
        *_accuracy(record),
        *_cost(record, engine_bytes),
    ]


def _peak(record: Record) -> list[_Row]:
    peak = record.peak
    if peak is None or peak["ips"] is None:
        return []
    starts = len(peak.get("passes_ips") or [1])
    meaning = f"throughput with every stream always busy; {starts} {'start' if starts == 1 else 'starts'} of the engine"
    if starts == 1:
        meaning += ", so that the interval holds no difference between starts"
    return [("peak", f"{peak['ips']:,.0f} samples/s", _rates(peak["interval"]), meaning + _verdict(peak))]


def _capacity(record: Record) -> list[_Row]:
    slo = record.slo
    if slo is None:
        return []
    limit = f"p{slo['percentile']:g} of at most {slo['limit_ms']:g} ms"
    if slo["capacity_ips"] is None:
        return [("capacity", "none", "-", f"{limit}: {slo.get('reason') or 'no rate that was tried kept it'}")]
    confirmed = f"{'a' if slo.get('confirmed') else 'no'} run at this rate confirmed it"
    share = "" if slo["confidence"] is None else f" with {slo['confidence']:.1%} confidence"
    after = "" if slo["next_ips"] is None else f"; {slo['next_ips']:,.0f} samples/s did not keep it"
    meaning = f"kept {limit}{share}: {confirmed}{after}. Plan with it"
    rows = [("capacity", f"{slo['capacity_ips']:,.0f} samples/s", "-", meaning)]
    likeliest = slo.get("estimate_ips")
    if likeliest is not None:
        meaning = "likeliest capacity by all runs together; no promise"
        rows.append(
            ("capacity, estimate", f"{likeliest:,.0f} samples/s", _rates(slo.get("estimate_interval")), meaning)
        )
    return rows


def _latency(point: Point | None, load: str) -> list[_Row]:
    if point is None:
        return []
    latency, intervals = point["latency_ms"], point["interval"]
    rate = f"of the requests at {point['offered_ips']:,.0f} samples/s took no longer, waiting included{_verdict(point)}"
    return [
        (f"{name} latency, {load}", f"{value:.3g} ms", _milliseconds(interval), f"{share} {rate}")
        for name, share, value, interval in (
            ("p50", "half", latency["p50"], intervals["p50"]),
            ("p99", "99 of 100", latency["p99"], intervals["p99"]),
        )
        if value is not None
    ]


def _accuracy(record: Record) -> list[_Row]:
    accuracy, top1 = record.accuracy, score(record)
    rows: list[_Row] = []
    if accuracy is not None:
        against = accuracy.get("reference", "the fp32 graph on the same inputs")
        meaning = f"signal over error of the outputs, against {against}"
        value = sqnr_text(record)
        value = {"exact": "equal outputs", "-": "unknown"}.get(value, f"{value} dB")
        rows.append(("SQNR", value, "-", meaning + (f": {accuracy['unknown']}" if "unknown" in accuracy else "")))
    if accuracy is not None and top1 is not None:
        meaning = f"share of {accuracy['scored_on']} that it gets right; fp32: {accuracy['reference_score']:.2%}"
        rows.append(("top-1", f"{top1:.2%}", "-", meaning))
    return rows


def _cost(record: Record, engine_bytes: int) -> list[_Row]:
    rows: list[_Row] = []
    energy, engine = joules(record), record.engine or {}
    if energy is not None:
        rows.append(("energy", f"{energy * 1e3:.3g} mJ", "-", "of a sample, by the GPU's own counter"))
    memory = engine.get("device_memory_bytes")
    if memory is not None:
        rows.append(("memory", f"{memory / _MIB:,.0f} MiB", "-", "that one process takes on the device"))
    rows.append(("engine", f"{engine_bytes / _MIB:,.2f} MiB", "-", "on disk"))
    return rows


def _verdict(part: Peak | Point) -> str:
    reason = part.get("reason") or "see record.json"
    return "" if part["verdict"] == Verdict.OK else f" ({part['verdict']}: {reason})"


def _rates(interval: Sequence[float] | None) -> str:
    return "-" if not interval else f"{interval[0]:,.0f} to {interval[1]:,.0f}"


def _milliseconds(interval: Sequence[float] | None) -> str:
    return "-" if not interval else f"{interval[0]:.3g} to {interval[1]:.3g}"


def _remarks(choice: Choice) -> list[str]:
    """Return what qualifies the figures: notes of the session and what the table says below itself."""
    record = choice.record
    notes = list((record.realised or {}).get("notes") or [])
    return [*notes, *verdict_lines([record], {record.key: choice.label})]


def _served(variant: Variant) -> list[str]:
    """Return what to set where it is served, for the figures to hold."""
    session, load = variant.session, variant.load
    shared = session.clients > 1
    lines = [
        f"batches of {variant.engine.batch}"
        + ("" if variant.engine.profile is None else f"; the engine takes {_range(variant)}")
        + ("" if variant.engine.profiles is None else f"; the engine takes {_sizes(variant.engine.profiles)}"),
        _count(session.streams, "stream") + ", one inference at a time in each",
        _count(session.clients, "process", "processes")
        + (" that share the device, each with an engine of its own; figures are of all together" if shared else ""),
    ]
    if session.mps is not None:
        lines.append(f"CUDA MPS with {session.mps}% of the threads for each process")
    if session.sm_count is not None:
        lines.append(f"a CUDA green context of {session.sm_count} SMs for each process")
    if session.cuda_graph:
        lines.append("each inference replayed as a CUDA graph; infer.py enqueues it without one, which is slower")
    if session.transfers is False:
        lines.append("**without** the copies of inputs and outputs, which your requests have to make")
    if session.wait is not None:
        lines.append(f"threads that wait for the GPU by {session.wait}")
    if session.intra_op_threads is not None:
        lines.append(f"{session.intra_op_threads} CPU threads for each inference")
    if session.context_memory is not None:
        lines.append(f"scratch memory of a context: {session.context_memory}")
    if session.persistent_cache_ratio is not None:
        lines.append(f"{session.persistent_cache_ratio:.0%} of the L2 cache that can be set aside keeps activations")
    if load.batch_wait_ms is not None:
        lines.append(f"a server that gathers requests into batches for at most {load.batch_wait_ms:g} ms")
    lines += [f"in the environment of the process: {name}={value}" for name, value in _environment(variant).items()]
    return [*lines, f"load: {load.kind}" + ("" if load.kind != "curve" else ", Poisson arrivals at rising rates")]


def _environment(variant: Variant) -> dict[str, str]:
    from sweep.backends import registry

    return registry.get(variant.backend).environment(variant)


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _sizes(profiles: ShapeProfiles) -> str:
    """Return the sizes of the named dimensions that an engine over several shapes takes."""
    if profiles.way == PER_SHAPE:
        return f"{', '.join(map(shape_text, profiles.shapes))}, a profile each"
    ((least, best, most),) = profiles.limits
    return f"{shape_text(least)} to {shape_text(most)}, and was optimized for {shape_text(best)}"


def _range(variant: Variant) -> str:
    profile = variant.engine.profile
    return "" if profile is None else f"{profile.least} to {profile.most}, and was optimized for {profile.best}"


def _bound(variant: Variant) -> str:
    engine = variant.engine
    if variant.backend == "onnxruntime":
        return (
            "The graph was optimised by this version of onnxruntime for this kind of CPU. Other versions and CPUs "
            "mostly load it; its figures are of these."
        )
    if variant.backend == "tensorrt_rtx":
        return (
            "TensorRT-RTX loads an engine of its own version only. It compiles the kernels when the engine is loaded, "
            "so that other GPUs of the compute capabilities that it was built for load it too; figures are of this one."
        )
    library = (
        "any later version with the same major number loads it (version_compatible)"
        if engine.version_compatible
        else "no other version of TensorRT loads it"
    )
    gpu = (
        f"other GPUs load it too (hardware_compatibility={engine.hardware_compatibility})"
        if engine.hardware_compatibility
        else "it is for GPUs of this very model"
    )
    return f"A plan of TensorRT: {library}, and {gpu}. Elsewhere, build it from the typed ONNX (`sweep trtexec`)."


def _made(recipe: JsonDict, variant: Variant) -> list[str]:
    if variant.engine.plan is not None:
        return [f"the engine came as a plan of {_plain(variant.engine.plan.built_by)}: it was loaded, not built"]
    file = f", recipe in {recipe['file']}" if recipe["file"] else ""
    lines = [f"precision: {_plain(str(recipe['precision']))}{_plain(file)}"]
    graph = recipe["graph_pass"]
    if graph is not None:
        digest = f" (SHA-256 of its source {graph['digest']})" if graph.get("digest") else ""
        lines.append(f"graph pass: {_plain(str(graph['name']))}{digest}")
    return [*lines, *(f"conversion: {_plain(str(note))}" for note in recipe["notes"])]
