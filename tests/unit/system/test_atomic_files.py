"""A file appears whole, in the place of a file alone."""

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
