"""Two clients on a real GPU, with and without MPS, as whole commands. ``make test-gpu`` runs it."""

import os
import subprocess
import sys

import pytest
import require
from python_path import python_path

from sweep.analysis import fairness
from sweep.backends.tensorrt import library
from sweep.storage.store import Store
from sweep.system import mps

pytestmark = pytest.mark.gpu

BACKENDS = [os.environ["SWEEP_GPU_BACKEND"]] if "SWEEP_GPU_BACKEND" in os.environ else list(library.NAMES)
LOAD = ("load.points=3", "load.warmup_s=0.1", "load.min_s=0.5", "load.max_s=3")
SHARE = 50


@pytest.fixture(params=BACKENDS)
def backend(request):
    require.gpu_for(request.param)
    return request.param


def swept(backend, results, *words):
    """Records of one command, by label."""
    command = [sys.executable, "-m", "sweep", "-m", f"backend={backend}", "model=mlp", *words, *LOAD]
    done = subprocess.run(
        [*command, "tracking=none", f"results={results}", "name=shared"],
        env={**os.environ, "PYTHONPATH": python_path(), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    store = Store(results / "shared")
    return {made.variant["label"]: made for made in (store.read(key) for key in store.record_keys())}


def check(made, clients):
    assert made.status == "ok", made.error
    assert len(made.realised["clients"]) == clients
    for part in (made.peak, *made.points):
        assert len(part["clients"]) == clients
        assert sum(item["achieved_ips"] for item in part["clients"]) == pytest.approx(
            part.get("ips") or part["achieved_ips"]
        )
    assert made.peak["fairness"]["jain"] > fairness.LEAST_JAIN
    assert made.telemetry["foreign_processes"] in {0, None}, "our own clients are taken for strangers"


def test_two_clients_without_mps_take_turns_on_the_whole_gpu(backend, tmp_path) -> None:
    made = swept(backend, tmp_path, "clients=1,2")
    shared = next(item for label, item in made.items() if " c2" in label)
    alone = next(item for label, item in made.items() if " c2" not in label)
    check(shared, 2)
    whole = alone.realised["sm_count"]
    assert [item["sm_count"] for item in shared.realised["clients"]] == [whole, whole]
    assert shared.engine["key"] == alone.engine["key"]


def test_two_clients_under_mps_see_their_share(backend, tmp_path) -> None:
    reason = mps.available()
    if reason is not None:
        require.missing("mps", reason)
    (alone,) = swept(backend, tmp_path / "alone", "clients=1").values()
    (shared,) = swept(backend, tmp_path / "mps", "clients=2", f"mps={SHARE}").values()
    check(shared, 2)
    counts = [item["sm_count"] for item in shared.realised["clients"]]
    assert len(set(counts)) == 1
    assert [item["sm_reached"] for item in shared.realised["clients"]] == counts
    assert all(item["under_mps"] for item in shared.realised["clients"])
    assert counts[0] == pytest.approx(alone.realised["sm_count"] * SHARE / 100, rel=0.1)
