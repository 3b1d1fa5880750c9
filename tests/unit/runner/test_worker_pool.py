"""Which variants of an engine share a worker process."""

import os
from pathlib import Path

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


def test_what_a_killed_worker_leaves_in_its_folder_for_temporary_files_goes_with_it(pool, tmp_path) -> None:
    (worker,) = pool._clients_for(work())._workers
    variables = Path(f"/proc/{worker.pid}/environ").read_bytes().split(b"\0")
    (folder,) = (Path(os.fsdecode(item[7:])) for item in variables if item.startswith(b"TMPDIR="))
    assert folder.is_relative_to(tmp_path / "s" / "parts"), "which each start of a sweep clears"
    (folder / "sweep-ranges-x").mkdir()
    (folder / "sweep-ranges-x" / "measured.onnx").write_bytes(b"x")
    worker.kill()
    pool.end(at_once=True)
    assert not folder.exists()
    assert pids(pool), "the next one has a folder again"
    assert folder.is_dir()


def test_each_client_has_a_process(pool) -> None:
    assert len({*pids(pool, clients=3), *pids(pool)}) == 4
