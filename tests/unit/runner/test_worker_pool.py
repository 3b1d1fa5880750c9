"""Which variants of an engine share a worker process."""

import pytest

from sweep import spec
from sweep.runner.plan import Work
from sweep.runner.worker_pool import WorkerPool
from sweep.spec import ModelRef, OnnxAxes, Precision, SessionAxes, Variant
from sweep.spec.settings import Settings


def work(**held) -> Work:
    onnx = OnnxAxes(model=ModelRef(name="mlp", revision=1), precision=Precision(name="fp32", dtype="fp32"))
    variant = Variant(backend="simulated", onnx=onnx, session=SessionAxes(**held))
    return Work(
        variant=variant,
        key=spec.variant_key(variant),
        label=variant.label,
        engine_key=spec.engine_key(variant),
        unsupported=None,
    )


@pytest.fixture
def pool(tmp_path):
    made = WorkerPool(Settings(name="s", results=tmp_path))
    yield made
    made.close()


def pids(pool: WorkerPool, **held) -> list[int]:
    return [worker.pid for worker in pool._clients_for(work(**held))._workers]


def test_streams_and_graphs_share_a_process(pool) -> None:
    assert pids(pool, streams=1) == pids(pool, streams=4, cuda_graph=True)


def test_each_sm_count_has_a_process_of_its_own_and_so_has_none_after_it(pool) -> None:
    """A process that held a green context gave the whole GPU no more: docs/decisions/0022."""
    small, again, whole = pids(pool, sm_count=16), pids(pool, sm_count=16, streams=2), pids(pool)
    assert small == again
    assert small != whole


def test_each_client_has_a_process(pool) -> None:
    assert len({*pids(pool, clients=3), *pids(pool)}) == 4
