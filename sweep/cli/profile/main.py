"""Run a record's engine below NVIDIA's Nsight Systems (nsys) or Nsight Compute (ncu); no record changes.

The engine comes from the cache, so that nothing is built. What is recorded are N inferences on each stream after a
warm-up, with NVTX ranges for variant, stage, point and inference. nsys records a timeline; ncu measures every kernel,
and the longest are printed beside their layers. The report is kept in profiles/KEY/ of the sweep's folder.

Exit codes: 0 done; 1 the profiler ran and gave no report; 2 nothing could be run; 130 interrupted.

Examples:
  sweep profile results/SWEEP/records/KEY.json --with nsys
  sweep profile results/SWEEP/records/KEY.json --with ncu --inferences 3
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

from sweep.cli import arguments, one_network
from sweep.cli.profile import nsight
from sweep.errors import ConfigError, ParityError, printable_line, shorten

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from sweep.cli.profile.kernels import Kernel
    from sweep.spec import JsonDict, Variant
    from sweep.storage import Record

_INFERENCES = {nsight.NSYS: 20, nsight.NCU: 1}  # ncu repeats each kernel for its metrics
_WARMUP = 10
_LONGEST = 5
_LOG_WIDTH = 160  # of a pipe or file, where nothing says how wide it is
_NO_COUNTERS = "ERR_NVGPUCTRPERM"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    arguments.add_record(parser)
    parser.add_argument("--with", dest="tool", choices=nsight.TOOLS, required=True, help="profiler to run it below")
    parser.add_argument(
        "--inferences", type=arguments.count, metavar="N", help="inferences of each stream to record [nsys 20, ncu 1]"
    )
    parser.add_argument(
        "--warmup", type=arguments.count, default=_WARMUP, metavar="N", help=f"inferences before them [{_WARMUP}]"
    )
    parser.add_argument("--eager", action="store_true", help="run without the CUDA graph that the variant has")
    parser.add_argument(
        "--kernels", type=arguments.count, default=_LONGEST, metavar="N", help=f"ncu: kernels to print [{_LONGEST}]"
    )
    parser.add_argument(
        "--binary", type=arguments.filled, metavar="PATH", help="the profiler, or its name on PATH [nsys or ncu]"
    )
    parser.add_argument(
        "--cache", type=arguments.folder, metavar="DIR", help="cache folder [the one beside the record's sweep]"
    )
    parser.add_argument(
        "--timeout-s", type=arguments.seconds, default=600.0, metavar="N", help="time limit of the profiler, s [600]"
    )


def run(options: argparse.Namespace) -> int:
    """Run the engine below the profiler; return the exit code."""
    from sweep.spec import from_record
    from sweep.storage import record_file

    record = record_file.read(options.record)
    one_network.check(record, "profile")
    try:
        variant = from_record(record.variant)
    except (KeyError, ValueError, TypeError, AttributeError) as error:  # a record of inner values that are none of ours
        reason = printable_line(shorten(f"{type(error).__name__}: {error}"))
        raise ConfigError(f"record {record.key}: its variant cannot be run ({reason})") from error
    _refuse(record, variant, options.tool)
    binary = nsight.locate(options.tool, options.binary)
    engine = _engine(record, options.record, options.cache)
    try:
        return _profile(options, binary, (record, variant), engine)
    except ParityError as error:
        sys.stderr.write(f"sweep profile: {printable_line(str(error))}\n")
        return 1


def _refuse(record: Record, variant: Variant, tool: str) -> None:
    """Refuse what the profiler cannot look at."""
    from sweep.backends import registry

    backend = registry.get(variant.backend)
    if not backend.runs_models:
        raise ConfigError(f"record {record.key}: backend={variant.backend} computes nothing that could be profiled")
    if tool == nsight.NCU and not backend.on_gpu:
        raise ConfigError(
            f"record {record.key}: backend={variant.backend} launches no kernel on a GPU, which is what ncu measures; "
            "--with nsys shows its threads, layers=true times its nodes"
        )
    reason = backend.unsupported(variant)
    if reason is not None:
        raise ConfigError(f"record {record.key} cannot be run here: {reason}")


def _engine(record: Record, path: Path, cache: Path | None) -> Path:
    """Return the engine's folder in the cache.

    Raises:
        ConfigError: it is not there; says what fills the cache again.
    """
    from sweep.cli.trtexec import artifact_paths

    root = cache or path.resolve().parent.parent.parent / "cache"
    key = (record.engine or {}).get("key")
    if not key:
        raise ConfigError(f"record {record.key} has no engine: it ended as {record.status}")
    folder = root / "engines" / key
    if not folder.is_dir():
        advice = artifact_paths.find(record, path, cache).advice
        raise ConfigError(f"engine {key} is no longer in {root}, and nothing is built below a profiler: {advice}")
    return folder


def _profile(options: argparse.Namespace, binary: str, what: tuple[Record, Variant], engine: Path) -> int:
    from sweep.backends import registry
    from sweep.runner import messages
    from sweep.runner.worker import profiled_inferences
    from sweep.system import DeviceLock, devices, module_command, module_environment, regular_files

    record, variant = what
    backend = registry.get(variant.backend)
    folder = options.record.resolve().parent.parent / "profiles" / record.key
    _make_folder(folder)
    inferences = options.inferences or _INFERENCES[options.tool]
    request = messages.ProfileRequest(
        variant=variant,
        cache=engine.parent.parent,
        engine=engine.name,
        inferences=inferences,
        warmup=options.warmup,
        eager=options.eager,
    )
    request_file = folder / "request.json"
    with regular_files.open_output(request_file) as file:
        file.write(messages.encode(request))
    device = devices.find_devices(None)[0] if backend.on_gpu else devices.Device()
    report = folder / nsight.REPORTS[options.tool]
    for stale in (report, folder / profiled_inferences.ANSWER):
        stale.unlink(missing_ok=True)
    child = module_command("sweep.runner.worker.profiled_inferences", str(request_file))
    environment = module_environment({**backend.environment(variant), **device.environment})
    if options.tool == nsight.NSYS:
        command = nsight.nsys_command(binary, report, child, on_gpu=backend.on_gpu)
    else:
        listing = _output(nsight.query_command(binary), environment, options.timeout_s)
        command = nsight.ncu_command(binary, report, nsight.select_metrics(listing), child)
    _say(f"command  {shlex.join(command)}")
    for line in _notes(variant, options.tool):
        _say(f"note: {line}")
    lock = DeviceLock(f"gpu-{device.uuid or 'any'}" if backend.on_gpu else "cpu", None, _say)
    lock.acquire()
    try:
        _run(command, environment, folder / f"{options.tool}.log", options.timeout_s)
    finally:
        lock.release()
    answer = json.loads(regular_files.read_bytes(folder / profiled_inferences.ANSWER, follow=False))
    _print_answer(options, answer, report)
    if options.tool == nsight.NCU:
        text = _output(nsight.import_command(binary, report), environment, options.timeout_s)
        with regular_files.open_output(folder / "ncu.csv") as file:
            file.write(text.encode())
        _print_kernels(text, answer, engine, options.kernels)
    return 0


def _make_folder(folder: Path) -> None:
    """Make the folder of the report; a link in its place would have the report written elsewhere.

    Raises:
        ConfigError: it, or the folder above it, is a link.
    """
    for path in (folder.parent, folder):
        if path.is_symlink():
            raise ConfigError(f"{path} is a link to {path.readlink()}, and nothing is written there: remove the link")
    folder.mkdir(parents=True, exist_ok=True)


def _notes(variant: Variant, tool: str) -> list[str]:
    """Return how the run below the profiler differs from the one that was timed."""
    session = variant.session
    notes = []
    if session.clients > 1 or session.mps is not None:
        notes.append(f"one client runs alone, without MPS; the record had clients={session.clients}")
    if tool == nsight.NCU and session.streams > 1:
        notes.append("ncu runs one kernel at a time: what streams do to each other is in the timeline of nsys")
    return notes


def _run(command: Sequence[str], environment: Mapping[str, str], log: Path, timeout_s: float) -> None:
    """Run the profiler to its end, with its output in a file.

    Raises:
        ParityError: it, or the program below it, failed; with the reason of the one that is at fault.
    """
    from sweep.cli.trtexec import binary_process
    from sweep.runner.worker import profiled_inferences
    from sweep.system import regular_files

    failure = None
    try:
        binary_process.run(command, environment, log, timeout_s)
    except ParityError as error:
        failure = str(error)
    printed = regular_files.read_text(log, follow=False, errors="replace") if log.exists() else ""
    lines = printed.splitlines()
    if _NO_COUNTERS in printed:
        raise ParityError(
            "the driver keeps the GPU's counters for administrators: run as root, or load the module with "
            "NVreg_RestrictProfilingToAdminUsers=0 (https://developer.nvidia.com/ERR_NVGPUCTRPERM)"
        )
    own = [line.partition(profiled_inferences.FAILURE)[2] for line in lines if profiled_inferences.FAILURE in line]
    if own:
        raise ParityError(f"{own[-1]}; its output: {log}")
    if failure is not None:
        reason = next((line for line in reversed(lines) if "==ERROR==" in line), lines[-1] if lines else "")
        raise ParityError(f"{failure}; it printed: {shorten(reason)}")
    if not log.with_name(profiled_inferences.ANSWER).exists():
        raise ParityError(f"the program below {command[0]} did not come to its end; its output: {log}")


def _output(command: Sequence[str], environment: Mapping[str, str], timeout_s: float) -> str:
    """Return what a short command of the profiler prints; "" where it fails."""
    from sweep.system import child_process

    try:
        done = subprocess.run(
            list(command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
            env={**os.environ, **environment},
            preexec_fn=child_process.DIE_WITH_PARENT,  # see there
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _print_answer(options: argparse.Namespace, answer: JsonDict, report: Path) -> None:
    """Print what ran, what marked its ranges, and where the report is.

    Raises:
        ParityError: the profiler wrote no report.
    """
    from sweep.system import nvtx_ranges

    count = answer["inferences"]
    streams = f" on each of {answer['streams']} streams" if answer["streams"] > 1 else ""
    graph = ", a CUDA graph each" if answer["cuda_graph"] else ""
    # ncu runs each kernel many times in between, so that the time of an inference means nothing.
    took = "" if options.tool == nsight.NCU else f", {answer['round_us']:,.1f} us each below {options.tool}"
    _say(f"ran      {count} {'inference' if count == 1 else 'inferences'}{streams}{graph}{took}")
    _say(f"ranges   NVTX, by {answer['nvtx']}" if answer["nvtx"] else f"ranges   none: {nvtx_ranges.INSTALL} adds NVTX")
    if not report.is_file():
        raise ParityError(f"{options.tool} wrote no report {report}; its output: {report.with_name(options.tool)}.log")
    _say(f"report   {report}")


def _print_kernels(text: str, answer: JsonDict, engine: Path, count: int) -> None:
    """Print the longest kernels of an inference beside their layers."""
    from sweep.cli.profile import kernels
    from sweep.system import regular_files

    once = kernels.of_one_inference(kernels.parse(text), answer["inferences"] * answer["streams"])
    listing = engine / "inspector.json"
    layers = kernels.layer_names(regular_files.read_bytes(listing, follow=False)) if listing.is_file() else []
    joined, how = kernels.join(once, layers)
    total_us = sum(kernel.duration_us for kernel in kernels.longest(joined, len(joined)))
    _say(f"kernels  {len(joined)} of an inference, {total_us:,.1f} us together; joined to layers {how}")
    _print_table(kernels.longest(joined, count), total_us)


def _print_table(longest: Sequence[Kernel], total_us: float) -> None:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from sweep.cli.console import Terminal
    from sweep.cli.profile import kernels

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("layer", overflow="fold")
    for heading in ("us", "share", "SM %", "DRAM %", "Tensor %", "warps %", "waves"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("blocks limited by", no_wrap=True)
    table.add_column("kernel", overflow="fold")
    for kernel in longest:
        shares = (
            kernel.metrics.get(nsight.SM),
            kernel.metrics.get(nsight.DRAM),
            kernels.tensor_share(kernel),
            kernel.metrics.get(nsight.WARPS),
        )
        cells = [f"{kernel.duration_us:,.2f}", f"{kernel.duration_us / total_us:.1%}"]
        cells += ["-" if share is None else f"{share:.1f}" for share in shares]
        waves = kernel.metrics.get(nsight.WAVES)
        cells += ["-" if waves is None else f"{waves:.2f}", kernels.blocks_limit(kernel) or "-"]
        table.add_row(escape(kernel.layer or "-"), *cells, escape(shorten(kernel.name, 120)))
    console = Terminal()
    if not console.is_terminal:
        console.width = max(console.width, _LOG_WIDTH)
    console.print(table)


def _say(text: str) -> None:
    sys.stdout.write(f"{printable_line(text)}\n")
    sys.stdout.flush()
