"""Real processes that want one device: who holds it is named, who waits comes next, another user is no exception."""

import errno
import fcntl
import os
import pwd
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from other_host import run_on

from sweep.errors import BusyError
from sweep.system import device_lock
from sweep.system.device_lock import DeviceLock

HOLDS = """
import os, psutil, sys
from sweep.system.device_lock import DeviceLock
if len(sys.argv) > 1:
    os.setuid(int(sys.argv[1]))
turn = DeviceLock("gpu-x", 30.0, lambda text: print("waits", flush=True))
turn.acquire()
print("holds", flush=True)
sys.stdin.readline()
turn.release()
print("left", flush=True)
sys.stdin.readline()
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(device_lock.FOLDER, str(tmp_path / "locks"))
    return tmp_path / "locks"


@pytest.fixture
def other():
    """Starts processes that take the turn, say so, and leave it when told."""
    started = []

    def start(*user):
        command = [sys.executable, "-c", HOLDS, *map(str, user)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def turn(wait_s=30.0, said=None):
    return DeviceLock("gpu-x", wait_s, (said if said is not None else []).append)


def test_it_is_one_holder_s_and_free_once_left(folder) -> None:
    first, second = turn(), turn(wait_s=0.0)
    first.acquire()
    assert first.acquired
    with pytest.raises(BusyError):
        second.acquire()
    first.release()
    second.acquire()
    assert (first.acquired, second.acquired) == (False, True)
    second.release()


def test_who_is_in_the_way_is_named_with_user_process_command_and_since(other) -> None:
    holder, said = other(), []
    assert holder.stdout.readline() == "holds\n"
    with pytest.raises(BusyError, match=r"gpu-x is still measured on by .* after 0.5 s \(gpu.wait_s\)") as raised:
        turn(0.5, said).acquire()
    user = pwd.getpwuid(os.getuid()).pw_name
    for text in (said[0], str(raised.value)):
        assert f"user {user}, process {holder.pid} ({sys.executable} -c" in text
        assert f"running since {time.strftime('%Y-')}" in text
    assert len(said) == 1
    assert "at most 0.5 s (gpu.wait_s)" in said[0]


def test_a_killed_holder_holds_nothing(other) -> None:
    holder = other()
    assert holder.stdout.readline() == "holds\n"
    holder.kill()
    holder.wait()
    turn(5.0).acquire()


def test_who_waits_comes_before_who_had_it(other) -> None:
    mine = turn()
    mine.acquire()
    assert not mine.has_waiters()
    waiting = other()
    assert waiting.stdout.readline() == "waits\n"
    assert mine.has_waiters()
    mine.release()
    waiting.stdin.write("\n")
    waiting.stdin.flush()
    mine.acquire()  # at once, and yet after the other
    assert waiting.stdout.read(6) == "holds\n"
    assert waiting.stdout.readline() == "left\n"
    mine.release()


def test_the_files_can_be_read_by_all_and_written_by_their_maker_alone(folder) -> None:
    before = os.umask(0o077)
    try:
        turn().acquire()
    finally:
        os.umask(before)
    files = sorted(folder.iterdir())
    assert [path.name for path in files] == ["sweep-gpu-x.line", "sweep-gpu-x.lock"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o644}
    assert stat.S_IMODE(folder.stat().st_mode) & 0o022 == 0


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_another_user_takes_it_waits_for_it_and_cannot_write_it(folder, other, tmp_path) -> None:
    ours = turn()
    ours.acquire()  # made by us, for all
    ours.release()
    for path in (tmp_path, *tmp_path.parents[:3]):
        path.chmod(0o755)
    stranger = other(pwd.getpwnam("nobody").pw_uid)
    assert stranger.stdout.readline() == "holds\n"
    with pytest.raises(BusyError, match="user nobody, process"):
        turn(0.5).acquire()
    assert (folder / "sweep-gpu-x.lock").stat().st_uid == 0


def test_a_link_or_a_pipe_in_its_place_is_refused(folder, tmp_path) -> None:
    folder.mkdir()
    (folder / "sweep-gpu-x.lock").symlink_to(tmp_path / "precious")
    with pytest.raises(BusyError, match="cannot be opened"):
        turn().acquire()
    assert not (tmp_path / "precious").exists()
    (folder / "sweep-gpu-x.lock").unlink()
    os.mkfifo(folder / "sweep-gpu-x.lock")
    with pytest.raises(BusyError, match="is no plain file"):
        turn().acquire()


def test_a_file_that_somebody_tidied_away_is_made_anew(folder) -> None:
    turn().acquire()
    (folder / "sweep-gpu-x.lock").unlink()
    again = turn(wait_s=1.0)
    again.acquire()
    assert again.acquired
    assert (folder / "sweep-gpu-x.lock").exists()


def test_the_holder_of_a_free_lock_is_nobody(tmp_path) -> None:
    path = tmp_path / "free"
    path.touch()
    assert device_lock.holder(path) is None
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert f"process {os.getpid()} " in str(device_lock.holder(path))
    assert device_lock.holder(Path("/nowhere")) is None


def test_a_holder_of_another_host_is_named_by_the_lock_file(folder, monkeypatch) -> None:
    """No table of this kernel knows it."""
    monkeypatch.setattr(device_lock, "holder", lambda _: None)

    def hold_and_refuse() -> None:
        first = turn()
        first.acquire()
        with pytest.raises(BusyError, match=r"measured on by process \d+ on other-host since .* UTC after 0 s"):
            turn(wait_s=0.0).acquire()
        first.release()

    assert run_on("other-host", hold_and_refuse) == 0
    assert (folder / "sweep-gpu-x.lock").read_text() == ""


def test_a_folder_without_locks_is_one_line_with_the_way_out(folder, monkeypatch) -> None:
    def flock(*_):
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(BusyError, match=r"has no locks \(Operation not supported\): set SWEEP_LOCK_DIR to a folder on"):
        turn().acquire()
