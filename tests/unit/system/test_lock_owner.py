"""Who holds a lock: the host is named, and no process of another host is judged dead."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from other_host import run_on

from sweep.system import lock_owner

if TYPE_CHECKING:
    from pathlib import Path


def test_a_lock_file_names_process_host_and_time(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text("something longer that stood there before, of an earlier holder, and goes" * 9)
    with path.open("r+") as file:
        lock_owner.write(file.fileno())
        owner = lock_owner.read(path)
        assert owner is not None
        assert path.read_text() == owner.line
        assert str(owner) == f"process {os.getpid()} on {os.uname().nodename} since {owner.since}"
        assert owner.since.endswith(" UTC")
        lock_owner.clear(file.fileno())
        assert lock_owner.read(path) is None
        path.write_text(replace(owner, host="other-host").line)
        lock_owner.clear(file.fileno())
    assert lock_owner.read(path).host == "other-host", "the lock of this host did not keep it out"


def test_the_text_of_an_earlier_version_and_no_text_at_all() -> None:
    assert str(lock_owner.parse("process 12 on vm")) == "process 12 on vm"
    assert not lock_owner.parse("process 12 on vm").is_dead
    for text in ("", "garbage", "process x on y"):
        assert lock_owner.parse(text) is None
    assert str(lock_owner.parse("process 1 on \x1b[31mred since \x1b]0;x, 1@2")).isprintable()


def test_only_a_process_of_this_host_and_namespace_is_judged_dead(tmp_path: Path) -> None:
    path = tmp_path / "lock"

    def write() -> None:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR)
        lock_owner.write(descriptor)

    current = lock_owner.current()
    assert not current.is_dead
    assert replace(current, identity=f"1@{lock_owner._namespace()}").is_dead, (
        "its number belongs to another process now"
    )
    child = os.fork()
    if child == 0:
        write()
        os._exit(0)
    os.waitpid(child, 0)
    ended = lock_owner.read(path)
    assert ended.is_dead
    assert not replace(ended, identity=f"{ended.identity}1").is_dead, "of another namespace of processes"
    assert run_on("other-host", write) == 0
    other = lock_owner.read(path)
    assert (other.host, other.is_of_other_host, other.is_dead) == ("other-host", True, False)
