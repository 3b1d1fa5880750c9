"""A file appears whole, in the place of a file alone."""

import errno
import os
from pathlib import Path

import pytest

from sweep.cli import arguments
from sweep.system import atomic_files, write_atomic


def test_a_device_is_never_replaced(tmp_path, monkeypatch) -> None:
    """As root, an output named /dev/null would else leave a regular file in its place, for every program."""
    with pytest.raises(OSError, match="is a device"):
        atomic_files.refuse_device(Path("/dev/null"))
    asked = []

    def refuse(path: Path) -> None:
        asked.append(path)
        raise OSError("is a device")

    monkeypatch.setattr(atomic_files, "refuse_device", refuse)
    for write in (write_atomic, arguments.write_output):
        with pytest.raises(OSError, match="is a device"):
            write(tmp_path / "device", b"text")
    assert asked == [tmp_path / "device"] * 2
    assert list(tmp_path.iterdir()) == []


def test_an_error_names_the_file_that_was_requested_and_no_temporary_one(tmp_path, monkeypatch) -> None:
    """A full disk names no file, a folder that cannot be written the temporary one."""

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "out.csv"
    with pytest.raises(OSError, match=r"No space left on device: '.*/out\.csv'"), arguments.output_file(path):
        full()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*/out\.csv'"):
        write_atomic(path, b"content")
    with pytest.raises(PermissionError, match=r"/out\.csv'"), atomic_files.errors_name(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(tmp_path / ".out.csv.host-1-x"))
    assert not list(tmp_path.iterdir())
    with pytest.raises(FileNotFoundError, match="another"), atomic_files.errors_name(path):
        Path(tmp_path / "another").read_bytes()
