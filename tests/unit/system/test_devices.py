"""Which GPUs, and which cores go with each: from a pretended NVML, for there may be none here."""

import os

import pytest
from fake_nvml import FakeNvml
from hypothesis import given
from hypothesis import strategies as st

from sweep.errors import ConfigError
from sweep.system import devices as device
from sweep.system import gpu_memory, nvml
from sweep.system.gpu_memory import Memory

UUIDS = ("GPU-aa11-0", "GPU-aa22-1", "GPU-bb33-2")


@pytest.fixture
def gpus(monkeypatch):
    """Three GPUs, all near every core."""

    def there(**state):
        library = FakeNvml(uuids=UUIDS, **state)
        library.opened = 0
        monkeypatch.setattr(nvml, "library", library.library)
        monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: frozenset(range(8)))
        monkeypatch.setattr(os, "cpu_count", lambda: 8)
        return library

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return there


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (None, UUIDS[:1]),
        (["all"], UUIDS),
        (["2", "0"], (UUIDS[2], UUIDS[0])),
        (["GPU-aa2", "GPU-bb33-2"], UUIDS[1:]),
    ],
)
def test_gpus_by_index_by_uuid_and_all(gpus, asked, found) -> None:
    library = gpus()
    devices = device.find_devices(asked)
    assert tuple(one.uuid for one in devices) == found
    assert [one.environment for one in devices] == [{"CUDA_VISIBLE_DEVICES": uuid} for uuid in found]
    assert library.opened == 0


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (["3"], "3 is no GPU here; there are: 0 GPU-aa11-0, 1 GPU-aa22-1, 2 GPU-bb33-2"),
        (["GPU-aa"], "GPU-aa is more than one GPU here"),
        (["GPU-zz"], "GPU-zz is no GPU here"),
        (["0", "GPU-aa1"], "names a GPU twice"),
    ],
)
def test_a_gpu_that_is_not_there_is_one_line(gpus, asked, words) -> None:
    gpus()
    with pytest.raises(ConfigError, match=words):
        device.find_devices(asked)


def test_what_the_scheduler_gave_is_all_there_is(gpus, monkeypatch) -> None:
    gpus()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-aa11-0")
    assert [one.uuid for one in device.find_devices(["all"])] == [UUIDS[2], UUIDS[0]]
    assert [one.uuid for one in device.find_devices(["1"])] == [UUIDS[0]]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,nonsense,0")
    assert [one.uuid for one in device.find_devices(["all"])] == [UUIDS[1]]


def test_without_nvml_there_is_one_nameless_device_and_no_choice(monkeypatch) -> None:
    monkeypatch.setattr(nvml, "library", lambda: None)
    assert device.find_devices(None) == (device.Device(),)
    with pytest.raises(ConfigError, match="gpus=0,1: NVML cannot be read here"):
        device.find_devices(["0", "1"])


def test_a_gpu_in_mig_mode_is_left_to_cuda(gpus) -> None:
    gpus(mig=(0,))
    assert device.find_devices(None)[0].uuid == UUIDS[1]


def test_cores_are_those_near_the_gpu_and_split_where_two_are_near_the_same(gpus, monkeypatch) -> None:
    monkeypatch.setattr(device, "_siblings", lambda core: frozenset({core % 4, core % 4 + 4}))
    gpus(near=[range(2), range(2, 4), range(4, 8)])
    assert [one.cores for one in device.find_devices(["all"])] == [{0, 1}, {2, 3}, {4, 5, 6, 7}]
    gpus(near=[range(8), range(8), range(8)])
    assert [one.cores for one in device.find_devices(["0", "1"])] == [{0, 1, 4, 5}, {2, 3, 6, 7}]
    assert device.find_devices(["0"])[0].cores is None
    gpus(near=[range(4), range(4), range(4, 8)])
    assert device.find_devices(["0"])[0].cores == {0, 1, 2, 3}


sets = st.frozensets(st.integers(0, 7), max_size=8)


@given(near=st.lists(st.none() | sets, min_size=2, max_size=5), allowed=st.frozensets(st.integers(0, 7), min_size=5))
def test_no_core_is_in_two_lanes_and_none_is_without(near, allowed) -> None:
    found = device.assign_cores(near, allowed)
    assert len(found) == len(near)
    assert all(found)
    assert frozenset().union(*found) <= allowed
    assert sum(map(len, found)) == len(frozenset().union(*found))


def test_more_lanes_than_cores_are_refused() -> None:
    with pytest.raises(ConfigError, match="3 GPUs, but this process may use 2 cores"):
        device.assign_cores([None, None, None], frozenset({0, 1}))


def test_sets_of_cpus_as_the_kernel_writes_them() -> None:
    assert device.parse_cpu_list("0-2,8\n") == {0, 1, 2, 8}


def test_memory_is_waited_for_and_what_stays_taken_is_said(monkeypatch) -> None:
    monkeypatch.setattr(gpu_memory, "WAIT_S", 0.3)
    said, readings = [], iter([1 << 30, 9 << 30, 9 << 30, 1 << 30])
    seen = Memory("GPU-a", said.append, lambda _: next(readings))
    seen.mark()
    seen.wait()
    assert (said, list(readings)) == ([], [])
    stays = iter([1 << 30, *[9 << 30] * 99])
    stuck = Memory("GPU-a", said.append, lambda _: next(stays))
    stuck.mark()
    stuck.wait()
    assert len(said) == 1
    assert "9.0 GiB in use, 1.0 before" in said[0]
    unknown = Memory(None, said.append)
    unknown.mark()
    unknown.wait()
    assert len(said) == 1
