"""The cache's limit among real processes: what goes, what stays, and what a kill leaves."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sweep.cache import Cache, Claim, claims, listing, locks, prune
from sweep.cache.__main__ import main
from sweep.errors import BuildError

SPAWN = multiprocessing.get_context("spawn")
SIZE = 100_000


def content(key: str) -> bytes:
    return random.Random(key).randbytes(SIZE)  # noqa: S311 - test data


def fill(key: str, calls: list[str] | None = None):
    def build(folder: Path) -> dict[str, object]:
        (folder / "file").write_bytes(content(key))
        if calls is not None:
            calls.append(key)
        return {}

    return build


def put(root: Path, *keys: str, kind: str = "engines", limit_bytes: int | None = None) -> None:
    """Entries that nobody uses once this returns, each used a little later than the one before."""
    for key in keys:
        with Cache(root, limit_bytes) as cache:
            cache.get(kind, key, fill(key))


def there(root: Path, kind: str = "engines") -> set[str]:
    return {item.key for item in listing.items(root) if item.kind == kind}


def nothing_but(folder: Path, *keys: str) -> bool:
    return {path.name for path in folder.iterdir()} == {*keys, *(f"{key}.lock" for key in keys)}


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
    prune.to_bytes(tmp_path, 0)
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


def test_what_another_process_uses_stays_until_it_ends(tmp_path) -> None:
    with process(use, str(tmp_path), "a") as (other, pipe):
        put(tmp_path, "b")
        done = prune.to_bytes(tmp_path, 0)
        assert [item.key for item in done.evicted] == ["b"]
        assert [(item.key, user.split(" on ")[0]) for item, user in done.kept] == [("a", f"process {other.pid}")]
        pipe.send("read it")
        assert pipe.recv() is True
        os.kill(other.pid, signal.SIGKILL)
        other.join()
        assert len(list((tmp_path / claims.FOLDER).iterdir())) == 1
        assert [item.key for item in prune.to_bytes(tmp_path, 0).evicted] == ["a"]
    assert not list((tmp_path / claims.FOLDER).iterdir())


def test_what_is_being_built_stays_and_what_a_killed_build_left_goes(tmp_path) -> None:
    put(tmp_path, "other")
    with process(build_for_ever, str(tmp_path), "a") as (other, _):
        assert prune.to_bytes(tmp_path, 0).remains_bytes == 0
        assert len(listing.remains(tmp_path)) == 1
        os.kill(other.pid, signal.SIGKILL)
        other.join()
    assert prune.to_bytes(tmp_path, 1 << 40).remains_bytes == SIZE
    assert nothing_but(tmp_path / "engines")


def test_what_is_being_looked_up_stays(tmp_path) -> None:
    put(tmp_path, "a")
    with locks.locked(listing.lock_of(tmp_path, "engines", "a")):
        assert [user for _, user in prune.to_bytes(tmp_path, 0).kept] == [prune._BEING_BUILT]
    assert there(tmp_path) == {"a"}


def test_a_failed_build_leaves_a_lock_that_the_next_prune_clears(tmp_path) -> None:
    def fail(folder):
        raise BuildError("no")

    with pytest.raises(BuildError):
        Cache(tmp_path).get("engines", "a", fail)
    put(tmp_path, "b")
    prune.to_bytes(tmp_path, 1 << 40)
    assert nothing_but(tmp_path / "engines", "b")


def die_while_evicting(pipe, root: str, moment: str) -> None:
    """SIGKILL to itself right before the rename, right after it, or with half of the files gone."""

    def die(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def half(folder: Path, **_: object) -> None:
        (folder / listing.MANIFEST).unlink()
        die()

    pipe.send("ready")
    if moment == "before":
        Path.rename = die  # type: ignore[method-assign, assignment]
    else:
        shutil.rmtree = die if moment == "after" else half  # type: ignore[assignment]
    prune.to_bytes(Path(root), 0)


@pytest.mark.parametrize("moment", ["before", "after", "half"])
def test_kill_9_in_mid_eviction_leaves_all_of_it_or_none(tmp_path, moment: str) -> None:
    put(tmp_path, "a")
    with process(die_while_evicting, str(tmp_path), moment) as (other, _):
        other.join(60)
        assert other.exitcode == -signal.SIGKILL
    calls: list[str] = []
    assert there(tmp_path) == ({"a"} if moment == "before" else set())
    assert bool(listing.remains(tmp_path)) == (moment != "before")
    with Cache(tmp_path) as cache:
        entry = cache.get("engines", "a", fill("a", calls))
        assert entry.note is None
        assert calls == ([] if moment == "before" else ["a"])
        prune.to_bytes(tmp_path, 1 << 40)
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
    prune.to_bytes(tmp_path, 3 * SIZE)
    assert len(there(tmp_path)) <= 3
    assert nothing_but(tmp_path / "engines", *there(tmp_path))
    assert not list((tmp_path / claims.FOLDER).iterdir())


def count_up(pipe, lock: str, number: str) -> None:
    pipe.send("ready")
    pipe.recv()
    for _ in range(200):
        with locks.locked(Path(lock)):
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


def test_a_claim_holds_and_releases_entry_by_entry(tmp_path) -> None:
    put(tmp_path, "a", "b")
    claim = Claim(tmp_path)
    for key in ("a", "b"):
        claim.hold("engines", key)
    claim.release("engines", "a")
    assert [item.key for item in prune.to_bytes(tmp_path, 0).evicted] == ["a"]
    claim.close()
    assert [item.key for item in prune.to_bytes(tmp_path, 0).evicted] == ["b"]


def test_what_a_cache_gave_is_free_once_the_cache_is_forgotten(tmp_path) -> None:
    cache = Cache(tmp_path)
    cache.get("engines", "a", fill("a"))
    assert claims.in_use(tmp_path)
    del cache
    assert not claims.in_use(tmp_path)


def test_an_engine_takes_its_runtime_files_along_and_orphans_go(tmp_path) -> None:
    put(tmp_path, "a", "b")
    runtime = tmp_path / "runtime"
    runtime.mkdir()
    for name in ("a.bin", "a-9.0.bin", ".a.tmp", "b.bin", "gone.bin"):
        (runtime / name).write_bytes(bytes(SIZE))
    with Cache(tmp_path) as cache:
        cache.get("engines", "b", fill("b"))
        done = prune.to_bytes(tmp_path, 0)
    assert done.remains_bytes == SIZE
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
        prune.to_bytes(tmp_path, 0, ["runtime"])
    assert (there(tmp_path), there(tmp_path, "runtime")) == ({"a", "b"}, {"b"})


def test_runtime_bytes_count_and_are_given_back_with_the_engine(tmp_path) -> None:
    put(tmp_path, "a", "b", "c")
    (tmp_path / "runtime").mkdir()
    (tmp_path / "runtime" / "a.bin").write_bytes(bytes(SIZE))
    assert [item.key for item in prune.to_bytes(tmp_path, int(2.5 * SIZE)).evicted] == ["a", "a"]


def test_timing_caches_and_their_locks_stay(tmp_path) -> None:
    put(tmp_path, "a")
    for name in ("timing-tensorrt_10.3-H200-9.0.bin", "timing-tensorrt_10.3-H200-9.lock"):
        (tmp_path / "engines" / name).write_bytes(b"learnt")
    prune.to_bytes(tmp_path, 0)
    assert sorted(path.name for path in (tmp_path / "engines").iterdir()) == [
        "timing-tensorrt_10.3-H200-9.0.bin",
        "timing-tensorrt_10.3-H200-9.lock",
    ]
    assert [item.kind for item in listing.items(tmp_path)] == ["timing"]


def test_what_was_used_since_it_was_listed_stays(tmp_path) -> None:
    put(tmp_path, "a")
    [seen] = listing.items(tmp_path)
    put(tmp_path, "a")
    assert prune._evict(tmp_path, seen) == prune._CHANGED
    assert there(tmp_path) == {"a"}


def age(root: Path, key: str, days: float) -> None:
    then = time.time() - days * 86_400
    os.utime(root / "engines" / key / listing.MANIFEST, (then, then))


def command(results: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sweep.cache", str(results), *words], capture_output=True, text=True, check=False
    )


def test_the_table_says_what_each_is_and_who_uses_it(tmp_path) -> None:
    root = tmp_path / "cache"
    about = {"model": "unet", "precision": "fp16", "batch": 8, "knobs": {"tiling": "fast"}, "library": "lib 1.2"}
    with Cache(root, 7 << 30) as cache:
        cache.get("engines", "a", fill("a"), about)
        put(root, "old")
        age(root, "old", 40)
        shown = command(tmp_path).stdout
    lines = {line.split()[1]: line for line in shown.splitlines() if line.strip().startswith("engines")}
    assert list(lines) == ["a", "old"]
    assert "unet fp16 b8 tiling=fast lib 1.2" in lines["a"]
    assert "0.10" in lines["a"]
    assert f"process {os.getpid()} on" in lines["a"]
    assert "process" not in lines["old"]
    assert "total 0.19 MiB in 2, of at most 7 GiB" in shown


def test_prune_by_age_by_size_and_of_everything(tmp_path) -> None:
    root = tmp_path / "cache"
    put(root, "a", "b", "c")
    age(root, "b", 40)
    assert "removed  engines b" in command(tmp_path, "prune", "--older-than-days", "30").stdout
    assert there(root) == {"a", "c"}
    assert main([str(tmp_path), "prune", "--to-gib", str(1.5 * SIZE / 2**30)]) == 0
    assert there(root) == {"c"}
    put(root, "m", kind="models")
    assert main([str(tmp_path), "prune", "--all", "--kind", "engines"]) == 0
    assert (there(root), there(root, "models")) == (set(), {"m"})
    assert main([str(tmp_path), "prune"]) == 0  # the limit is far
    assert there(root, "models") == {"m"}
    with Cache(root) as cache:
        cache.get("models", "m", fill("m"))
        said = command(tmp_path, "prune", "--all")
    assert said.returncode == 0
    assert f"kept     models m: in use by process {os.getpid()}" in said.stdout
    assert "0 removed, 1 in use" in said.stdout


def test_prune_without_a_word_goes_down_to_the_last_limit(tmp_path) -> None:
    root = tmp_path / "cache"
    put(root, "a", limit_bytes=int(1.5 * SIZE))
    put(root, "b")
    assert main([str(tmp_path), "prune"]) == 0
    assert there(root) == {"b"}


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["prune", "--to-gib", "x"], "x is not a number of 0 or more"),
        (["prune", "--to-gib", "-1"], "-1"),
        (["prune", "--older-than-days", "nan"], "nan is not a number of 0 or more"),
        (["prune", "--all", "--to-gib", "1"], "not allowed with"),
        (["prune", "--kind", "timing"], "invalid choice: 'timing'"),
        (["empty"], "invalid choice: 'empty'"),
    ],
)
def test_bad_words_are_refused_in_one_line(tmp_path, capsys, words: list[str], line: str) -> None:
    put(tmp_path / "cache", "a")
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path), *words])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert line in said
    assert said.count("\n") == 1
    assert there(tmp_path / "cache") == {"a"}


def test_no_results_and_no_cache(tmp_path, capsys) -> None:
    assert main([str(tmp_path / "absent")]) == 2
    assert "is not there" in capsys.readouterr().err
    assert main([str(tmp_path), "prune"]) == 0
    assert "nothing is cached" in capsys.readouterr().out
