"""Samples of single passes: the worker's file is read, never written again; the variant's points have it all."""

import numpy as np
import pytest

from sweep.runner import plan
from sweep.runner.pass_samples import PassSamples
from sweep.spec import LoadAxes, ModelRef, OnnxAxes, Precision, Variant
from sweep.storage import samples, samples_file
from sweep.storage.store import Store


@pytest.fixture
def work():
    onnx = OnnxAxes(model=ModelRef(name="mlp", revision=1), precision=Precision(name="fp32", dtype="fp32"))
    return plan.make([Variant(backend="simulated", onnx=onnx, load=LoadAxes(repeats=2))]).works[0]


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
