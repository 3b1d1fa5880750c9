"""Samples of single passes: the worker's file is read, never written again; the variant's points have it all."""

import zipfile

import numpy as np
import pytest

from sweep.errors import RecordError
from sweep.runner import plan
from sweep.runner.pass_samples import PassSamples
from sweep.spec import LoadAxes, ModelRef, OnnxAxes, Precision, Variant
from sweep.storage import samples, samples_file
from sweep.storage.store import Store


def work_of(repeats: int):
    onnx = OnnxAxes(model=ModelRef(name="mlp", revision=1), precision=Precision(name="fp32", dtype="fp32"))
    return plan.make([Variant(backend="simulated", onnx=onnx, load=LoadAxes(repeats=repeats))]).works[0]


STATE = {
    **dict.fromkeys(("power_w", "sm_clock_mhz", "memory_clock_mhz", "temperature_c", "energy_j")),
    **dict.fromkeys(("energy_j_per_sample", "throttled", "foreign_processes", "measured_again", "lost")),
    "readings": 7,
    "samples": 20,
    "throttle_reasons": {},
    "foreign": [],
}


@pytest.fixture
def work():
    return work_of(2)


def point(kind: str, rate: float | None, repeat: int) -> samples.PointSamples:
    times = np.arange(5, dtype=np.int64)
    flags = {"slot_free": np.ones(5, dtype=bool), "warmup": np.zeros(5, dtype=bool)}
    return samples.PointSamples(
        kind=kind, index=0, repeat=repeat, batch=4, offered_rps=rate, overloaded=False, complete=True, origin_ns=0,
        scheduled_ns=times, issued_ns=times, done_ns=times + 1, stream=np.zeros(5, dtype=np.int16), **flags,
    )  # fmt: skip


def test_a_pass_is_written_once_and_gathered_with_its_conditions(work, tmp_path) -> None:
    kept = PassSamples(Store(tmp_path))
    states = {0: [{"throttled": False}, None], 1: [None, {"throttled": True}]}
    before = {}
    for repeat, interval in ((0, None), (1, 7)):
        kept.begin(work, repeat, interval)
        path = kept.path(work, repeat)
        samples_file.save(path, [point("closed", None, repeat), point("poisson", 10.0, repeat)], durable=False)
        before[path] = (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino)
        kept.add_gpu_states(work, repeat, states[repeat])
    assert kept.rates_ips(work) == [40.0]
    points = kept.gathered(work)
    assert [(item.repeat, item.stretch) for item in points] == [(0, None), (0, None), (1, 7), (1, 7)]
    assert [item.telemetry for item in points] == [*states[0], *states[1]]
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino) for path in before} == before
    kept.clear(work)
    assert not any(path.exists() for path in before)


def test_where_no_gpu_is_read_the_points_stay_as_they_are(work, tmp_path) -> None:
    kept = PassSamples(Store(tmp_path))
    for repeat in range(2):
        kept.begin(work, repeat, 0)
        samples_file.save(kept.path(work, repeat), [point("closed", None, repeat)])
    assert [item.telemetry for item in kept.gathered(work)] == [None, None]


def test_a_pass_that_is_repeated_replaces_the_states_of_the_first_try(work, tmp_path) -> None:
    kept = PassSamples(Store(tmp_path))
    for repeat in range(2):
        kept.begin(work, repeat, 0)
        samples_file.save(kept.path(work, repeat), [point("closed", None, repeat)])
        kept.add_gpu_states(work, repeat, [{"throttled": True}])
    kept.add_gpu_states(work, 1, [{"throttled": False}])
    assert [item.telemetry for item in kept.gathered(work)] == [{"throttled": True}, {"throttled": False}]


def same(one: samples.PointSamples, other: samples.PointSamples) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in samples.PointSamples.__slots__)


def test_the_file_of_a_single_pass_becomes_the_variants_own_and_no_array_is_written_again(tmp_path) -> None:
    single, store = work_of(1), Store(tmp_path)
    kept = PassSamples(store)
    kept.begin(single, 0, 3)
    path, target = kept.path(single, 0), store.samples_path(single.key)
    samples_file.save(path, [point("closed", None, 0), point("poisson", 10.0, 0)], durable=False)
    with zipfile.ZipFile(path) as packed:
        arrays = path.read_bytes()[: packed.start_dir]
    inode = path.stat().st_ino
    kept.add_gpu_states(single, 0, [STATE, None])
    points = kept.save(single)
    assert not path.exists()
    assert target.stat().st_ino == inode
    assert target.read_bytes().startswith(arrays)
    assert [(item.stretch, item.telemetry) for item in points] == [(3, STATE), (3, None)]
    assert all(same(one, other) for one, other in zip(samples_file.load(target), points, strict=True))


def test_several_passes_are_merged_into_the_variants_own_file(work, tmp_path) -> None:
    store = Store(tmp_path)
    kept = PassSamples(store)
    for repeat in range(2):
        kept.begin(work, repeat, repeat)
        samples_file.save(kept.path(work, repeat), [point("closed", None, repeat)])
    points = kept.save(work)
    assert [(item.repeat, item.stretch) for item in samples_file.load(store.samples_path(work.key))] == [(0, 0), (1, 1)]
    assert all(same(*pair) for pair in zip(samples_file.load(store.samples_path(work.key)), points, strict=True))


@pytest.mark.fault
@pytest.mark.parametrize("added", ["[]", "[3]", "{", '[{"stretch": "x"}]', '[{"telemetry": []}]', "3"])
def test_what_was_added_and_is_damaged_is_one_line(tmp_path, added) -> None:
    path = tmp_path / "a.npz"
    samples_file.save(path, [point("closed", None, 0)])
    with zipfile.ZipFile(path, "a") as packed, packed.open("added.npy", "w") as member:
        np.lib.format.write_array(member, np.frombuffer(added.encode(), dtype=np.uint8))
    with pytest.raises(RecordError, match="cannot be read") as caught:
        samples_file.load(path)
    assert "\n" not in str(caught.value)
