"""``sweep cache``: the table, what prune takes, and how it refuses."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from cache_entries import SIZE, fill, put, there

from sweep.cli.commands import main
from sweep.storage.cache import Cache, inventory

if TYPE_CHECKING:
    from pathlib import Path


def age(root: Path, key: str, days: float) -> None:
    then = time.time() - days * 86_400
    os.utime(root / "engines" / key / inventory.MANIFEST, (then, then))


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "sweep", "cache", *words], capture_output=True, text=True, check=False)


def test_the_table_says_what_each_is_and_who_uses_it(tmp_path) -> None:
    root = tmp_path / "cache"
    about = {"model": "unet", "precision": "fp16", "batch": 8, "knobs": {"tiling": "fast"}, "library": "lib 1.2"}
    with Cache(root, 7 << 30) as cache:
        cache.get("engines", "a", fill("a"), about)
        put(root, "old")
        age(root, "old", 40)
        shown = command(str(tmp_path)).stdout
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
    assert "removed  engines b" in command("prune", str(tmp_path), "--older-than-days", "30").stdout
    assert there(root) == {"a", "c"}
    assert main(["cache", "prune", str(tmp_path), "--to-gib", str(1.5 * SIZE / 2**30)]) == 0
    assert there(root) == {"c"}
    put(root, "m", kind="models")
    assert main(["cache", "prune", str(tmp_path), "--all", "--kind", "engines"]) == 0
    assert (there(root), there(root, "models")) == (set(), {"m"})
    assert main(["cache", "prune", str(tmp_path)]) == 0  # the limit is far
    assert there(root, "models") == {"m"}
    with Cache(root) as cache:
        cache.get("models", "m", fill("m"))
        said = command("prune", str(tmp_path), "--all")
    assert said.returncode == 0
    assert f"kept     models m: in use by process {os.getpid()}" in said.stdout
    assert "0 removed, 1 in use" in said.stdout


def test_prune_without_a_word_goes_down_to_the_last_limit(tmp_path) -> None:
    root = tmp_path / "cache"
    put(root, "a", limit_bytes=int(1.5 * SIZE))
    put(root, "b")
    assert main(["cache", "prune", str(tmp_path)]) == 0
    assert there(root) == {"b"}


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["prune", "--to-gib", "x"], "x is not a number of 0 or more"),
        (["prune", "--to-gib", "-1"], "-1"),
        (["prune", "--older-than-days", "nan"], "nan is not a number of 0 or more"),
        (["prune", "--all", "--to-gib", "1"], "not allowed with"),
        (["prune", "--kind", "timing"], "invalid choice: 'timing'"),
        (["prune", "."], "give list or prune, then one results folder"),
        (["list", "--all"], "belong to prune"),
        (["--to-gib", "0"], "belong to prune"),
        (["--al"], "unrecognized arguments: --al"),
    ],
)
def test_bad_words_are_refused_in_one_line(tmp_path, capsys, words: list[str], line: str) -> None:
    put(tmp_path / "cache", "a")
    assert main(["cache", *words, str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert line in said
    assert said.count("\n") == 1
    assert there(tmp_path / "cache") == {"a"}


def test_no_results_and_no_cache(tmp_path, capsys) -> None:
    assert main(["cache", str(tmp_path / "absent")]) == 2
    assert "is not there" in capsys.readouterr().err
    assert main(["cache", "prune", str(tmp_path)]) == 0
    assert "nothing is cached" in capsys.readouterr().out
