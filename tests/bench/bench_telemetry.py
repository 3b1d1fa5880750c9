"""What reading the GPU's state costs the throughput: ``python tests/bench/bench_telemetry.py``.

A child process drives closed loops, as a worker does; this process reads NVML, or does not, in pairs of alternating
order. Needs a GPU, NVML (nvidia-ml-py) and TensorRT or TensorRT-RTX.
docs/reference/telemetry.md says what each figure means.
"""

import argparse
import contextlib
import dataclasses
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import special

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sweep import models
from sweep.analysis import percentiles
from sweep.analysis.measured_window import window_ips
from sweep.backends import registry
from sweep.loadgen.load_point import Place, closed_point
from sweep.runner.worker import artifacts
from sweep.spec import EngineAxes, LoadAxes, ModelRef, OnnxAxes, Precision, SessionAxes, Variant
from sweep.storage.cache import Cache
from sweep.system import serialization, telemetry

MOST_COST = 0.005
_LOADS = {  # model, batch, streams: the shortest inference, where the driver's time weighs most, and a long one
    "mlp b1 s1": ("mlp", 1, 1),
    "unet b1 s4": ("unet", 1, 4),
    "resnet50 b32 s2": ("resnet50", 32, 2),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """One comparison.

    Attributes:
        load: what ran meanwhile.
        hz: readings a second.
        pairs: how often both were measured.
        off_ips: median throughput without readings.
        ratio: throughput with readings over without, mean of the pairs' logarithms.
        low: lower end of its 95% interval.
        high: upper end.
    """

    load: str
    hz: float
    pairs: int
    off_ips: float
    ratio: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """Whether the cost is under the bound, with 95% confidence."""
        if self.low > 1 - MOST_COST:
            return "met"
        return "missed" if self.high < 1 - MOST_COST else "not told: more pairs"


def a_variant(backend: str, load: str, seconds: float) -> Variant:
    """fp16, captured as a graph where there is one, in a closed loop of ``seconds``."""
    model, batch, streams = _LOADS[load]
    gpu = registry.get(backend).on_gpu
    dtype = "fp16" if gpu else "fp32"
    return Variant(
        backend=backend,
        onnx=OnnxAxes(
            model=ModelRef(name=model, revision=models.zoo.entry(model).revision),
            precision=Precision(name=dtype, dtype=dtype),
        ),
        engine=EngineAxes(batch=batch),
        session=SessionAxes(streams=streams, cuda_graph=gpu),
        load=LoadAxes(kind="closed", warmup_s=0.1, min_s=seconds, min_requests=1, max_s=60.0),
    )


def serve(asked: Variant, cache: Cache) -> None:
    """The child: one closed loop for each line on stdin, its samples/s on what was stdout."""
    with os.fdopen(os.dup(1), "w", buffering=1) as answers:
        os.dup2(2, 1)  # whatever the libraries print goes to stderr
        backend = registry.get(asked.backend)
        typed = artifacts.make_onnx(asked, cache).typed
        entry = artifacts.build_engine(asked, backend, typed, cache)
        feeds = models.draw(models.signature(asked.onnx.model), asked.engine.batch, 0)
        session = backend.load(entry.path, entry.info, asked, feeds)
        answers.write("ready\n")
        for _ in sys.stdin:
            point = closed_point(session, asked.load, Place(index=-1, repeat=0, batch=asked.engine.batch))
            answers.write(f"{window_ips(point)}\n")
        session.close()


@contextlib.contextmanager
def driven(asked: Variant, cache: Path) -> Iterator[Callable[[], float]]:
    """A child that is ready; the function makes it run once and gives its samples/s."""
    command = [sys.executable, __file__, "--child", json.dumps(serialization.to_plain(asked)), "--cache", str(cache)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as child:

        def run() -> float:
            child.stdin.write("go\n")
            return float(child.stdout.readline())

        if child.stdout.readline() != "ready\n":
            raise SystemExit(f"the child did not start: {command}")
        run()
        yield run
        child.stdin.close()


def compared(load: str, run: Callable[[], float], gpu: telemetry.Gpu, hz: float, pairs: int) -> Cost:
    """Runs with and without readings, in pairs, each pair in an order drawn from a seed."""
    rng = random.Random(0)  # noqa: S311 - an order, no secret
    found: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(pairs):
        order = [True, False]
        rng.shuffle(order)
        for read in order:
            with gpu.watch() if read else contextlib.nullcontext():
                found[read].append(run())
    logs = np.log(found[True]) - np.log(found[False])
    half = special.stdtrit(pairs - 1, (1 + percentiles.INTERVAL) / 2) * logs.std(ddof=1) / math.sqrt(pairs)
    low, high = logs.mean() - half, logs.mean() + half
    return Cost(
        load=load,
        hz=hz,
        pairs=pairs,
        off_ips=statistics.median(found[False]),
        ratio=float(np.exp(logs.mean())),
        low=float(np.exp(low)),
        high=float(np.exp(high)),
    )


def readings(gpu: telemetry.Gpu, run: Callable[[], float]) -> dict[str, object]:
    """What a watch over one run gave, and how long a reading takes: what a summary can be trusted with."""
    with gpu.watch() as watch:
        run()
    series = watch.series()
    reader = telemetry.Reader(gpu._library, gpu._device)
    took_us = []
    until = time.perf_counter() + 1.0
    while time.perf_counter() < until:
        start = time.perf_counter_ns()
        reader.read()
        took_us.append((time.perf_counter_ns() - start) / 1e3)
    close = reader.series()
    steps = np.flatnonzero(np.diff(close.columns["energy_j"]))
    return {
        "readings": len(series.t_ns),
        "reading_us_p50": statistics.median(took_us),
        "reading_us_max": max(took_us),
        "energy_counter_renewed_ms": float(np.median(np.diff(close.t_ns[steps])) / 1e6) if len(steps) > 1 else None,
        "not_readable": [name for name, values in series.columns.items() if np.isnan(values).all()],
        "own_processes_listed": float(np.nanmax(series.columns["own"], initial=0.0)),
        "strangers": series.strangers,
        "lost": series.lost,
    }


def main() -> None:
    """Compare every load, or be the child of one comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", default=None, help="tensorrt or tensorrt_rtx; default: what auto takes")
    parser.add_argument("--loads", nargs="+", choices=_LOADS, default=list(_LOADS))
    parser.add_argument("--hz", type=float, default=10.0)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each run")
    parser.add_argument("--json", type=Path, help="write what was found to this file")
    parser.add_argument("--cache", type=Path, help="of models and engines; default: a folder that is thrown away")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        serve(serialization.from_plain(Variant, json.loads(asked.child)), Cache(asked.cache))
        return
    gpu = telemetry.find(asked.hz)
    if gpu is None:
        raise SystemExit("no GPU that NVML can read: this bench needs one, and nvidia-ml-py")
    with contextlib.closing(gpu), tempfile.TemporaryDirectory() as scratch:
        bench(asked, gpu, asked.cache or Path(scratch))


def bench(asked: argparse.Namespace, gpu: telemetry.Gpu, cache: Path) -> None:
    """Each load: what was read, then the cost; after each the file is written anew."""
    backend = asked.backend or registry.resolve("auto")[0]
    found: dict[str, object] = {"backend": registry.get(backend).facts(), "loads": {}}
    for load in asked.loads:
        with driven(a_variant(backend, load, asked.seconds), cache) as run:
            seen = readings(gpu, run)
            print(f"{load}: {json.dumps(seen)}", flush=True)  # noqa: T201 - a command's output
            cost = compared(load, run, gpu, asked.hz, asked.pairs)
        print(  # noqa: T201 - same
            f"{load}: {cost.off_ips:,.0f} samples/s; with {cost.hz:g} readings a second {cost.ratio:.5f} of that, "
            f"95% interval {cost.low:.5f} to {cost.high:.5f} over {cost.pairs} pairs; "
            f"bound {1 - MOST_COST}: {cost.verdict}",
            flush=True,
        )
        found["loads"][load] = {**seen, **dataclasses.asdict(cost), "verdict": cost.verdict}
        if asked.json:
            asked.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
