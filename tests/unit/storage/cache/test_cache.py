"""The cache's limit: what goes, what stays, and what goes along."""

from __future__ import annotations

import errno
import fcntl
import os
import re

import pytest
from cache_entries import SIZE, content, fill, nothing_but, put, there
from other_host import run_on

from sweep.errors import BuildError
from sweep.storage.cache import Cache, Pins, eviction, inventory, pins
from sweep.system import atomic_files, file_locks


def test_above_the_limit_the_least_recently_used_goes(tmp_path) -> None:
    put(tmp_path, "a", "b", "c")
    put(tmp_path, "a")  # used again
    said: list[str] = []
    with Cache(tmp_path, int(3.5 * SIZE), said.append) as cache:
        cache.get("engines", "d", fill("d"))
    assert there(tmp_path) == {"a", "c", "d"}
    assert len(said) == 1
    assert "engines b" in said[0]
    assert nothing_but(tmp_path / "engines", "a", "c", "d")


def test_all_kinds_share_the_limit_and_a_hit_evicts_nothing(tmp_path) -> None:
    put(tmp_path, "m", kind="models")
    put(tmp_path, "o", kind="onnx")
    put(tmp_path, "e")
    put(tmp_path, "m", kind="models", limit_bytes=SIZE)
    assert (there(tmp_path, "models"), there(tmp_path, "onnx"), there(tmp_path)) == ({"m"}, {"o"}, {"e"})
    put(tmp_path, "f", limit_bytes=int(2.5 * SIZE))
    assert (there(tmp_path, "models"), there(tmp_path, "onnx"), there(tmp_path)) == ({"m"}, set(), {"f"})


def test_an_evicted_entry_is_built_again(tmp_path) -> None:
    calls: list[str] = []
    put(tmp_path, "a")
    eviction.to_bytes(tmp_path, 0)
    with Cache(tmp_path) as cache:
        entry = cache.get("engines", "a", fill("a", calls))
    assert calls == ["a"]
    assert entry.note is None


def test_the_entry_just_made_and_those_in_hand_stay_whatever_the_limit(tmp_path) -> None:
    with Cache(tmp_path, 1) as cache:
        for key in ("a", "b"):
            assert (cache.get("engines", key, fill(key)).path / "file").read_bytes() == content(key)
        assert there(tmp_path) == {"a", "b"}
    put(tmp_path, "c", limit_bytes=1)
    assert there(tmp_path) == {"c"}


def test_what_is_being_looked_up_stays(tmp_path) -> None:
    put(tmp_path, "a")
    with file_locks.locked(inventory.lock_path(tmp_path, "engines", "a")):
        ((_, user),) = eviction.to_bytes(tmp_path, 0).in_use
    assert user.startswith(f"process {os.getpid()} on {os.uname().nodename} since ")
    assert user.endswith(" UTC, which builds it or looks it up")
    assert there(tmp_path) == {"a"}


def test_a_failed_build_leaves_a_lock_that_the_next_prune_clears(tmp_path) -> None:
    def fail(folder):
        raise BuildError("no")

    with pytest.raises(BuildError):
        Cache(tmp_path).get("engines", "a", fail)
    put(tmp_path, "b")
    eviction.to_bytes(tmp_path, 1 << 40)
    assert nothing_but(tmp_path / "engines", "b")


def test_a_claim_holds_and_releases_entry_by_entry(tmp_path) -> None:
    put(tmp_path, "a", "b")
    own = Pins(tmp_path)
    for key in ("a", "b"):
        own.add("engines", key)
    own.release("engines", "a")
    assert [item.key for item in eviction.to_bytes(tmp_path, 0).evicted] == ["a"]
    own.close()
    assert [item.key for item in eviction.to_bytes(tmp_path, 0).evicted] == ["b"]


def test_what_a_cache_gave_is_free_once_the_cache_is_forgotten(tmp_path) -> None:
    cache = Cache(tmp_path)
    cache.get("engines", "a", fill("a"))
    assert pins.in_use(tmp_path)
    del cache
    assert not pins.in_use(tmp_path)


def test_an_engine_takes_its_runtime_files_along_and_orphans_go(tmp_path) -> None:
    put(tmp_path, "a", "b")
    runtime = tmp_path / "runtime"
    runtime.mkdir()
    for name in ("a.bin", "a-9.0.bin", ".a.tmp", "b.bin", "gone.bin"):
        (runtime / name).write_bytes(bytes(SIZE))
    with Cache(tmp_path) as cache:
        cache.get("engines", "b", fill("b"))
        done = eviction.to_bytes(tmp_path, 0)
    assert done.leftover_bytes == SIZE
    assert sorted((item.kind, item.path.name) for item in done.evicted) == [
        ("engines", "a"),
        *(("runtime", name) for name in (".a.tmp", "a-9.0.bin", "a.bin")),
    ]
    assert [path.name for path in runtime.iterdir()] == ["b.bin"]


