"""On PYTHONPATH, Python runs this at its start: in a worker it causes what ``SWEEP_TEST_FAULTS`` asks for.

{batch: [what, where]} as JSON: what is ``kill`` (SIGKILL to itself), ``hang`` (SIGSTOP to itself), ``eat`` (all the
memory that a limit of its own leaves), ``limit`` (no file may be longer than a few bytes), ``clock:`` and numbers (the
clocks of ``clock_steps.c`` step) or a path (a file that fills the disk up to 16 KiB, or to the end for ``record``);
where is build (the engine's files are written, the entry is not there yet), load (the session is), point (a point has
been running for a while), search (so has one of the search for the capacity), samples (it is over) or record (all is
done but the record); ``point or search`` is both.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import struct
import sys
import threading
import time
from pathlib import Path

POINT_S = 0.25
LEFT = 16 << 10
LONGEST = 512


def eat() -> None:
    """Every byte below a limit that is 64 MiB from here; raises MemoryError as any allocation would."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + (64 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    eaten = []
    while True:
        eaten.append(bytearray(1 << 20))


def fill(path: Path, left: int) -> None:
    """Write until the disk is full, then give ``left`` bytes back."""
    size = 0
    with path.open("wb", buffering=0) as file:
        with contextlib.suppress(OSError):
            while True:
                size += file.write(bytes(4096))
        file.truncate(max(size - left, 0))


def step_clocks(steps: str) -> None:
    """Add seconds to the clocks that ``clock_steps.c`` shifts: ``REALTIME,MONOTONIC``, several steps behind each other.

    The steps of one cause are 20 ms apart, so that a window sees each of them.
    """
    file = os.open(os.environ["CLOCK_STEPS"], os.O_RDWR)
    for step in steps.split(";"):
        by = [round(float(number) * 1e9) for number in step.split(",")]
        before = struct.unpack("qq", os.pread(file, 16, 0))
        os.pwrite(file, struct.pack("qq", *(old + new for old, new in zip(before, by, strict=True))), 0)
        time.sleep(0.02)
    os.close(file)


def cause(what: str, where: str) -> None:
    if what == "eat":
        eat()
    elif what.startswith("clock:"):
        step_clocks(what.removeprefix("clock:"))
    elif what == "limit":  # the record is the parent's to write
        limits = (LONGEST, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
        resource.prlimit(os.getppid() if where == "record" else os.getpid(), resource.RLIMIT_FSIZE, limits)
    elif what.startswith("/"):
        fill(Path(what), 0 if where == "record" else LEFT)
    else:
        os.kill(os.getpid(), signal.SIGKILL if what == "kill" else signal.SIGSTOP)


def install(faults: dict[str, list[str]]) -> None:  # noqa: C901 - a wrapper for each place
    from sweep.backends.onnxruntime.backend import OnnxRuntime
    from sweep.runner.worker import measure

    paths = {what for what, _ in faults.values() if what.startswith("/")}
    for path in paths:  # what an earlier worker filled the disk with
        Path(path).unlink(missing_ok=True)
    build, load, drive, whole = OnnxRuntime.build, OnnxRuntime.load, measure._drive, measure.measure

    def asked(variant: object, where: str) -> None:
        what, place = faults.get(str(variant.engine.batch), (None, None))  # type: ignore[attr-defined]
        if where not in (place or "").split(" or "):
            return
        if what == "eat" or where not in {"point", "search"}:
            cause(what, where)
        else:
            threading.Timer(POINT_S, cause, (what, where)).start()

    def faulty_build(self, onnx, variant, shapes, target):
        full = faults.get(str(variant.engine.batch), [""])[0] in {"limit", *paths}
        if full:
            asked(variant, "build")
        info = build(self, onnx, variant, shapes, target)
        if not full:
            asked(variant, "build")
        return info

    def faulty_load(self, engine, info, variant, feeds):
        session = load(self, engine, info, variant, feeds)
        asked(variant, "load")
        return session

    def faulty_drive(session, job, report):
        def reported(*values: object) -> None:
            report(*values)
            asked(job.variant, "point" if job.search is None else "search")

        points = drive(session, job, reported)
        asked(job.variant, "samples")
        return points

    def faulty_measure(job, *rest):
        result = whole(job, *rest)
        asked(job.variant, "record")
        return result

    OnnxRuntime.build, OnnxRuntime.load = faulty_build, faulty_load
    measure._drive, measure.measure = faulty_drive, faulty_measure


if "SWEEP_TEST_FAULTS" in os.environ and "sweep.runner.worker.main" in sys.orig_argv:
    install(json.loads(os.environ["SWEEP_TEST_FAULTS"]))
