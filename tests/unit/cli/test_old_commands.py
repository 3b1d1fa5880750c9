"""``python -m sweep.doctor`` and its like: they run the new command and say it."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from sweep import old_commands
from sweep.cli import commands

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("doctor", "doctor"),
        ("tracking results a b --uri U", "publish results a b --uri U"),
        ("cache results", "cache results"),
        ("cache results prune --to-gib 5 --kind engines", "cache prune results --to-gib 5 --kind engines"),
        ("restat results", "recompute results"),
        ("restat results write=true", "recompute results --write"),
        ("restat write=false results", "recompute results"),
        ("bisect K.json rows=15 gate_db=20 json=F", "bisect K.json --rows=15 --gate-db=20 --json=F"),
        ("trtexec K.json parity=true timeout_s=9 cache=C", "trtexec K.json --parity --timeout-s=9 --cache=C"),
        ("trtexec K.json parity=yes parities=1", "trtexec K.json --parity=yes parities=1"),
    ],
)
def test_an_old_command_line_becomes_the_new_one(old: str, new: str) -> None:
    module, *words = old.split()
    assert old_commands.translated(module, words) == new.split()


def test_a_path_with_an_equals_sign_stays_a_path(tmp_path: Path) -> None:
    record = tmp_path / "cache=x.json"
    record.write_text("{}")
    assert old_commands.translated("trtexec", [str(record)]) == ["trtexec", str(record)]


@pytest.mark.parametrize(
    ("module", "words", "new"),
    [
        ("doctor", ["nowhere"], "doctor nowhere"),
        ("tracking", ["nowhere"], "publish nowhere"),
        ("cache", ["nowhere", "prune"], "cache prune nowhere"),
        ("restat", ["nowhere", "write=true"], "recompute nowhere --write"),
        ("bisect", ["nowhere.json", "rows=3"], "bisect nowhere.json --rows=3"),
        ("trtexec", ["nowhere.json", "parity=true"], "trtexec nowhere.json --parity"),
    ],
)
def test_an_old_module_runs_the_command_and_names_it(module: str, words: list[str], new: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"sweep.{module}", *words], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    first, *rest = done.stderr.splitlines()
    assert first == f"python -m sweep.{module} is now: {sys.executable} -m sweep {new}"
    name = new.split(maxsplit=1)[0]
    assert name in commands.COMMANDS
    assert (done.returncode, len(rest)) == ((0, 0) if module == "doctor" else (2, 1))
    assert all(line.startswith(f"sweep {name}: ") for line in rest)