def test_runtime_files_can_go_alone_but_not_while_their_engine_is_used(tmp_path) -> None:
    put(tmp_path, "a", "b")
    (tmp_path / "runtime").mkdir()
    for key in ("a", "b"):
        (tmp_path / "runtime" / f"{key}.bin").write_bytes(b"x")
    with Cache(tmp_path) as cache:
        cache.get("engines", "b", fill("b"))
        eviction.to_bytes(tmp_path, 0, ["runtime"])
    assert (there(tmp_path), there(tmp_path, "runtime")) == ({"a", "b"}, {"b"})


def test_runtime_bytes_count_and_are_given_back_with_the_engine(tmp_path) -> None:
    put(tmp_path, "a", "b", "c")
    (tmp_path / "runtime").mkdir()
    (tmp_path / "runtime" / "a.bin").write_bytes(bytes(SIZE))
    assert [item.key for item in eviction.to_bytes(tmp_path, int(2.5 * SIZE)).evicted] == ["a", "a"]


def test_timing_caches_and_their_locks_stay(tmp_path) -> None:
    put(tmp_path, "a")
    for name in ("timing-tensorrt_10.3-H200-9.0.bin", "timing-tensorrt_10.3-H200-9.lock"):
        (tmp_path / "engines" / name).write_bytes(b"learnt")
    eviction.to_bytes(tmp_path, 0)
    assert sorted(path.name for path in (tmp_path / "engines").iterdir()) == [
        "timing-tensorrt_10.3-H200-9.0.bin",
        "timing-tensorrt_10.3-H200-9.lock",
    ]
    assert [item.kind for item in inventory.items(tmp_path)] == ["timing"]


def test_what_was_used_since_it_was_listed_stays(tmp_path) -> None:
    put(tmp_path, "a")
    [seen] = inventory.items(tmp_path)
    put(tmp_path, "a")
    assert eviction._evict(tmp_path, seen) == eviction._CHANGED
    assert there(tmp_path) == {"a"}


def test_of_two_hosts_that_build_one_entry_the_first_to_be_ready_builds_it_for_both(tmp_path) -> None:
    """As where the lock of one host does not reach the other."""

    def build(folder):
        put(tmp_path, "a")  # the other host, meanwhile
        return fill("a")(folder)

    with pytest.MonkeyPatch.context() as patch, Cache(tmp_path) as cache:
        patch.setattr(file_locks, "lock_descriptor", lambda *_, **__: True)
        entry = cache.get("engines", "a", build)
    assert entry.cached
    assert entry.note is None
    assert (entry.path / "file").read_bytes() == content("a")
    assert nothing_but(tmp_path / "engines", "a")


def test_what_another_host_pins_or_builds_is_left_alone_however_free_its_lock_is(tmp_path) -> None:
    """Neither a pin nor a scratch folder of a process of another host is judged dead."""
    put(tmp_path, "a", "b")

    def pin_and_build():
        living = Pins(tmp_path)
        living.add("engines", "a")
        atomic_files.temporary_folder(tmp_path / "engines" / "c")
        os._exit(0)

    assert run_on("other-host", pin_and_build) == 0
    pruned = eviction.to_bytes(tmp_path, 0)
    assert [item.key for item in pruned.evicted] == ["b"]
    ((item, user),) = pruned.in_use
    assert item.key == "a"
    assert re.fullmatch(r"process \d+ on other-host since .* UTC", user)
    assert [path.name for path in (tmp_path / "engines").glob(".c.other-host-*")]
    assert run_on(os.uname().nodename, pin_and_build) == 0
    eviction.to_bytes(tmp_path, 0)
    assert len(list((tmp_path / "engines").glob(".c.*"))) == 1, "that of this host is gone"


def test_without_locks_entries_are_built_and_none_is_evicted(tmp_path, monkeypatch) -> None:
    def flock(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    put(tmp_path, "a", "b")
    pruned = eviction.to_bytes(tmp_path, 0)
    assert (pruned.evicted, len(pruned.in_use)) == ((), 2)
    assert there(tmp_path) == {"a", "b"}
