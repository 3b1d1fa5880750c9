"""NVML on a real GPU: what it gives, and the whole way from a worker's pass to the record. ``make test-gpu``."""

import io
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import require
from rich.console import Console

from sweep import models
from sweep.analysis import gpu_telemetry
from sweep.backends import registry
from sweep.backends.tensorrt import cuda, library
from sweep.runner import plan
from sweep.runner.executor import Run
from sweep.runner.progress import Display
from sweep.spec import EngineAxes, LoadAxes, ModelRef, OnnxAxes, Precision, SessionAxes, Variant
from sweep.spec.settings import Settings
from sweep.storage.store import Store
from sweep.system import telemetry

pytestmark = pytest.mark.gpu

LOAD = LoadAxes(fractions=(0.3, 0.7), warmup_s=0.2, min_s=2.0, min_requests=100, max_s=10.0)


@pytest.fixture
def backend():
    name = next((name for name in library.NAMES if library.installed(name)), library.NAMES[-1])
    require.gpu_for(name)
    return registry.get(name)


@pytest.fixture
def gpu(backend):
    found = telemetry.find(20.0)
    assert found is not None, "CUDA sees a GPU, so NVML (nvidia-ml-py) must read it"
    yield found
    found.close()


def test_an_idle_gpu_can_be_read(gpu) -> None:
    with gpu.watch() as watch:
        time.sleep(2.0)
    series = watch.series()
    found = gpu_telemetry.window(series, int(series.t_ns[0]), int(series.t_ns[-1]), samples=1)
    print(found)  # noqa: T201 - the figures are worth a look
    assert series.lost is None
    assert 30 <= len(series.t_ns) <= 42
    assert 10 < found["power_w"]["mean"] < 2000
    assert 10 < found["temperature_c"]["mean"] < 100
    assert 50 < found["sm_clock_mhz"]["min"] <= found["sm_clock_mhz"]["max"] < 5000
    assert found["energy_j"] == pytest.approx(found["power_w"]["mean"] * np.ptp(series.t_ns) / 1e9, rel=0.25)
    assert found["throttled"] is not None


def test_a_pass_on_a_gpu_has_its_state_and_its_energy(backend, tmp_path, monkeypatch) -> None:
    asked = Variant(
        backend=backend.name,
        onnx=OnnxAxes(
            model=ModelRef(name="resnet50", revision=models.zoo.entry("resnet50").revision),
            precision=Precision(name="fp16", dtype="fp16"),
        ),
        engine=EngineAxes(batch=32),
        session=SessionAxes(streams=2, cuda_graph=True),
        load=LOAD,
    )
    settings = Settings(name="s", results=tmp_path)
    made = plan.make([asked])
    with Display(Console(file=io.StringIO()), 2) as display:
        monkeypatch.setattr(display, "note", print)
        Run(made, settings, display, lambda _: None).execute(made.works)
    record = Store(settings.root).read(made.works[0].key)
    assert record.status == "ok", record.error
    for name, part in (("peak", record.peak), *((point["offered_ips"], point) for point in record.points)):
        found = part["telemetry"]
        print(name, part["verdict"], part["reason"], found)  # noqa: T201 - same
        assert found["readings"] >= 10
        assert found["energy_j_per_sample"] > 0
        assert found["lost"] is None
    peak, light = record.peak["telemetry"], record.points[0]["telemetry"]
    assert peak["power_w"]["mean"] > light["power_w"]["mean"]
    expected_w = peak["energy_j_per_sample"] * record.peak["ips"]
    assert expected_w == pytest.approx(peak["power_w"]["mean"], rel=0.25)
    assert record.telemetry["energy_j_per_sample"] == peak["energy_j_per_sample"]
    with np.load(Store(settings.root).telemetry_path(record.key)) as stored:
        assert len(stored["0/t_ns"]) >= 30
    print("foreign:", record.telemetry["foreign_processes"], record.telemetry["foreign"])  # noqa: T201 - same


HOLDS = """
import os, pathlib, sys, time
from cuda.bindings import runtime
assert int(runtime.cudaFree(0)[0]) == 0
pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))
time.sleep(60)
"""


@pytest.fixture
def stranger(backend, tmp_path):
    """Pid of a process with a CUDA context that is no child of ours: whoever started it has left it."""
    told = tmp_path / "pid"
    subprocess.run(["sh", "-c", '"$0" -c "$1" "$2" &', sys.executable, HOLDS, str(told)], check=True)
    limit = time.monotonic() + 30
    while not (told.exists() and told.read_text()):
        assert time.monotonic() < limit, "the other process made no context"
        time.sleep(0.1)
    pid = int(told.read_text())
    yield pid
    os.kill(pid, signal.SIGKILL)


def test_a_stranger_on_the_gpu_is_seen_wherever_nvml_lists_us(gpu, stranger) -> None:
    cuda.get().call("cudaFree", 0)  # a context of our own
    with gpu.watch() as watch:
        time.sleep(0.5)
    series = watch.series()
    found = gpu_telemetry.window(series, int(series.t_ns[0]), int(series.t_ns[-1]), samples=1)
    listed = np.nanmax(series.columns["own"], initial=0.0)
    print("our processes that NVML lists:", listed, "others:", series.strangers, "stranger:", stranger)  # noqa: T201
    if not listed:  # a container may be shown no pids, or the host's
        assert found["foreign_processes"] is None
        return
    assert found["foreign_processes"] >= 1
    assert any(text.split()[0] == str(stranger) for text in found["foreign"])
    assert "shared with" in gpu_telemetry.disturbance(found)
