"""MPS shares and green contexts on a real GPU: the SMs that an engine's process really has, and what breaks a share."""

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import numpy as np
import passes
import pytest
import require
from python_path import python_path
from test_tensorrt_gpu import BACKENDS, CLOSED, entry_of, feeds_of, variant

from sweep.backends import registry
from sweep.backends.tensorrt import cuda, sm_probe
from sweep.errors import UnsupportedError
from sweep.loadgen import load_curve
from sweep.runner.worker_process import Worker
from sweep.spec import EngineAxes, LoadAxes
from sweep.storage.cache import Cache
from sweep.system import mps, nvml
from sweep.system.mps import control

pytestmark = pytest.mark.gpu

SMALL = 16  # SMs; compute capability 9.0 and older give it


@pytest.fixture(params=BACKENDS)
def backend(request):
    require.gpu_for(request.param)
    return registry.get(request.param)


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Cache:
    return Cache(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def daemon():
    reason = mps.available()
    if reason is not None:
        require.missing("mps", reason)
    made = mps.Mps(None)
    yield made
    made.close()


@pytest.fixture(scope="module")
def total() -> int:
    found = sm_probe.whole_gpu_sm_count()
    if found is None:
        require.missing("gpu", "no process here can tell the SMs of a GPU")
    return found


def in_worker(backend, asked, environment: dict[str, str], tmp_path, cache_folder=None):
    """The outcome of one pass in a real worker with these variables."""
    worker = Worker(tmp_path / "worker.log", {**backend.environment(asked), **environment})
    job = passes.request(asked, tmp_path, cache=cache_folder or tmp_path / "cache", accuracy=False)
    try:
        outcome = worker.run(job, lambda _event: None, 120.0)
    finally:
        worker.close()
    assert outcome.status == "ok", (outcome.error, (tmp_path / "worker.log").read_text())
    return msgspec.structs.asdict(outcome.result)


def shared(backend, share: int | None, mps_build: int | None = None):
    asked = dataclasses.replace(variant(backend, "mlp", cuda_graph=True), load=CLOSED)
    return dataclasses.replace(
        asked,
        session=dataclasses.replace(asked.session, mps=share),
        engine=EngineAxes(batch=2, mps_build=mps_build),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("shared")


@pytest.mark.parametrize("share", [100, 75, 50, 25, 10])
def test_a_share_is_what_a_kernel_in_the_worker_finds(backend, daemon, total, folder, share: int, tmp_path) -> None:
    found = in_worker(backend, shared(backend, share), daemon.environment(share), tmp_path, folder)
    told = found["realised"]
    print(share, {key: told[key] for key in ("sm_count", "sm_reached", "sm_total", "under_mps", "build_sm_count")})  # noqa: T201
    assert found["mismatch"] is None
    assert told["under_mps"] is True
    assert told["sm_count"] == told["sm_reached"] == max(int(total * share / 100) // 2 * 2, 2)
    assert told["sm_total"] == total
    assert told["build_sm_count"] is None


@pytest.mark.parametrize(
    "case",
    [
        (50, 25, "asked for mps=50, but 32 of 132 SMs were given"),
        (50, None, "asked for mps=50, but the process ran without MPS, with 132 SMs"),
        (None, 50, "no MPS was asked for, but the process ran under an MPS daemon, with 66 SMs"),
    ],
)
def test_a_wrong_share_is_invalid(backend, daemon, total, folder, case, tmp_path_factory) -> None:
    asked, given, words = case
    if total != 132:
        pytest.skip(f"the figures in this test are those of 132 SMs; this GPU has {total}")
    place = tmp_path_factory.mktemp("wrong")
    found = in_worker(backend, shared(backend, asked), daemon.environment(given), place, folder)
    assert found["mismatch"] == words


def test_an_engine_is_built_under_its_share_where_that_is_asked(backend, daemon, total, tmp_path) -> None:
    found = in_worker(backend, shared(backend, 50, 50), daemon.environment(50), tmp_path)
    assert found["mismatch"] is None
    assert found["realised"]["build_sm_count"] == total // 4 * 2
    assert found["engine"]["cached"] is False


def test_no_daemon_is_met_by_a_control_beside_one(backend, daemon, total, folder, tmp_path) -> None:
    daemon.environment(50)
    found = in_worker(backend, shared(backend, None), daemon.environment(None), tmp_path, folder)
    assert found["mismatch"] is None
    assert found["realised"]["under_mps"] is False
    assert found["realised"]["sm_reached"] == total


def test_a_daemon_for_one_gpu_serves_clients_that_name_it(backend, daemon, total, folder, tmp_path) -> None:
    """As the executor pins them: by UUID, the daemon and its clients alike."""
    library = nvml.library()
    uuid = library.nvmlDeviceGetUUID(nvml.visible(library))
    nvml.close(library)
    own = mps.Mps(None, uuid)
    try:
        environment = {**own.environment(50), "CUDA_VISIBLE_DEVICES": uuid}
        assert environment[control.PIPES] != daemon.environment(50)[control.PIPES]
        found = in_worker(backend, shared(backend, 50), environment, tmp_path, folder)
    finally:
        own.close()
    assert found["mismatch"] is None
    assert found["realised"]["sm_reached"] == total // 4 * 2


def session_of(backend, cache, batch=8, **axes):
    asked = variant(backend, "unet", batch=batch, **axes)
    entry = entry_of(backend, asked, cache)
    return asked, backend.load(entry.path, entry.info, asked, feeds_of(asked))


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("wait", ["spin", "block"])
def test_a_green_context_holds_an_engine_in_every_way_of_driving_it(backend, cache, total, graph, wait) -> None:
    """One count after the other: what it computes stays the same, and a small share of the GPU is slower.

    The fastest inference is compared, not the rate: the rate of a short inference is that of the host's copies.
    """
    expected, fastest_ms = None, {}
    for count in (None, 64, SMALL, total):
        asked, session = session_of(backend, cache, batch=64, streams=2, cuda_graph=graph, wait=wait, sm_count=count)
        assert backend.mismatch(asked, session.realised) is None
        assert session.realised["sm_reached"] == (count or total)
        assert session.realised["sm_total"] == total
        (point,) = load_curve.measure(session, dataclasses.replace(CLOSED, min_s=0.4), batch=64)
        fastest_ms[count] = float(point.gpu_compute_ms[point.measured].min())
        session.poison()
        for stream in session.streams:
            stream.enqueue()
        for stream in session.streams:
            stream.wait()
        outputs = session.outputs_of(1)
        expected = expected or outputs
        for name, value in outputs.items():
            np.testing.assert_allclose(value, expected[name], rtol=0.02, atol=0.02)
        session.close()
    print(backend.name, graph, wait, fastest_ms)  # noqa: T201
    assert fastest_ms[SMALL] > max(fastest_ms[64], fastest_ms[total], fastest_ms[None])


def test_a_count_that_the_gpu_cannot_give_is_refused_with_the_nearest(backend, cache, total) -> None:
    for count, nearest in ((1, "nearest: [0-9]+$"), (total - 1, f"or {total}$"), (total + 8, f"nearest: {total}$")):
        with pytest.raises(UnsupportedError, match=f"sm_count={count}: this GPU of {total} SMs .* {nearest}"):
            session_of(backend, cache, sm_count=count)


def test_memory_comes_back_from_green_contexts(backend, cache) -> None:
    for count in (SMALL, 64):
        session_of(backend, cache, streams=2, cuda_graph=True, sm_count=count)[1].close()
    before = cuda.get().free_memory()
    for count in (SMALL, 64, SMALL):
        session_of(backend, cache, streams=2, cuda_graph=True, sm_count=count)[1].close()
    assert before - cuda.get().free_memory() < 8 << 20


def test_open_load_on_a_green_context(backend, cache) -> None:
    load = LoadAxes(fractions=(0.3, 0.7), warmup_s=0.1, min_s=0.3, min_requests=200, max_s=5.0)
    _, session = session_of(backend, cache, streams=2, cuda_graph=True, sm_count=64)
    with contextlib.closing(session):  # the tests after this one run in the same process, on the whole GPU
        points = [point for point in load_curve.measure(session, load, batch=8) if point.kind == "poisson"]
    assert points
    assert all(np.all(point.gpu_compute_ms[point.measured] > 0) for point in points)
    session.close()


def test_a_daemon_killed_in_mid_run_costs_one_variant(daemon, tmp_path) -> None:
    """The whole command; the variant in hand ends with CUDA's own words, the next one has a new daemon."""
    name = next((one for one in BACKENDS if registry.get(one).missing() is None), None)
    if name is None:
        require.missing("gpu", "neither TensorRT nor TensorRT-RTX can run here")
    short = Path(tempfile.mkdtemp(prefix="m", dir="/tmp"))
    words = ["-m", f"backend={name}", "model=mlp", "precision=fp16", "mps=50", "streams=1,2,4", "load=closed"]
    words += ["load.min_s=4", "load.max_s=8", "sentinel_every=0", "tracking=none", f"results={tmp_path}"]
    environment = {**os.environ, "PYTHONPATH": python_path(), "TMPDIR": str(short), "COLUMNS": "200"}
    out = tmp_path / "out.txt"
    with out.open("w") as told:
        process = subprocess.Popen(
            [sys.executable, "-m", "sweep", *words], env=environment, stdout=told, stderr=told, cwd=tmp_path
        )
    try:
        killed = _kill_first_daemon_at_work(process, short, out)
        assert process.wait(timeout=180) == 1, out.read_text()
    finally:
        process.kill()
    records = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("*/records/*.json"))]
    states = sorted(record["status"] for record in records)
    lost = next(record for record in records if record["status"] != "ok")
    print(killed, [(record["variant"]["label"], record["status"], record["error"]) for record in records])  # noqa: T201
    assert states in (["failed", "ok", "ok"], ["crashed", "ok", "ok"]), out.read_text()
    assert lost["status"] == "crashed" or "Mps" in lost["error"]["message"]
    for record in records:
        if record["status"] == "ok":
            assert record["realised"]["under_mps"] is True
            assert record["realised"]["sm_reached"] == record["realised"]["sm_count"] < record["realised"]["sm_total"]
    assert not list(short.glob("sweep-mps-*/*/pipe"))
    shutil.rmtree(short)


def _kill_first_daemon_at_work(process: subprocess.Popen, short: Path, out: Path) -> int:
    """Pid of the daemon, which is dead when this returns; its server had been at work for a second and a half."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, out.read_text()
        for pipes in short.glob("sweep-mps-*/*/pipe"):
            found = control.find_processes(pipes)
            servers = [pid for pid in found if control.is_server(pid)]
            if servers and len(found) > len(servers):
                time.sleep(3.0)  # past the load of the engine, into the closed loop of four seconds
                (pid,) = set(found) - set(servers)
                os.kill(pid, signal.SIGKILL)
                return pid
        time.sleep(0.1)
    pytest.fail(f"no MPS server came up: {out.read_text()}")
