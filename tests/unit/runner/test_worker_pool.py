"""Which variants of an engine share a worker process."""

import pytest

from sweep import spec
from sweep.runner.plan import Work
from sweep.runner.worker_pool import Crew
from sweep.spec import ModelRef, OnnxAxes, Precision, SessionAxes, Variant
from sweep.spec.settings import Settings

pytestmark = pytest.mark.heavy


def work(**held) -> Work:
    onnx = OnnxAxes(model=ModelRef(name="mlp", revision=1), precision=Precision(name="fp32", dtype="fp32"))
    variant = Variant(backend="simulated", onnx=onnx, session=SessionAxes(**held))
    return Work(variant=variant, key=spec.variant_key(variant), engine_key=spec.engine_key(variant), unsupported=None)


@pytest.fixture
def crew(tmp_path):
    made = Crew(Settings(name="s", results=tmp_path))
    yield made
    made.close()


def pids(crew: Crew, **held) -> list[int]:
    return [worker.pid for worker in crew._party_for(work(**held))._workers]


def test_streams_and_graphs_share_a_process(crew) -> None:
    assert pids(crew, streams=1) == pids(crew, streams=4, cuda_graph=True)


def test_each_sm_count_has_a_process_of_its_own_and_so_has_none_after_it(crew) -> None:
    """A process that held a green context gave the whole GPU no more: docs/decisions/0022."""
    small, again, whole = pids(crew, sm_count=16), pids(crew, sm_count=16, streams=2), pids(crew)
    assert small == again
    assert small != whole


def test_each_client_has_a_process(crew) -> None:
    assert len({*pids(crew, clients=3), *pids(crew)}) == 4
