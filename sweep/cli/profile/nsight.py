"""Make the command lines of NVIDIA's profilers, Nsight Systems (nsys) and Nsight Compute (ncu)."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

NSYS, NCU = "nsys", "ncu"
TOOLS = (NSYS, NCU)
REPORTS = {NSYS: "nsys.nsys-rep", NCU: "ncu.ncu-rep"}
_INSTALL = {
    NSYS: "install Nsight Systems: apt install nsight-systems-cli from NVIDIA's CUDA repository, or "
    "https://developer.nvidia.com/nsight-systems",
    NCU: "install Nsight Compute: apt install nsight-compute from NVIDIA's CUDA repository (the CUDA toolkit has it in "
    "/usr/local/cuda/bin), or https://developer.nvidia.com/nsight-compute",
}
_TOOLKIT = Path("/usr/local/cuda/bin")  # where a toolkit has it that is not on PATH

DURATION = "gpu__time_duration.sum"
SM = "sm__throughput.avg.pct_of_peak_sustained_elapsed"
DRAM = "dram__throughput.avg.pct_of_peak_sustained_elapsed"
DRAM_BYTES = "dram__bytes.sum"
# Of these the first that the GPU has: cycles count long instructions, such as Hopper's products, by their length.
TENSOR = (
    "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_active",
    "sm__inst_executed_pipe_tensor.avg.pct_of_peak_sustained_active",
    "sm__inst_executed_pipe_tensor_op_hmma.avg.pct_of_peak_sustained_active",
)
WARPS = "sm__warps_active.avg.pct_of_peak_sustained_active"
WAVES = "launch__waves_per_multiprocessor"
LIMITS = tuple(f"launch__occupancy_limit_{name}" for name in ("blocks", "registers", "shared_mem", "warps"))
_CERTAIN = (DURATION, SM, DRAM)  # which every GPU that ncu supports has


def locate(tool: str, binary: str | None) -> str:
    """Return the absolute path of a profiler.

    Args:
        tool: ``nsys`` or ``ncu``.
        binary: its path, or another name to look for; None looks for the tool's own on PATH and in CUDA's toolkit.

    Raises:
        ConfigError: there is no such executable; says what to install.
    """
    path = shutil.which(binary or tool)
    if path is None and binary is None:
        path = shutil.which(tool, path=str(_TOOLKIT))
    if path is None:
        problem = f"--binary {binary} is no executable" if binary else f"{tool} is not on PATH"
        raise ConfigError(f"--with {tool}: {problem}; {_INSTALL[tool]}; or give --binary /path/to/{tool}")
    return str(Path(path).resolve())


def nsys_command(binary: str, report: Path, child: Sequence[str], *, on_gpu: bool) -> list[str]:
    """Return the command that records a timeline of `child`.

    Args:
        binary: nsys.
        report: file of the report; replaced.
        child: the command to record.
        on_gpu: record what is between cudaProfilerStart and cudaProfilerStop; otherwise all of it, on the CPU alone.
    """
    capture = ("--capture-range=cudaProfilerApi", "--capture-range-end=stop", "--cuda-graph-trace=node")
    return [
        *(binary, "profile"),
        *(capture if on_gpu else ()),
        f"--trace={'cuda,nvtx,osrt' if on_gpu else 'nvtx,osrt'}",
        *("--force-overwrite=true", f"--output={report.with_suffix('')}"),
        *child,
    ]


def ncu_command(binary: str, report: Path, metrics: Iterable[str], child: Sequence[str]) -> list[str]:
    """Return the command that measures each kernel between cudaProfilerStart and cudaProfilerStop.

    Clocks are left as they are, and caches keep what they hold, so that durations can be held against those of layers.

    Args:
        binary: ncu.
        report: file of the report; replaced.
        metrics: names of the metrics.
        child: the command to measure.
    """
    return [
        *(binary, "--profile-from-start", "off", "--target-processes", "all", "--graph-profiling", "node"),
        *("--clock-control", "none", "--cache-control", "none", "--metrics", ",".join(metrics)),
        *("--force-overwrite", "--export", str(report.with_suffix(""))),
        *child,
    ]


def import_command(binary: str, report: Path) -> list[str]:
    """Return the command that prints a report of ncu as CSV."""
    return [binary, "--import", str(report), "--csv", "--print-units", "base"]


def query_command(binary: str) -> list[str]:
    """Return the command that prints the names of the metrics that the GPU has."""
    return [binary, "--query-metrics"]


def select_metrics(listing: str) -> tuple[str, ...]:
    """Return the metrics to measure, of those that a GPU has.

    Args:
        listing: output of ``query_command``; "" where it failed, so that only what every GPU has is measured.
    """
    known = {words[0] for line in listing.splitlines() if (words := line.split())}
    if not known:
        return (*_CERTAIN, *LIMITS)
    tensor = next((name for name in TENSOR if name.partition(".")[0] in known), None)
    further = [name for name in (DRAM_BYTES, WARPS) if name.partition(".")[0] in known]
    return (*_CERTAIN, *further, *([] if tensor is None else [tensor]), WAVES, *LIMITS)
