"""The folder of a sweep that several hosts share: with locks that reach all of them, this host alone, and with none."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from pathlib import Path

import pytest
from other_host import run_on

from sweep.errors import ConfigError
from sweep.spec.settings import Settings
from sweep.storage.store import Store
from sweep.storage.sweep_folder import LOCK, OWNER, folder_lock, is_own_file
from sweep.system import atomic_files, lock_owner, write_atomic

pytestmark = pytest.mark.fault


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(name="s", results=tmp_path)


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without locks, such as NFS mounted without its lock service."""

    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)


def held(settings: Settings) -> list[str]:
    """Lock the folder and release it; return the lines for the user."""
    lines: list[str] = []
    with folder_lock(settings, lines.append):
        pass
    return lines


def die_in(settings: Settings) -> None:
    """Lock the folder, and end as a killed process does."""
    with folder_lock(settings, lambda _: None):
        os._exit(0)


@pytest.mark.parametrize(("name", "reason"), [("a" * 600, "File name too long"), ("a\0b", "embedded null byte")])
def test_a_path_that_no_file_system_takes_is_one_short_line(tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=rf"cannot be written \({reason}\)$") as caught:
        held(Settings(name="s", results=tmp_path / name))
    assert len(str(caught.value)) < 500


def test_the_refusal_names_process_host_and_time(settings: Settings) -> None:
    with folder_lock(settings, pytest.fail):
        owner = lock_owner.read(settings.root / LOCK)
        with pytest.raises(ConfigError, match=f"in use by {owner}: wait for it, or give this sweep a name=$"):
            held(settings)
    assert (settings.root / LOCK).read_text() == ""
    assert owner.host == os.uname().nodename


def test_a_sweep_that_another_host_never_ended_is_told_and_that_of_this_host_is_not(settings: Settings) -> None:
    """Its lock is free: it was killed, or its lock does not reach this host."""
    assert run_on(os.uname().nodename, lambda: die_in(settings)) == 0
    assert held(settings) == []
    assert run_on("other-host", lambda: die_in(settings)) == 0
    (line,) = held(settings)
    assert " on other-host since " in line
    assert "of two records of one variant the later one stands" in line
    assert held(settings) == []


@pytest.mark.usefixtures("no_locks")
def test_without_locks_a_file_stands_in_for_one(settings: Settings) -> None:
    lines: list[str] = []
    with folder_lock(settings, lines.append):
        (line,) = lines
        assert "file system without locks (No locks available): .lock.owner stands in" in line
        with pytest.raises(ConfigError, match=f"in use by process {os.getpid()} on .* or remove .*{OWNER} if"):
            held(settings)
        assert run_on("other-host", lambda: held(settings)) == 1
    assert not (settings.root / OWNER).exists()


@pytest.mark.usefixtures("no_locks")
def test_without_locks_only_a_dead_process_of_this_host_gives_way(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_on(os.uname().nodename, lambda: die_in(settings)) == 0
    assert len(held(settings)) == 1
    assert run_on("other-host", lambda: die_in(settings)) == 0
    with pytest.raises(ConfigError, match=r"in use by process \d+ on other-host since"):
        held(settings)
    (settings.root / OWNER).unlink()
    assert run_on(os.uname().nodename, lambda: die_in(settings)) == 0
    path = settings.root / OWNER
    quicker = lock_owner.Owner(1, "quicker", "now", "1@2").line
    monkeypatch.setattr(
        lock_owner.Owner, "is_dead", property(lambda owner: owner.pid > 1 and bool(path.write_text(quicker)))
    )
    with pytest.raises(ConfigError, match="in use by process 1 on quicker"):
        held(settings)
    assert path.read_text() == quicker, "the process that replaced the dead one keeps its file"


def test_temporary_files_name_host_and_process_and_those_of_another_host_stay_for_a_day(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(settings.root)
    left: list[str] = []

    def fail(self: Path, _: object) -> None:
        left.append(self.name)
        raise OSError(errno.EIO, "killed")

    def write() -> None:
        monkeypatch.setattr(Path, "replace", fail)
        monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)  # as a killed process
        with pytest.raises(OSError, match="killed"):
            write_atomic(store.record_path("k"), b"{}")
        (settings.results / f"name-{os.uname().nodename}").write_text(left[-1])

    assert run_on("other.host", write) == 0
    assert run_on(os.uname().nodename, write) == 0
    other, own = ((settings.results / f"name-{name}").read_text() for name in ("other.host", os.uname().nodename))
    assert other.startswith(".k.json.other_host-")
    assert atomic_files.is_of_other_host(other)
    assert own.startswith(f".k.json.{lock_owner.host_part()}-")
    (settings.root / "records" / ".k.json.abcd_123").touch()  # of an earlier version
    assert held(settings) == []
    assert [path.name for path in (settings.root / "records").iterdir()] == [other]
    day_ago = time.time() - 90_000
    os.utime(settings.root / "records" / other, (day_ago, day_ago))
    assert held(settings) == []
    assert list((settings.root / "records").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "is_own"),
    [
        ("s/records/new.csv", True),
        ("s/layers/KEY.json", True),
        ("s/samples", True),
        ("s/config.json", True),
        ("mlflow.db", True),
        ("cache/onnx/any", True),
        ("s/report.html", False),
        ("s/slides.pdf", False),
        ("config.json", False),
        ("logs/layers/out.csv", False),  # of another program
    ],
)
def test_the_files_that_a_sweep_reads_again_are_its_own(tmp_path: Path, name: str, *, is_own: bool) -> None:
    (tmp_path / "s" / "records").mkdir(parents=True)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / ".sweep-cache").touch()
    assert is_own_file(tmp_path / name) is is_own
