"""The cache among real processes: what is in use stays, and what a kill leaves."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
from cache_entries import SIZE, content, fill, nothing_but, put, there

from sweep.storage.cache import Cache, eviction, inventory, pins
from sweep.system import file_locks

pytestmark = pytest.mark.fault

SPAWN = multiprocessing.get_context("spawn")


@contextlib.contextmanager
def process(target, *args):
    """A process that has said that it is ready; killed at the end if it is still there."""
    here, child = SPAWN.Pipe()
    made = SPAWN.Process(target=target, args=(child, *args))
    made.start()
    try:
        assert here.poll(60)
        assert here.recv() == "ready"
        yield made, here
    finally:
        made.kill()
        made.join()


def use(pipe, root: str, key: str) -> None:
    """Take an entry, say so, and read it only when told to."""
    cache = Cache(Path(root))
    path = cache.get("engines", key, fill(key)).path
    pipe.send("ready")
    pipe.recv()
    pipe.send((path / "file").read_bytes() == content(key))
    pipe.recv()


def build_for_ever(pipe, root: str, key: str) -> None:
    def build(folder: Path):
        (folder / "half").write_bytes(content(key))
        pipe.send("ready")
        time.sleep(600)
        return {}

    Cache(Path(root)).get("engines", key, build)


def test_what_another_process_uses_stays_until_it_ends(tmp_path) -> None:
    with process(use, str(tmp_path), "a") as (other, pipe):
        put(tmp_path, "b")
        done = eviction.to_bytes(tmp_path, 0)
        assert [item.key for item in done.evicted] == ["b"]
        assert [(item.key, user.split(" on ")[0]) for item, user in done.in_use] == [("a", f"process {other.pid}")]
        pipe.send("read it")
        assert pipe.recv() is True
        os.kill(other.pid, signal.SIGKILL)
        other.join()
        assert len(list((tmp_path / pins.FOLDER).iterdir())) == 1
        assert [item.key for item in eviction.to_bytes(tmp_path, 0).evicted] == ["a"]
    assert not list((tmp_path / pins.FOLDER).iterdir())


def test_what_is_being_built_stays_and_what_a_killed_build_left_goes(tmp_path) -> None:
    put(tmp_path, "other")
    with process(build_for_ever, str(tmp_path), "a") as (other, _):
        assert eviction.to_bytes(tmp_path, 0).leftover_bytes == 0
        assert len(inventory.scratch_folders(tmp_path)) == 1
        os.kill(other.pid, signal.SIGKILL)
        other.join()
    assert eviction.to_bytes(tmp_path, 1 << 40).leftover_bytes == SIZE
    assert nothing_but(tmp_path / "engines")


def die_while_evicting(pipe, root: str, moment: str) -> None:
    """SIGKILL to itself right before the rename, right after it, or with half of the files gone."""

    def die(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def half(folder: Path, **_: object) -> None:
        (folder / inventory.MANIFEST).unlink()
        die()

    pipe.send("ready")
    if moment == "before":
        Path.rename = die  # type: ignore[method-assign, assignment]
    else:
        shutil.rmtree = die if moment == "after" else half  # type: ignore[assignment]
    eviction.to_bytes(Path(root), 0)


@pytest.mark.parametrize("moment", ["before", "after", "half"])
def test_kill_9_in_mid_eviction_leaves_all_of_it_or_none(tmp_path, moment: str) -> None:
    put(tmp_path, "a")
    with process(die_while_evicting, str(tmp_path), moment) as (other, _):
        other.join(60)
        assert other.exitcode == -signal.SIGKILL
    calls: list[str] = []
    assert there(tmp_path) == ({"a"} if moment == "before" else set())
    assert bool(inventory.scratch_folders(tmp_path)) == (moment != "before")
    with Cache(tmp_path) as cache:
        entry = cache.get("engines", "a", fill("a", calls))
        assert entry.note is None
        assert calls == ([] if moment == "before" else ["a"])
        eviction.to_bytes(tmp_path, 1 << 40)
        assert (entry.path / "file").read_bytes() == content("a")
    assert nothing_but(tmp_path / "engines", "a")


def hammer(pipe, root: str, seed: int, seconds: float) -> None:
    """Take entries at random with room for three of eight; each must stay whole while it is in hand."""
    pipe.send("ready")
    draw = random.Random(seed)  # noqa: S311 - test data
    end = time.monotonic() + seconds
    took = 0
    while time.monotonic() < end:
        with Cache(Path(root), 3 * SIZE) as cache:
            for key in draw.sample("abcdefgh", 2):
                path = cache.get("engines", key, fill(key)).path
                time.sleep(draw.random() / 200)
                assert (path / "file").read_bytes() == content(key)
                took += 1
    pipe.send(took)


def test_processes_that_evict_each_others_entries_never_lose_one_in_hand(tmp_path) -> None:
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(process(hammer, str(tmp_path), seed, 3.0)) for seed in range(4)]
        for other, pipe in running:
            assert pipe.poll(60)
            assert pipe.recv() > 0
            other.join(60)
            assert other.exitcode == 0
    eviction.to_bytes(tmp_path, 3 * SIZE)
    assert len(there(tmp_path)) <= 3
    assert nothing_but(tmp_path / "engines", *there(tmp_path))
    assert not list((tmp_path / pins.FOLDER).iterdir())


def count_up(pipe, lock: str, number: str) -> None:
    pipe.send("ready")
    pipe.recv()
    for _ in range(200):
        with file_locks.locked(Path(lock)):
            value = int(Path(number).read_text())
            time.sleep(0.0005)
            Path(number).write_text(str(value + 1))
            Path(lock).unlink()  # as a prune does


def test_a_lock_whose_file_is_removed_still_lets_one_in_at_a_time(tmp_path) -> None:
    number = tmp_path / "number"
    number.write_text("0")
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(process(count_up, str(tmp_path / "l"), str(number))) for _ in range(3)]
        for _, pipe in running:
            pipe.send("go")
        for other, _ in running:
            other.join(60)
            assert other.exitcode == 0
    assert number.read_text() == "600"
