"""Two lanes side by side: real workers, pinned and spread, on pretended GPUs that compute nothing."""

import json
import os
import threading
import time
from collections import defaultdict
from pathlib import Path

import pytest

from sweep.backends.simulated import Simulated
from sweep.errors import BusyError
from sweep.runner import plan
from sweep.runner.executor import Run
from sweep.spec import EngineAxes, LoadAxes, ModelRef, OnnxAxes, Precision, SessionAxes, Variant
from sweep.spec.settings import Settings
from sweep.storage.store import Store
from sweep.system.device_lock import DeviceLock
from sweep.system.devices import Device

REPOSITORY = Path(__file__).resolve().parents[3]

TELLS = """
import json, os, sys, time
from sweep.backends.simulated import Simulated

original = Simulated.load

def load(self, engine, info, variant, feeds):
    told = dict(label=variant.label, gpu=os.environ["CUDA_VISIBLE_DEVICES"], cores=sorted(os.sched_getaffinity(0)))
    began = time.time()
    time.sleep(0.3)  # so that lanes that run side by side are seen to
    with open(os.environ["SWEEP_TEST_LOADS"], "a") as file:
        file.write(json.dumps({**told, "pid": os.getpid(), "span": [began, time.time()]}) + "\\n")
    return original(self, engine, info, variant, feeds)

Simulated.load = load
"""


class Screen:
    """Notes what it is told; a lane's is itself."""

    def __init__(self):
        self.labels, self.notes, self.threads = [], [], set()

    def device_line(self, name):
        return self

    def variant(self, label):
        self.threads.add(threading.get_ident())

    def stage(self, name, detail, done): ...

    def passed(self): ...

    def finished(self, record):
        self.labels.append(record.variant["label"])

    def note(self, text):
        self.notes.append(text)


@pytest.fixture
def loads(tmp_path, monkeypatch):
    """What each load in a worker tells of its process."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(TELLS)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), str(REPOSITORY)]))
    monkeypatch.setenv("SWEEP_TEST_LOADS", str(tmp_path / "loads"))
    monkeypatch.setenv("SWEEP_LOCK_DIR", str(tmp_path / "locks"))
    monkeypatch.setattr(Simulated, "on_gpu", True)  # in this process: its work goes to GPUs
    return lambda: [json.loads(line) for line in (tmp_path / "loads").read_text().splitlines()]


def devices():
    """Two, with a core each where there are two."""
    cores = sorted(os.sched_getaffinity(0))
    halves = (frozenset(cores[::2]), frozenset(cores[1::2] or cores))
    return tuple(Device(uuid=f"GPU-{name}", cores=half, shown=name) for name, half in zip("ab", halves, strict=True))


def variants(batches, streams=(1,), repeats=1):
    onnx = OnnxAxes(model=ModelRef(name="mlp", revision=1), precision=Precision(name="fp32", dtype="fp32"))
    load = LoadAxes(kind="closed", min_s=0.05, warmup_s=0.02, repeats=repeats)
    return [
        Variant(
            backend="simulated",
            onnx=onnx,
            engine=EngineAxes(batch=batch),
            session=SessionAxes(streams=count),
            load=load,
        )
        for batch in batches
        for count in streams
    ]


def swept(tmp_path, asked, **changes):
    made = plan.make(asked)
    settings = Settings(name="s", results=tmp_path / "results", **changes)
    screen, told = Screen(), []
    Run(made, settings, screen, told.append, devices()).execute(made.runnable)
    records = [Store(settings.root).read(work.key) for work in made.works]
    return records, screen, told


def overlap(these, those):
    return any(start < stop and begin < end for start, end in these for begin, stop in those)


def test_groups_spread_over_two_lanes_each_pinned_to_its_gpu_and_cores(tmp_path, loads) -> None:
    records, screen, told = swept(tmp_path, variants(range(1, 4), (1, 2), repeats=2))
    assert [record.status for record in records] == ["ok"] * 6
    assert sorted(screen.labels) == sorted(record.variant["label"] for record in records)
    assert len(told) == 6
    by_gpu = defaultdict(list)
    for load in loads():
        by_gpu[load["gpu"]].append(load)
    assert set(by_gpu) == {"GPU-a", "GPU-b"}
    assert len(screen.threads) == 2
    for one in devices():
        assert {tuple(load["cores"]) for load in by_gpu[one.uuid]} == {tuple(sorted(one.cores))}
    where = {load["label"]: load["gpu"] for load in loads()}
    assert all(where[record.variant["label"]] == record.facts["gpu_uuid"] for record in records)
    assert len({(load["label"].split()[2], load["gpu"]) for load in loads()}) == 3  # a group stays, all its passes
    assert len({load["pid"] for load in loads()}) == 12  # each of them in a process of its own
    assert overlap(*[[load["span"] for load in lane] for lane in by_gpu.values()])


def test_each_lane_has_its_own_sentinel_and_is_judged_by_no_other(tmp_path, loads) -> None:
    records, _, told = swept(tmp_path, variants(range(1, 5)), sentinel_every=1)
    assert [record.drift["verdict"] for record in records] == ["steady"] * 4
    assert len(told) == 4
    assert {record.drift["sentinel_key"].partition(".")[2] for record in records} == {"a", "b"}
    for record in records:
        assert record.facts["gpu_uuid"] == "GPU-" + record.drift["sentinel_key"].partition(".")[2]


def test_a_gpu_that_stays_busy_leaves_its_work_to_the_other(tmp_path, loads) -> None:
    ours = DeviceLock("gpu-GPU-b", 0.0, lambda _: None)
    ours.acquire()
    records, screen, _ = swept(tmp_path, variants(range(1, 4)), wait_s=0.4)
    assert [record.facts["gpu_uuid"] for record in records] == ["GPU-a"] * 3
    assert any("waiting for gpu-GPU-b" in note for note in screen.notes)
    other = DeviceLock("gpu-GPU-a", 0.0, lambda _: None)
    other.acquire()
    with pytest.raises(BusyError):
        swept(tmp_path / "again", variants(range(1, 4)), wait_s=0.4)
    ours.release()
    other.release()


def test_an_error_in_one_lane_ends_the_other_after_its_variant(tmp_path, loads, monkeypatch) -> None:
    def finished(self, record):
        self.labels.append(record.variant["label"])
        if len(self.labels) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(Screen, "finished", finished)
    began = time.monotonic()
    with pytest.raises(OSError, match="No space left"):
        swept(tmp_path, variants(range(1, 9)))
    assert time.monotonic() - began < 60
    kept = list((tmp_path / "results" / "s" / "records").iterdir())
    assert 2 <= len(kept) < 8
