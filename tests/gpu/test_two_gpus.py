"""A sweep over two real GPUs: each variant measured on one of them, each worker near its own. ``make test-gpu``."""

import os

import pytest
import require

from sweep.backends import registry
from sweep.backends.tensorrt import library
from sweep.runner import plan
from sweep.runner.executor import Run
from sweep.spec import EngineAxes, LoadAxes, ModelRef, OnnxAxes, Precision, Variant
from sweep.spec.settings import Settings
from sweep.storage.store import Store
from sweep.system import devices as device
from sweep.system import nvml

pytestmark = pytest.mark.gpu


class Screen:
    """Counts records, and sees which cores each worker has."""

    def __init__(self):
        self.notes, self.records = [], []

    def device_line(self, name):
        return self

    def variant(self, label): ...

    def stage(self, name, detail, done): ...

    def passed(self): ...

    def finished(self, record):
        self.records.append(record)

    def note(self, text):
        self.notes.append(text)


@pytest.fixture
def backend():
    name = next((name for name in library.NAMES if library.installed(name)), library.NAMES[-1])
    require.gpu_for(name)
    return registry.get(name)


def variants(backend, batches):
    onnx = OnnxAxes(model=ModelRef(name="mlp", revision=1), precision=Precision(name="fp16", dtype="fp16"))
    load = LoadAxes(kind="closed", warmup_s=0.1, min_s=0.5, min_requests=50)
    return [Variant(backend=backend.name, onnx=onnx, engine=EngineAxes(batch=batch), load=load) for batch in batches]


def swept(tmp_path, backend, batches, gpus):
    made = plan.make(variants(backend, batches))
    settings = Settings(name="s", results=tmp_path, gpus=gpus, wait_s=60.0)
    screen = Screen()
    Run(made, settings, screen, lambda _: None).execute(made.runnable)
    return [Store(settings.root).read(work.key) for work in made.works], screen


def test_the_first_gpu_is_named_and_its_worker_sees_no_other(backend, tmp_path) -> None:
    (first,) = device.find_devices(None)
    assert first.uuid
    assert first.cores is None or first.cores <= os.sched_getaffinity(0)
    assert device.memory_used_bytes(first.uuid)
    records, screen = swept(tmp_path, backend, (1, 2), None)
    assert [(record.status, record.facts["gpu_uuid"]) for record in records] == [("ok", first.uuid)] * 2
    assert not any("not free" in note for note in screen.notes)


def test_two_gpus_share_a_sweep(backend, tmp_path) -> None:
    found = nvml.library()
    there = nvml.uuids(found)
    nvml.close(found)
    if len(there) < 2:
        pytest.skip(f"needs two GPUs, there is {len(there)}")
    devices = device.find_devices(("all",))
    assert not frozenset.intersection(*[one.cores for one in devices[:2]])
    records, _ = swept(tmp_path, backend, range(1, 9), ("0", "1"))
    assert [record.status for record in records] == ["ok"] * 8
    assert {record.facts["gpu_uuid"] for record in records} == set(there[:2])
    for record in records:
        assert record.telemetry
        assert not record.telemetry["foreign_processes"]
