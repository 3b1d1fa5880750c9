"""Lock files between processes: one holder at a time, freed by its death, and never a link."""

import fcntl
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sweep.errors import CacheError
from sweep.system import child_process, file_locks

HOLDING = """
import sys, time
from pathlib import Path
from sweep.system import file_locks
with file_locks.locked(Path(sys.argv[1])):
    print("holds", flush=True)
    time.sleep(600)
"""
PACKAGE = Path(file_locks.__file__).parents[1]


@pytest.fixture
def other(tmp_path):
    """Another process that holds the lock, until it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDING, str(tmp_path / "lock")],
        stdout=subprocess.PIPE,
        env=child_process.module_environment(),
        text=True,
    )
    assert process.stdout.readline() == "holds\n"
    yield process
    process.kill()
    process.communicate()


def test_one_process_at_a_time_and_death_frees_it(other, tmp_path) -> None:
    path = tmp_path / "lock"
    with file_locks.try_locked(path) as locked:
        assert not locked
    descriptor = file_locks.open_lock_file(path)
    assert not file_locks.lock_descriptor(descriptor, wait=False)
    assert file_locks.lock_file(path, wait=False) is None
    other.kill()
    assert file_locks.lock_descriptor(descriptor, wait=True)
    os.close(descriptor)
    with file_locks.try_locked(path) as locked:
        assert locked


def test_a_descriptor_that_may_only_read_locks_and_so_does_a_folder(tmp_path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file"):
        first, second = os.open(path, os.O_RDONLY), os.open(path, os.O_RDONLY)
        assert file_locks.lock_descriptor(first, wait=False)
        assert not file_locks.lock_descriptor(second, wait=False)
        os.close(first)
        assert file_locks.lock_descriptor(second, wait=False)
        os.close(second)


def test_a_file_that_its_holder_removed_is_not_taken_for_the_lock(tmp_path) -> None:
    path = tmp_path / "lock"
    opened = []

    def open_and_lose(path: Path) -> int:
        opened.append(file_locks.open_lock_file(path))
        if len(opened) == 1:
            path.unlink()
        return opened[-1]

    descriptor = file_locks.lock_file(path, wait=True, open_file=open_and_lose)
    assert len(opened) == 2
    assert os.path.samestat(os.fstat(descriptor), path.stat())
    os.close(descriptor)


def test_a_link_is_not_followed(tmp_path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "precious")
    with pytest.raises(CacheError, match="cannot be created"), file_locks.locked(tmp_path / "lock"):
        pass
    assert not (tmp_path / "precious").exists()


def test_no_other_module_locks_files() -> None:
    users = {path.name for path in PACKAGE.rglob("*.py") if re.search(r"\bfcntl\b", path.read_text())}
    assert users == {"file_locks.py"}
    assert fcntl.LOCK_EX
