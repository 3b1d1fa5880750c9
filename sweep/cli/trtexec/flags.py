"""Axes of a record -> flags of a dialect, and a line for each axis that has none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sweep.cli.trtexec import shape_flags

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.cli.trtexec.binary_versions import Dialect
    from sweep.models import TensorSpec
    from sweep.spec import JsonDict
    from sweep.storage import Record

KEPT_AHEAD = (
    2  # inferences that the binaries keep in flight per stream: IterationBase, samples/common/sampleInference.cpp
)
_KEEPS = f"it keeps {KEPT_AHEAD} inferences in flight per stream, or 1 with --exposeDMA"
_MOST_AHEAD = 8  # that sweep's TensorRT streams take
_TILING = {"none": 0, "fast": 1, "moderate": 2, "full": 3}
_HARDWARE = {"none": "none", "ampere_plus": "ampere+", "same_compute_capability": "sameComputeCapability"}
_MS = 1000.0


def realised(record: Record, name: str, default: Any) -> Any:
    """What ran; what was asked where the record does not say; else the TensorRT backend's default."""
    for source in (record.realised or {}, record.variant):
        value: Any = source.get(name)
        if value is not None:
            return value
    return default


def depth(record: Record) -> int:
    """Inferences in flight per stream of the record's closed loop."""
    return min(int(record.variant["load"]["depth"]), _MOST_AHEAD)


def environment(record: Record) -> dict[str, str]:
    """Variables that NVIDIA's libraries read when they are loaded."""
    override = (record.realised or {}).get("tf32_override")
    if override is None and _dtype(record) == "fp32":
        override = "0"
    found = {} if override is None else {"NVIDIA_TF32_OVERRIDE": str(override)}
    if record.variant.get("mps") is not None:
        found["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] = str(record.variant["mps"])
    return found


def run_flags(record: Record, dialect: Dialect, specs: Sequence[TensorSpec]) -> list[str]:
    """How the engine is held and driven: the same for an engine that is loaded and one that is built."""
    variant, load = record.variant, record.variant["load"]
    streams = int(variant["streams"])
    eager = dialect.rtx and (record.realised or {}).get("kernel_specialization") == "EAGER"
    return [
        *shape_flags.flags(specs, int(variant["batch"])),
        *dialect.graph[0 if realised(record, "cuda_graph", default=False) else 1],
        *dialect.transfers[0 if realised(record, "transfers", default=True) else 1],
        *dialect.spin[1 if realised(record, "wait", default="spin") == "block" else 0],
        *(["--exposeDMA"] if depth(record) < KEPT_AHEAD else []),
        *([f"--infStreams={streams}", "--threads"] if streams > 1 else []),
        *(["--specializeStrategyDS=eager"] if eager else []),
        f"--profilingVerbosity={variant.get('profiling_verbosity') or 'detailed'}",
        *_weight_streaming(variant),
        *(f"--staticPlugins={_path(plugin)}" for plugin in variant.get("plugins") or ()),
        f"--warmUp={load['warmup_s'] * _MS:g}",
        f"--duration={load['min_s']:g}",
        f"--iterations={load['min_requests']}",
    ]


def build_flags(record: Record, dialect: Dialect, specs: Sequence[TensorSpec]) -> list[str]:
    """The builder's knobs; an axis at None leaves the binary's default, which is the library's."""
    variant = record.variant
    flags = {
        "--builderOptimizationLevel": variant.get("builder_optimization_level"),
        "--maxAuxStreams": variant.get("max_aux_streams"),
        "--tilingOptimizationLevel": _TILING.get(str(variant.get("tiling"))),
        "--sparsity": variant.get("sparsity"),
        "--memPoolSize": _pool(variant.get("workspace_mib")),
        "--hardwareCompatibilityLevel": None if dialect.rtx else _hardware(variant),
    }
    return [
        *dialect.build,
        *([] if dialect.rtx or _dtype(record) == "tf32" else ["--noTF32"]),
        *shape_flags.profile_flags(specs, variant.get("profile")),
        *(f"{flag}={value}" for flag, value in flags.items() if value is not None),
        *(["--versionCompatible"] if variant.get("version_compatible") and not dialect.rtx else []),
        *(["--refit"] if variant.get("refit") else []),
    ]


def inexpressible(record: Record, dialect: Dialect) -> list[str]:
    """A line for each thing about the record that no flag says, with what it means for the comparison."""
    lines = [*_load_lines(record), *_session_lines(record, dialect), *_build_lines(record, dialect)]
    return [f"not expressible: {line}" for line in lines]


def _load_lines(record: Record) -> list[str]:
    load, variant = record.variant["load"], record.variant
    lines = []
    if load["kind"] != "closed":
        arrivals = load["arrivals"] if load["kind"] == "curve" else load["kind"]
        lines.append(
            f"load={load['kind']}: {arrivals} arrivals at offered rates; the closed loop's peak alone compares"
        )
    if depth(record) > KEPT_AHEAD:
        lines.append(f"load.depth={depth(record)}: {_KEEPS}")
    lines.append(f"load.max_s={load['max_s']:g}: it runs until --duration and --iterations are both reached")
    if variant["repeats"] > 1:
        lines.append(f"repeats={variant['repeats']}: one run is one pass")
    return lines


def _session_lines(record: Record, dialect: Dialect) -> list[str]:
    variant = record.variant
    lines = []
    if variant["clients"] != 1:
        lines.append(f"clients={variant['clients']}: one process; start that many side by side and add up")
    if variant.get("mps") is not None:
        lines.append("mps: the variable gives the share only under a running nvidia-cuda-mps-control")
    if variant.get("mps_build") is not None:
        lines.append(f"mps_build={variant['mps_build']}: a build from ONNX runs under the same share as the engine")
    if variant.get("sm_count") is not None:
        lines.append(f"sm_count={variant['sm_count']}: it uses the whole GPU; a green context is made in the process")
    if realised(record, "wait", default="spin") == "yield":
        lines.append("wait=yield: it spins in CUDA instead, which is quicker to notice")
    if realised(record, "transfers", default=True) and depth(record) >= KEPT_AHEAD:
        lines.append(_copies(record))
    if dialect.rtx and realised(record, "cuda_graph", default=False):
        lines.append("cuda_graph=true: sweep replays a stream capture, tensorrt_rtx its library's own capture")
    seed = variant["seed"]
    lines.append(f"seed={seed}: it draws its own inputs, integers without regard to a vocabulary; see --loadInputs")
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
    if dialect.rtx:
        lines += [
            f"{axis}={variant[axis]}: not documented for tensorrt_rtx"
            for axis in ("version_compatible", "hardware_compatibility")
            if variant.get(axis) is not None
        ]
    elif variant.get("timing_cache") is not False:
        lines.append("the shared timing cache: --timingCacheFile would write into it; a build from ONNX times anew")
    return lines


def _dtype(record: Record) -> str:
    return str(record.variant["precision_recipe"]["dtype"])


def _weight_streaming(variant: JsonDict) -> list[str]:
    if not variant.get("weight_streaming"):
        return []
    budget = variant.get("weight_streaming_budget_mib")
    return ["--allowWeightStreaming", *([] if budget is None else [f"--weightStreamingBudget={budget}M"])]


def _pool(mib: int | None) -> str | None:
    return None if mib is None else f"workspace:{mib}M"


def _hardware(variant: JsonDict) -> str | None:
    asked = variant.get("hardware_compatibility")
    return None if asked is None else _HARDWARE.get(asked, asked)


def _path(plugin: Any) -> str:
    return str(plugin["path"] if isinstance(plugin, dict) else plugin)
