"""Convert the axes of a record to flags of a dialect, with a line for each axis that has no flag."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sweep.cli.trtexec import shape_flags
from sweep.spec import TrtexecFlag, all_axes, from_record

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sweep.cli.trtexec.binary_versions import Dialect
    from sweep.models import TensorSpec
    from sweep.spec import Axis
    from sweep.storage import Record

KEPT_AHEAD = (
    2  # inferences that the binaries keep in flight per stream: IterationBase, samples/common/sampleInference.cpp
)
_KEEPS = f"it keeps {KEPT_AHEAD} inferences in flight per stream, or 1 with --exposeDMA"
_MOST_AHEAD = 8  # that sweep's TensorRT streams take


def realised(record: Record, name: str, default: Any) -> Any:
    """Return the value that ran; the requested one if the record does not say; else the TensorRT backend's default."""
    for source in (record.realised or {}, record.variant):
        value: Any = source.get(name)
        if value is not None:
            return value
    return default


def depth(record: Record) -> int:
    """Return the number of inferences in flight per stream in the record's closed loop."""
    return min(int(record.variant["load"]["depth"]), _MOST_AHEAD)


def environment(record: Record) -> dict[str, str]:
    """Return the environment variables that NVIDIA's libraries read when they are loaded."""
    override = (record.realised or {}).get("tf32_override")
    if override is None and _dtype(record) == "fp32":
        override = "0"
    variables = {} if override is None else {"NVIDIA_TF32_OVERRIDE": str(override)}
    if record.variant.get("mps") is not None:
        variables["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] = str(record.variant["mps"])
    return variables


def run_flags(record: Record, dialect: Dialect, specs: Sequence[TensorSpec]) -> list[str]:
    """Return the arguments that hold and drive an engine, the same if it is loaded and if it is built."""
    variant = record.variant
    eager = dialect.rtx and (record.realised or {}).get("kernel_specialization") == "EAGER"
    return [
        *shape_flags.flags(specs, int(variant["batch"])),
        *dialect.graph[0 if realised(record, "cuda_graph", default=False) else 1],
        *dialect.transfers[0 if realised(record, "transfers", default=True) else 1],
        *dialect.spin[1 if realised(record, "wait", default="spin") == "block" else 0],
        *(["--exposeDMA"] if depth(record) < KEPT_AHEAD else []),
        *(["--specializeStrategyDS=eager"] if eager else []),
        *(["--allowWeightStreaming"] if _streams_weights_of_a_plan(record) else []),
        f"--profilingVerbosity={variant.get('profiling_verbosity') or 'detailed'}",
        *(argument for _, value, how in _declared(record, dialect) if how.run for argument in how.run(value)),
    ]


def _streams_weights_of_a_plan(record: Record) -> bool:
    """Tell whether a plan that was built elsewhere gets a budget: the flag is otherwise that of the build's axis."""
    return record.variant.get("plan") is not None and record.variant.get("weight_streaming_budget_mib") is not None


def build_flags(record: Record, dialect: Dialect, specs: Sequence[TensorSpec]) -> list[str]:
    """Return the arguments of the builder; an axis at None leaves the binary's default, which is the library's."""
    return [
        *dialect.build,
        *([] if dialect.rtx or _dtype(record) == "tf32" else ["--noTF32"]),
        *shape_flags.profile_flags(specs, record.variant.get("profile")),
        *(argument for _, value, how in _declared(record, dialect) if how.build for argument in how.build(value)),
    ]


def _declared(record: Record, dialect: Dialect) -> Iterator[tuple[Axis, Any, TrtexecFlag]]:
    """Yield each axis that is set, with its value and what its field declares for the binary of `dialect`."""
    variant = from_record(record.variant)
    for axis in all_axes():
        how, value = axis.info.trtexec, axis.read(variant)
        if how is None or value is None:
            continue
        if dialect.rtx and not how.rtx:
            how = TrtexecFlag(note=f"not documented for {dialect.binary}")
        yield axis, value, how


def inexpressible(record: Record, dialect: Dialect) -> list[str]:
    """Return a line for each setting of the record that no flag expresses, with its effect on the comparison."""
    declared = [
        f"{axis.info.key}={axis.text(value)}: {how.note}"
        for axis, value, how in _declared(record, dialect)
        if how.note is not None and value != axis.info.cli_default
    ]
    build_lines = [] if record.variant.get("plan") else _build_lines(record, dialect)
    lines = [*_load_lines(record), *_session_lines(record, dialect), *build_lines, *declared]
    return [f"not expressible: {line}" for line in lines]


def _load_lines(record: Record) -> list[str]:
    load = record.variant["load"]
    lines = []
    if load["kind"] != "closed":
        arrivals = load["arrivals"] if load["kind"] == "curve" else load["kind"]
        lines.append(
            f"load={load['kind']}: {arrivals} arrivals at offered rates; the closed loop's peak alone compares"
        )
    if depth(record) > KEPT_AHEAD:
        lines.append(f"load.depth={depth(record)}: {_KEEPS}")
    lines.append(f"load.max_s={load['max_s']:g}: it runs until --duration and --iterations are both reached")
    return lines


def _session_lines(record: Record, dialect: Dialect) -> list[str]:
    variant = record.variant
    lines = []
    if variant.get("mps") is not None:
        lines.append("mps: the variable gives the share only under a running nvidia-cuda-mps-control")
    if realised(record, "wait", default="spin") == "yield":
        lines.append("wait=yield: it spins in CUDA instead, which is quicker to notice")
    if realised(record, "transfers", default=True) and depth(record) >= KEPT_AHEAD:
        lines.append(_copies(record))
    if dialect.rtx and realised(record, "cuda_graph", default=False):
        lines.append("cuda_graph=true: sweep replays a stream capture, tensorrt_rtx its library's own capture")
    samples = variant["load"].get("samples")
    if samples is None:
        seed = variant["seed"]
        lines.append(f"seed={seed}: it draws its own inputs, integers without regard to a vocabulary; see --loadInputs")
    else:
        lines.append(
            f"model.samples={samples['path']}: it feeds one batch to every inference; --parity writes the first one "
            "and adds --loadInputs"
        )
    return lines


def _copies(record: Record) -> str:
    line = "transfers=true: it copies beside the neighbour's compute, sweep in the same CUDA stream"
    gpu = record.peak.get("gpu_ms") if record.peak else None
    parts = (gpu["h2d"], gpu["compute"], gpu["d2h"]) if gpu else ()
    h2d, compute, d2h = (part["mean"] if part else None for part in parts) if parts else (None, None, None)
    if not (h2d and compute and d2h):
        return line
    return f"{line}, so that its Throughput may be up to {(h2d + d2h) / compute:.1%} higher"


def _build_lines(record: Record, dialect: Dialect) -> list[str]:
    variant = record.variant
    lines = []
    if dialect.rtx and _dtype(record) != "tf32":
        lines.append("the builder's cleared TF32 flag: --noTF32 is not documented for tensorrt_rtx (decision 8)")
    if not dialect.rtx and variant.get("timing_cache") is not False:
        lines.append("the shared timing cache: --timingCacheFile would write into it; a build from ONNX times anew")
    return lines


def _dtype(record: Record) -> str:
    return str(record.variant["precision_recipe"]["dtype"])
